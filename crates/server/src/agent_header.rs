//! Headers that agents put before their system prompt and that are different each time.
//!
//! Claude Code begins its system prompt with `x-anthropic-billing-header: …; cch=NONCE;`. Left there, no two prompts
//! would begin alike, and nothing of them would ever be found in the cache (vLLM PR 36829). It says nothing to a
//! model, so it is left out.

use std::sync::Once;

use k2_chat::{Content, Message, Role};

/// What such a header begins with. It ends with its line.
const HEADER: &str = "x-anthropic-billing-header:";

/// Takes the header out of a conversation's first message.
pub(crate) fn leave_out(messages: &mut Vec<Message>) {
    let Some(first) = messages.first_mut().filter(|message| message.role == Role::System) else { return };
    let text = match &mut first.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => match parts.first_mut().and_then(|part| part.text.as_mut()) {
            Some(text) => text,
            None => return,
        },
        None => return,
    };
    let Some(header) = text.strip_prefix(HEADER) else { return };
    *text = header.split_once('\n').map_or("", |(_, rest)| rest.trim_start_matches('\n')).to_owned();
    if matches!(&first.content, Some(Content::Text(text)) if text.is_empty()) {
        messages.remove(0);
    }
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::info!(
            "a system prompt came without its `{HEADER} …`, and will; --keep-agent-headers keeps it"
        );
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn prompts_begin_alike_without_it() {
        let check = |content: Value, expected: Value| {
            let user = json!({ "role": "user", "content": "x-anthropic-billing-header: mine" });
            let sent = json!([{ "role": "system", "content": content }, user]);
            let mut messages: Vec<Message> = serde_json::from_value(sent).unwrap();
            leave_out(&mut messages);
            let system = json!({ "role": "system", "content": expected });
            let expected = if expected.is_null() { json!([user]) } else { json!([system, user]) };
            assert_eq!(serde_json::to_value(&messages).unwrap(), expected);
        };
        check(json!("x-anthropic-billing-header: cc_version=2; cch=a1b2c;\n\nYou are."), json!("You are."));
        check(json!("x-anthropic-billing-header: cch=00000;"), Value::Null);
        check(
            json!("You are.\nx-anthropic-billing-header: x"),
            json!("You are.\nx-anthropic-billing-header: x"),
        );
        let part = |text: &str| json!({ "type": "text", "text": text });
        check(
            json!([part("x-anthropic-billing-header: cch=9;"), part("You are.")]),
            json!([part(""), part("You are.")]),
        );
    }
}
