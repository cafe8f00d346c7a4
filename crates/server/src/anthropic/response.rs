//! A whole answer as a `message`.

use k2_chat::{FinishReason, Json, Reply};
use k2_engine::Usage;
use serde_json::{Value, json};

use super::call_id;
use crate::answer::End;

/// The message: reasoning, text, calls.
pub(super) fn message(id: &str, model: &str, reply: &Reply, end: &End) -> Value {
    let mut content = Vec::new();
    if let Some(reasoning) = reply.reasoning_content.as_deref().filter(|reasoning| !reasoning.is_empty()) {
        content.push(json!({ "type": "thinking", "thinking": reasoning, "signature": "" }));
    }
    match reply.content.as_deref().unwrap_or_default() {
        "" if !reply.tool_calls.is_empty() => {}
        text => content.push(json!({ "type": "text", "text": text })),
    }
    for call in &reply.tool_calls {
        let (id, input) = (call_id::outgoing(&call.id), input(&call.arguments));
        content.push(json!({ "type": "tool_use", "id": id, "name": call.name, "input": input }));
    }
    let (stop_reason, stop_sequence) = stop(end);
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": usage(end.usage),
    })
}

/// `input_tokens` are those that were computed; the cached ones are told apart.
pub(super) fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.num_cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

/// `stop_reason` and `stop_sequence`.
pub(super) fn stop(end: &End) -> (&'static str, Option<&str>) {
    match (end.finish_reason, &end.stop) {
        (FinishReason::ToolCalls, _) => ("tool_use", None),
        (FinishReason::Length, _) => ("max_tokens", None),
        (FinishReason::Stop, Some(stop)) => ("stop_sequence", Some(stop)),
        (FinishReason::Stop, None) => ("end_turn", None),
    }
}

/// Arguments as the object that `input` has to be. Those of a call that was cut off do not come here, and a grammar lets
/// no other thing be arguments; if there is one all the same, it becomes the empty object.
fn input(arguments: &str) -> Json {
    match Json::parse(arguments) {
        Ok(input @ Json::Object(_)) => input,
        _ => Json::Object(Default::default()),
    }
}
