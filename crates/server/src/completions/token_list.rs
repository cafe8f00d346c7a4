//! `logprobs` of a completion: tokens, their log-probabilities, the likeliest at their places, and where in the
//! text each begins.

use k2_chat::Detokenizer;
use serde_json::{Map, Value, json};

use crate::answer::TokenLogprobs;

/// Tokens since they were last shown.
#[derive(Default)]
pub(super) struct TokenList {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    detokenizer: Detokenizer,
    /// Characters before the next token.
    offset: usize,
}

impl TokenList {
    /// The first token of a prompt, which nothing comes before. Returns its text.
    pub(super) fn first(&mut self, bytes: &[u8]) -> String {
        self.add(bytes, None, None)
    }

    /// The next token. Returns the text that it completes.
    pub(super) fn push(&mut self, token: &TokenLogprobs) -> String {
        // The token itself is always among them, so there may be one more than was asked for.
        let mut top: Map<String, Value> =
            token.top.iter().map(|(bytes, logprob)| (shown(bytes), json!(logprob))).collect();
        top.entry(shown(&token.bytes)).or_insert(json!(token.logprob));
        self.add(&token.bytes, Some(token.logprob), Some(top))
    }

    fn add(&mut self, bytes: &[u8], logprob: Option<f32>, top: Option<Map<String, Value>>) -> String {
        self.tokens.push(shown(bytes));
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
        self.text_offset.push(self.offset);
        let text = self.detokenizer.push_bytes(bytes);
        self.offset += text.chars().count();
        text
    }

    /// The tokens that have not been shown before.
    pub(super) fn take(&mut self) -> Value {
        json!({
            "tokens": std::mem::take(&mut self.tokens),
            "token_logprobs": std::mem::take(&mut self.token_logprobs),
            "top_logprobs": std::mem::take(&mut self.top_logprobs),
            "text_offset": std::mem::take(&mut self.text_offset),
        })
    }
}

/// A token as text. One that is no whole text comes as OpenAI writes it: `bytes:` and each byte.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
}
