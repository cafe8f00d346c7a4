//! A streamed response: every event is numbered, and says where its piece belongs.

use axum::response::sse::Event;
use k2_chat::Delta;
use k2_engine::Usage;
use serde_json::{Value, json};

use super::output::{Item, Kind, Output, Shell, end_status};
use crate::answer::End;
use crate::error::ApiError;
use crate::stream::{Wire, prefill_progress};

/// The state of a stream.
pub(super) struct Events {
    shell: Shell,
    include_progress: bool,
    sequence_number: u64,
    output: Output,
    /// The item that is being written.
    open: Option<Item>,
}

impl Events {
    pub(super) fn new(shell: Shell, include_progress: bool) -> Events {
        Events { shell, include_progress, sequence_number: 0, output: Output::default(), open: None }
    }

    /// An event under its type, with the next number.
    fn event(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence_number);
        self.sequence_number += 1;
        Event::default().event(kind).data(fields.to_string())
    }

    /// An event about the open item's only content.
    fn about(&mut self, kind: &str, mut fields: Value) -> Event {
        if let Some(Item { id, kind, .. }) = &self.open {
            fields["item_id"] = json!(id);
            fields["output_index"] = json!(self.output.items.len());
            if !matches!(kind, Kind::Call { .. }) {
                fields["content_index"] = json!(0);
            }
        }
        self.event(kind, fields)
    }

    fn open(&mut self, kind: Kind) -> Vec<Event> {
        let mut events = self.close("completed");
        let item = Item::new(kind);
        let has_parts = !matches!(item.kind, Kind::Call { .. });
        let (added, part) = (item.json("in_progress"), item.part());
        let index = self.output.items.len();
        self.open = Some(item);
        events
            .push(self.event("response.output_item.added", json!({ "output_index": index, "item": added })));
        if has_parts {
            events.push(self.about("response.content_part.added", json!({ "part": part })));
        }
        events
    }

    /// More of the open item, which is of this kind or becomes so.
    fn piece(&mut self, kind: Kind, text: &str) -> Vec<Event> {
        let same = |open: &Item| std::mem::discriminant(&open.kind) == std::mem::discriminant(&kind);
        let mut events = if self.open.as_ref().is_some_and(same) { Vec::new() } else { self.open(kind) };
        let Some(item) = &mut self.open else { return events };
        item.text.push_str(text);
        let (name, fields) = match item.kind {
            Kind::Reasoning => ("response.reasoning_text.delta", json!({ "delta": text })),
            Kind::Message => ("response.output_text.delta", json!({ "delta": text, "logprobs": [] })),
            Kind::Call { .. } => ("response.function_call_arguments.delta", json!({ "delta": text })),
        };
        events.push(self.about(name, fields));
        events
    }

    fn close(&mut self, status: &str) -> Vec<Event> {
        let Some(item) = &self.open else { return Vec::new() };
        let (done, part) = (item.json(status), item.part());
        let (name, fields) = match &item.kind {
            Kind::Reasoning => ("response.reasoning_text.done", json!({ "text": item.text })),
            Kind::Message => ("response.output_text.done", json!({ "text": item.text, "logprobs": [] })),
            Kind::Call { name, .. } => {
                ("response.function_call_arguments.done", json!({ "name": name, "arguments": item.text }))
            }
        };
        let has_parts = !matches!(item.kind, Kind::Call { .. });
        let mut events = vec![self.about(name, fields)];
        if has_parts {
            events.push(self.about("response.content_part.done", json!({ "part": part })));
        }
        let index = self.output.items.len();
        self.open = None;
        self.output.items.push(done.clone());
        events.push(self.event("response.output_item.done", json!({ "output_index": index, "item": done })));
        events
    }
}

impl Wire for Events {
    fn first(&mut self) -> Vec<Event> {
        let response = self.shell.with("in_progress", &self.output);
        let both = ["response.created", "response.in_progress"];
        both.map(|kind| self.event(kind, json!({ "response": response }))).into()
    }

