//! A streamed answer as Anthropic's events: blocks one after the other between `message_start` and `message_stop`.
//!
//! `message_start` has the usage of the prompt, so it waits until the engine has looked into its cache.

use axum::response::sse::Event;
use k2_chat::Delta;
use k2_engine::Usage;
use serde_json::{Value, json};

use super::{call_id, error, response};
use crate::answer::End;
use crate::error::ApiError;
use crate::stream::Wire;

/// The state of a stream.
pub(super) struct Events {
    id: String,
    model: String,
    started: bool,
    /// The block that is open.
    open: Option<Block>,
    /// Blocks so far, the open one included.
    blocks: usize,
}

/// A kind of block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    /// With its place among the calls.
    ToolUse(usize),
}

impl Events {
    pub(super) fn new(id: String, model: String) -> Events {
        Events { id, model, started: false, open: None, blocks: 0 }
    }

    fn start(&mut self, usage: Usage) -> Event {
        self.started = true;
        let Events { id, model, .. } = self;
        named(json!({
            "type": "message_start",
            "message": {
                "id": id,
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [],
                "stop_reason": null,
                "stop_sequence": null,
                "usage": response::usage(usage),
            },
        }))
    }

    /// Makes `block` the open one, with this first content.
    fn open(&mut self, block: Block, content: Value) -> Vec<Event> {
        if self.open == Some(block) {
            return Vec::new();
        }
        let mut events = self.close();
        self.open = Some(block);
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": content });
        self.blocks += 1;
        events.push(named(start));
        events
    }

    fn close(&mut self) -> Vec<Event> {
        let stop = |_| named(json!({ "type": "content_block_stop", "index": self.blocks - 1 }));
        self.open.take().map(stop).into_iter().collect()
    }

    fn piece(&self, delta: Value) -> Event {
        let index = self.blocks.saturating_sub(1);
        named(json!({ "type": "content_block_delta", "index": index, "delta": delta }))
    }

    fn text(&mut self, text: &str) -> Vec<Event> {
        let mut events = self.open(Block::Text, json!({ "type": "text", "text": "" }));
        events.push(self.piece(json!({ "type": "text_delta", "text": text })));
        events
    }
}

impl Wire for Events {
    fn first(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn prefill(&mut self, _num_computed_tokens: usize, usage: Usage) -> Vec<Event> {
        match self.started {
            true => vec![named(json!({ "type": "ping" }))],
            false => vec![self.start(usage)],
        }
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        match delta {
            Delta::Reasoning(text) if text.is_empty() => Vec::new(),
            Delta::Reasoning(text) => {
                let empty = json!({ "type": "thinking", "thinking": "", "signature": "" });
                let mut events = self.open(Block::Thinking, empty);
                events.push(self.piece(json!({ "type": "thinking_delta", "thinking": text })));
                events
            }
            Delta::Content(text) => self.text(&text),
            Delta::Call { index, id, name } => {
                let id = call_id::outgoing(&id);
                let call = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                self.open(Block::ToolUse(index), call)
            }
            Delta::Arguments { text, .. } => {
                vec![self.piece(json!({ "type": "input_json_delta", "partial_json": text }))]
            }
        }
    }

    fn last(&mut self, end: &End) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.started {
            events.push(self.start(Usage { completion_tokens: 0, ..end.usage }));
        }
        if !matches!(self.open, Some(Block::Text | Block::ToolUse(_))) {
            events.extend(self.text("")); // as in a whole answer, which is never without content
        }
        events.extend(self.close());
        let (stop_reason, stop_sequence) = response::stop(end);
        let delta = json!({ "stop_reason": stop_reason, "stop_sequence": stop_sequence });
        let usage = response::usage(end.usage);
        events.push(named(json!({ "type": "message_delta", "delta": delta, "usage": usage })));
        events.push(named(json!({ "type": "message_stop" })));
        events
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![named(error::json(error))]
    }
}

/// An event under the name that its `type` is.
fn named(event: Value) -> Event {
    Event::default().event(event["type"].as_str().unwrap_or_default()).data(event.to_string())
}

#[cfg(test)]
mod tests {
    use k2_chat::FinishReason;

    use super::*;
    use crate::stream::transcript;

    fn end(finish_reason: FinishReason) -> End {
        let usage =
            Usage { prompt_tokens: 9, num_cached_tokens: 4, completion_tokens: 7, ..Usage::default() };
        End { finish_reason, usage, ..End::default() }
    }

    async fn check(deltas: Vec<Delta>, reason: FinishReason, expected: &[&str]) {
        let mut events = Events::new("msg".to_owned(), "k2".to_owned());
        let lines = transcript(&mut events, deltas, &end(reason)).await;
        let shown = |line: &String| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let inside = ["/content_block", "/delta"].iter().find_map(|pointer| event.pointer(pointer));
            let inside = inside.map_or(String::new(), |value| format!(" {value}"));
            let index = event["index"].as_u64().map_or(String::new(), |index| format!(" {index}"));
            format!("{}{index}{inside}", event["type"].as_str().unwrap_or_default())
        };
        assert_eq!(lines.iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn blocks_open_and_close_one_after_the_other() {
        let call = |index, id: &str| Delta::Call { index, id: id.to_owned(), name: "look".to_owned() };
        let arguments = |index, text: &str| Delta::Arguments { index, text: text.to_owned() };
        let deltas = vec![
            Delta::Reasoning(String::new()),
            Delta::Reasoning("Hm".to_owned()),
            Delta::Reasoning("m".to_owned()),
            Delta::Content("I look.".to_owned()),
            call(0, "functions.look:3"),
            arguments(0, "{\"at\":"),
            arguments(0, "1}"),
            call(1, "functions.look:4"),
            arguments(1, "{}"),
        ];
        let expected = [
            "message_start",
            r#"content_block_start 0 {"type":"thinking","thinking":"","signature":""}"#,
            r#"content_block_delta 0 {"type":"thinking_delta","thinking":"Hm"}"#,
            r#"content_block_delta 0 {"type":"thinking_delta","thinking":"m"}"#,
            "content_block_stop 0",
            r#"content_block_start 1 {"type":"text","text":""}"#,
            r#"content_block_delta 1 {"type":"text_delta","text":"I look."}"#,
            "content_block_stop 1",
            r#"content_block_start 2 {"type":"tool_use","id":"toolu_ID_3","name":"look","input":{}}"#,
            r#"content_block_delta 2 {"type":"input_json_delta","partial_json":"{\"at\":"}"#,
            r#"content_block_delta 2 {"type":"input_json_delta","partial_json":"1}"}"#,
            "content_block_stop 2",
            r#"content_block_start 3 {"type":"tool_use","id":"toolu_ID_4","name":"look","input":{}}"#,
            r#"content_block_delta 3 {"type":"input_json_delta","partial_json":"{}"}"#,
            "content_block_stop 3",
            r#"message_delta {"stop_reason":"tool_use","stop_sequence":null}"#,
            "message_stop",
        ];
        check(deltas, FinishReason::ToolCalls, &expected).await;
        let nothing = [
            "message_start",
            r#"content_block_start 0 {"type":"text","text":""}"#,
            r#"content_block_delta 0 {"type":"text_delta","text":""}"#,
            "content_block_stop 0",
            r#"message_delta {"stop_reason":"max_tokens","stop_sequence":null}"#,
            "message_stop",
        ];
        check(Vec::new(), FinishReason::Length, &nothing).await;
    }
}
