//! Chat answers on the wire: `chat.completion` and `chat.completion.chunk`.

use std::sync::Arc;

use axum::response::sse::Event;
use k2_chat::{Delta, FinishReason, Reply};
use k2_engine::Usage;
use serde_json::{Value, json};

use super::logprobs;
use crate::answer::{End, TokenLogprobs};
use crate::options::StreamOptions;
use crate::stream::{Head, Wire, data, done, prefill_progress, usage};

/// The whole answer, with a choice for each time that it was asked for.
pub(super) fn completion(head: &Head, answers: &[(Reply, End)]) -> Value {
    let choices: Vec<Value> =
        answers.iter().enumerate().map(|(index, (reply, end))| whole_choice(index, reply, end)).collect();
    let mut completion = head.json("chat.completion", json!(choices));
    completion["usage"] = usage(&together(answers.iter().map(|(_, end)| end)));
    completion
}

fn whole_choice(index: usize, reply: &Reply, end: &End) -> Value {
    let mut message = json!({ "role": "assistant", "content": reply.content, "refusal": null });
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
    let (finish_reason, logprobs) = (reply.finish_reason, logprobs::json(&end.logprobs));
    json!({ "index": index, "message": message, "finish_reason": finish_reason, "logprobs": logprobs })
}

/// The prompt counts once, the answers each.
fn together<'a>(mut ends: impl Iterator<Item = &'a End>) -> End {
    let mut all = ends.next().cloned().unwrap_or_default();
    for end in ends {
        all.usage.completion_tokens += end.usage.completion_tokens;
        all.reasoning_tokens += end.reasoning_tokens;
    }
    all
}

/// The pieces of a streamed answer, of which a request may have several.
pub(super) struct Chunks {
    head: Arc<Head>,
    index: usize,
    options: StreamOptions,
}

impl Chunks {
    pub(super) fn new(head: Arc<Head>, index: usize, options: StreamOptions) -> Chunks {
        Chunks { head, index, options }
    }

    fn chunk(&self, delta: Value) -> Event {
        data(&self.with_usage(json!([self.choice(delta, None)]), Value::Null))
    }

    fn choice(&self, delta: Value, finish_reason: Option<FinishReason>) -> Value {
        json!({ "index": self.index, "delta": delta, "finish_reason": finish_reason, "logprobs": null })
    }

    fn with_usage(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = self.head.json("chat.completion.chunk", choices);
        if self.options.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

impl Wire for Chunks {
    fn first(&mut self) -> Vec<Event> {
        vec![self.chunk(json!({ "role": "assistant", "content": "" }))]
    }

    /// Of the first answer alone: all have the same prompt.
    fn prefill(&mut self, num_computed_tokens: usize, usage: Usage) -> Vec<Event> {
        if !self.options.include_progress || self.index > 0 {
            return Vec::new();
        }
        let mut chunk = self.with_usage(json!([]), Value::Null);
        chunk["prefill_progress"] = prefill_progress(num_computed_tokens, usage);
        vec![data(&chunk)]
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
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
        vec![self.chunk(delta)]
    }

    fn logprobs(&mut self, tokens: &[TokenLogprobs]) -> Vec<Event> {
        let mut choice = self.choice(json!({ "content": "" }), None);
        choice["logprobs"] = logprobs::json(tokens);
        vec![data(&self.with_usage(json!([choice]), Value::Null))]
    }

    /// Usage twice: OpenAI's clients look for it in a chunk of its own, Moonshot's in the last of each choice.
    fn last(&mut self, end: &End) -> Vec<Event> {
        let mut last = self.choice(json!({}), Some(end.finish_reason));
        last["usage"] = usage(end);
        vec![data(&self.with_usage(json!([last]), Value::Null))]
    }

    fn closing(&mut self, ends: &[End]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.options.include_usage {
            events.push(data(&self.with_usage(json!([]), usage(&together(ends.iter())))));
        }
        events.push(done());
        events
    }
}
