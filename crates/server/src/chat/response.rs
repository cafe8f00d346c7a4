//! Chat answers on the wire: `chat.completion` and `chat.completion.chunk`.

use k2_chat::{Delta, FinishReason, Reply};
use k2_engine::Usage;
use serde_json::{Value, json};

use crate::stream::{Head, Wire, usage};

/// The whole answer.
pub(super) fn completion(head: &Head, reply: &Reply, used: Usage) -> Value {
    let mut message = json!({ "role": "assistant", "content": reply.content, "refusal": null });
    if reply.tool_calls.is_empty() && reply.content.is_none() {
        message["content"] = json!("");
    }
    if let Some(reasoning) = &reply.reasoning_content {
        message["reasoning_content"] = json!(reasoning);
    }
    if !reply.tool_calls.is_empty() {
        let calls = reply.tool_calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        message["tool_calls"] = calls.collect();
    }
    let choice =
        json!({ "index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": null });
    let mut completion = head.json("chat.completion", json!([choice]));
    completion["usage"] = usage(used);
    completion
}

/// The pieces of a streamed answer.
pub(super) struct Chunks {
    head: Head,
    include_usage: bool,
}

impl Chunks {
    pub(super) fn new(head: Head, include_usage: bool) -> Chunks {
        Chunks { head, include_usage }
    }

    fn chunk(&self, delta: Value, finish_reason: Option<FinishReason>) -> Value {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": null });
        self.with_usage(json!([choice]), Value::Null)
    }

    fn with_usage(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = self.head.json("chat.completion.chunk", choices);
        if self.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

impl Wire for Chunks {
    fn first(&self) -> Option<Value> {
        Some(self.chunk(json!({ "role": "assistant", "content": "" }), None))
    }

    fn delta(&self, delta: Delta) -> Value {
        let call = |call: Value| json!({ "tool_calls": [call] });
        let delta = match delta {
            Delta::Content(text) => json!({ "content": text }),
            Delta::Reasoning(text) => json!({ "reasoning_content": text }),
            Delta::Call { index, id, name } => {
                let function = json!({ "name": name, "arguments": "" });
                call(json!({ "index": index, "id": id, "type": "function", "function": function }))
            }
            Delta::Arguments { index, text } => {
                call(json!({ "index": index, "function": { "arguments": text } }))
            }
        };
        self.chunk(delta, None)
    }

    fn last(&self, reason: FinishReason, used: Usage) -> Vec<Value> {
        let mut last = vec![self.chunk(json!({}), Some(reason))];
        if self.include_usage {
            last.push(self.with_usage(json!([]), usage(used)));
        }
        last
    }
}
