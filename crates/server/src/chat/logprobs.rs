//! Log-probabilities on the wire: `logprobs.content`, a list with an entry for each token.

use serde_json::{Value, json};

use crate::answer::TokenLogprobs;

/// Null if there are none.
pub(super) fn json(tokens: &[TokenLogprobs]) -> Value {
    let token = |bytes: &[u8], logprob: f32| json!({ "token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes });
    let content = tokens.iter().map(|chosen| {
        let mut entry = token(&chosen.bytes, chosen.logprob);
        let top = chosen.top.iter().map(|(bytes, logprob)| token(bytes, *logprob));
        entry["top_logprobs"] = top.collect();
        entry
    });
    match tokens.is_empty() {
        true => Value::Null,
        false => json!({ "content": content.collect::<Vec<_>>(), "refusal": null }),
    }
}