    /// `response.in_progress` once more, which every client takes.
    fn prefill(&mut self, num_computed_tokens: usize, usage: Usage) -> Vec<Event> {
        if !self.include_progress {
            return Vec::new();
        }
        let response = self.shell.with("in_progress", &self.output);
        let progress = prefill_progress(num_computed_tokens, usage);
        vec![
            self.event("response.in_progress", json!({ "response": response, "prefill_progress": progress })),
        ]
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        match delta {
            Delta::Reasoning(text) if text.is_empty() => Vec::new(),
            Delta::Reasoning(text) => self.piece(Kind::Reasoning, &text),
            Delta::Content(text) => self.piece(Kind::Message, &text),
            Delta::Call { id, name, .. } => self.open(Kind::Call { call_id: id, name }),
            Delta::Arguments { text, .. } => {
                let nameless = Kind::Call { call_id: String::new(), name: String::new() };
                self.piece(nameless, &text) // the call is open
            }
        }
    }

    fn last(&mut self, end: &End) -> Vec<Event> {
        let mut events = Vec::new();
        if !matches!(&self.open, Some(Item { kind: Kind::Message | Kind::Call { .. }, .. })) {
            events.extend(self.open(Kind::Message)); // as in a whole answer, which is never without one
        }
        let is_call = matches!(&self.open, Some(Item { kind: Kind::Call { .. }, .. }));
        let whole = is_call && end.cut_call.is_none();
        events.extend(self.close(if whole { "completed" } else { end_status(end) }));
        let response = self.shell.ended(&self.output, end);
        let kind = format!("response.{}", end_status(end));
        events.push(self.event(&kind, json!({ "response": response })));
        events
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        let mut response = self.shell.with("failed", &self.output);
        response["error"] = json!({ "code": "server_error", "message": error.message() });
        vec![self.event("response.failed", json!({ "response": response }))]
    }
}

#[cfg(test)]
mod tests {
    use k2_chat::FinishReason;
    use serde_json::Map;

    use super::*;
    use crate::stream::transcript;

    #[tokio::test]
    async fn items_open_and_close_one_after_the_other() {
        let call = Delta::Call { index: 0, id: "functions.look:0".to_owned(), name: "look".to_owned() };
        let deltas = vec![
            Delta::Reasoning("Hm".to_owned()),
            Delta::Content("I look.".to_owned()),
            call,
            Delta::Arguments { index: 0, text: "{\"at\":".to_owned() },
            Delta::Arguments { index: 0, text: "1}".to_owned() },
        ];
        let usage =
            Usage { prompt_tokens: 9, num_cached_tokens: 4, completion_tokens: 7, ..Usage::default() };
        let end =
            End { finish_reason: FinishReason::ToolCalls, usage, reasoning_tokens: 2, ..End::default() };
        let mut events = Events::new(Shell::new("k2", Map::new()), false);
        let lines = transcript(&mut events, deltas, &end).await;
        let events: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let shown = |event: &Value| {
            let name = event["type"].as_str().unwrap_or_default().trim_start_matches("response.");
            let place = [&event["output_index"], &event["content_index"]].map(Value::to_string).join(" ");
            let piece = ["delta", "text", "arguments"].iter().find_map(|name| event[*name].as_str());
            format!("{name} {place} {}", piece.unwrap_or_default()).replace("null", "-").trim_end().to_owned()
        };
        let expected = [
            "created - -",
            "in_progress - -",
            "output_item.added 0 -",
            "content_part.added 0 0",
            "reasoning_text.delta 0 0 Hm",
            "reasoning_text.done 0 0 Hm",
            "content_part.done 0 0",
            "output_item.done 0 -",
            "output_item.added 1 -",
            "content_part.added 1 0",
            "output_text.delta 1 0 I look.",
            "output_text.done 1 0 I look.",
            "content_part.done 1 0",
            "output_item.done 1 -",
            "output_item.added 2 -",
            "function_call_arguments.delta 2 - {\"at\":",
            "function_call_arguments.delta 2 - 1}",
            "function_call_arguments.done 2 - {\"at\":1}",
            "output_item.done 2 -",
            "completed - -",
        ];
        assert_eq!(events.iter().map(shown).collect::<Vec<_>>(), expected);
        assert!(events.iter().zip(0..).all(|(event, number)| event["sequence_number"] == number));
        let response = &events[events.len() - 1]["response"];
        let done: Vec<_> =
            events.iter().filter(|event| event["type"] == "response.output_item.done").collect();
        assert!(done.iter().zip(0..).all(|(event, at)| event["item"] == response["output"][at]));
        assert_eq!(response["output"][2]["call_id"], "functions.look:0");
        assert_eq!(response["usage"]["output_tokens_details"]["reasoning_tokens"], 2);
    }
}
