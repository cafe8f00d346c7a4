//! What a conversation of a training record may say.
//!
//! A server reads the messages of many clients and passes over what it does not know. Here a misspelt key would train an
//! empty answer and a misspelt role a system turn, without a word; so both are refused. `weight` is that of OpenAI's
//! fine-tuning: an answer of weight 0 is shown and not learned.

use k2_chat::{Message, Role};
use serde_json::{Map, Value};

/// Keys of a message.
const OF_A_MESSAGE: [&str; 8] =
    ["role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "partial", "weight"];

/// Checks what serde passes over in the `messages` of a record.
pub(super) fn check_keys(record: &Value) -> Result<(), String> {
    for (index, message) in items(&record["messages"]).enumerate() {
        known(message, &format!("messages[{index}]"), &OF_A_MESSAGE)?;
        for (part, content) in items(&message["content"]).enumerate() {
            // A picture would be a marker without anything behind it.
            known(content, &format!("messages[{index}].content[{part}]"), &["type", "text"])?;
        }
        for (number, call) in items(&message["tool_calls"]).enumerate() {
            let place = format!("messages[{index}].tool_calls[{number}]");
            known(call, &place, &["id", "type", "function"])?;
            known(&call["function"], &format!("{place}.function"), &["name", "arguments"])?;
        }
    }
    Ok(())
}

/// How much each message counts if the assistant says it: 1, or what its `weight` says.
pub(super) fn weights(messages: &[Message]) -> Result<Vec<f32>, String> {
    messages.iter().enumerate().map(|(index, message)| weight(index, message)).collect()
}

fn weight(index: usize, message: &Message) -> Result<f32, String> {
    if let Role::Other(role) = &message.role {
        return Err(format!(
            "messages[{index}].role is {role:?}, expected system, user, assistant, tool or developer"
        ));
    }
    let weight = message.extra.get("weight").filter(|weight| !weight.is_null());
    match (weight, weight.and_then(Value::as_f64)) {
        (Some(_), _) if message.role != Role::Assistant => Err(format!(
            "messages[{index}] is of the role {} and has a `weight`, expected one of the assistant's only",
            message.role.as_str()
        )),
        (None, _) | (_, Some(1.0)) => Ok(1.0),
        (_, Some(0.0)) => Ok(0.0),
        (Some(found), _) => Err(format!("messages[{index}].weight is {found}, expected 0 or 1")),
    }
}

/// Null stands for a key that is not there.
fn known(value: &Value, place: &str, keys: &[&str]) -> Result<(), String> {
    let is_unknown = |(key, value): &(&String, &Value)| !value.is_null() && !keys.contains(&key.as_str());
    match value.as_object().and_then(|object: &Map<String, Value>| object.iter().find(is_unknown)) {
        Some((key, _)) => Err(format!("{place} has an unknown key {key:?}, expected {}", keys.join(", "))),
        None => Ok(()),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
