//! What a response consists of: the object around it, and its output items.

use std::time::{SystemTime, UNIX_EPOCH};

use k2_chat::{FinishReason, Reply};
use serde_json::{Map, Value, json};

use crate::answer::End;
use crate::stream::new_id;

/// A response without its output.
pub(super) struct Shell {
    id: String,
    created_at: u64,
    model: String,
    /// Fields of the request that come back as they were.
    echoed: Map<String, Value>,
}

/// Finished items.
#[derive(Default)]
pub(super) struct Output {
    pub(super) items: Vec<Value>,
}

/// An item on its way.
pub(super) struct Item {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// What it says so far: text or arguments.
    pub(super) text: String,
}

/// Kinds of items.
pub(super) enum Kind {
    Reasoning,
    Message,
    Call { call_id: String, name: String },
}

impl Shell {
    pub(super) fn new(model: &str, echoed: Map<String, Value>) -> Shell {
        let created_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Shell { id: new_id("resp_"), created_at, model: model.to_owned(), echoed }
    }

    /// The response with this status and output.
    pub(super) fn with(&self, status: &str, output: &Output) -> Value {
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": self.model,
            "output": output.items,
            "previous_response_id": null,
            "store": false,
            "truncation": "disabled",
            "usage": null,
        });
        for (name, value) in &self.echoed {
            response[name] = value.clone();
        }
        response
    }

    /// The whole response.
    pub(super) fn ended(&self, output: &Output, end: &End) -> Value {
        let mut response = self.with(end_status(end), output);
        if end.finish_reason == FinishReason::Length {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let used = end.usage;
        response["usage"] = json!({
            "input_tokens": used.prompt_tokens,
            "input_tokens_details": { "cached_tokens": used.num_cached_tokens },
            "output_tokens": used.completion_tokens,
            "output_tokens_details": { "reasoning_tokens": end.reasoning_tokens },
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        });
        response
    }
}

impl Output {
    /// The items of a whole answer: reasoning, message, calls.
    pub(super) fn of(reply: &Reply, end: &End) -> Output {
        let mut items = Vec::new();
        let mut add = |kind, text: &str| items.push(Item { text: text.to_owned(), ..Item::new(kind) });
        if let Some(reasoning) = reply.reasoning_content.as_deref().filter(|text| !text.is_empty()) {
            add(Kind::Reasoning, reasoning);
        }
        match reply.content.as_deref().unwrap_or_default() {
            "" if !reply.tool_calls.is_empty() => {}
            text => add(Kind::Message, text),
        }
        for call in &reply.tool_calls {
            let (call_id, name) = (call.id.clone(), call.name.clone());
            add(Kind::Call { call_id, name }, &call.arguments);
        }
        let last = items.len().saturating_sub(1);
        let status = |index, item: &Item| match item.kind {
            Kind::Call { .. } => "completed", // others are left out
            _ if index == last => end_status(end),
            _ => "completed",
        };
        let json = |(index, item): (usize, &Item)| item.json(status(index, item));
        Output { items: items.iter().enumerate().map(json).collect() }
    }
}

/// The status of an answer, and of what it ended in.
pub(super) fn end_status(end: &End) -> &'static str {
    let cut_off = end.finish_reason == FinishReason::Length || end.cut_call.is_some();
    if cut_off { "incomplete" } else { "completed" }
}

impl Item {
    pub(super) fn new(kind: Kind) -> Item {
        let prefix = match kind {
            Kind::Reasoning => "rs_",
            Kind::Message => "msg_",
            Kind::Call { .. } => "fc_",
        };
        Item { id: new_id(prefix), kind, text: String::new() }
    }

    /// The item as it is now; one that has just begun has no content yet.
    pub(super) fn json(&self, status: &str) -> Value {
        let Item { id, kind, text } = self;
        let content = if status == "in_progress" { json!([]) } else { json!([self.part()]) };
        match kind {
            Kind::Reasoning => {
                json!({ "id": id, "type": "reasoning", "summary": [], "content": content, "status": status })
            }
            Kind::Message => {
                json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
            }
            Kind::Call { call_id, name } => json!({
                "id": id,
                "type": "function_call",
                "status": status,
                "call_id": call_id,
                "name": name,
                "arguments": text,
            }),
        }
    }

    /// Its content so far.
    pub(super) fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({ "type": "reasoning_text", "text": self.text }),
            _ => json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": [] }),
        }
    }
}
