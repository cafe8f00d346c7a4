//! Ids of tool calls: K2's `functions.NAME:N` has characters that Anthropic's do not (`[A-Za-z0-9_-]`).
//!
//! So a call goes out as `toolu_RANDOM_N`, and since the history that comes back has the name beside the id, the
//! model's own id can be put together again: the next prompt begins with the tokens that the model has written.

use std::collections::{HashMap, HashSet};

use k2_chat::Message;

use crate::stream::new_id;

/// The id that a client gets for a call of the model.
pub(super) fn outgoing(id: &str) -> String {
    let counter = id.rsplit_once(':').map_or("", |(_, counter)| counter);
    format!("{}_{counter}", new_id("toolu_"))
}

/// Puts the model's ids back, if all calls have ids from here and none would come twice. Otherwise they stay, and
/// normalising the history renames them all.
pub(super) fn restore(messages: &mut [Message]) {
    let mut restored = HashMap::new();
    let mut model_ids = HashSet::new();
    for call in messages.iter().flat_map(Message::calls) {
        let Some(id) = call.id.as_deref() else { return };
        let Some(counter) = counter(id) else { return };
        let model_id = format!("functions.{}:{counter}", call.function.name);
        if !model_ids.insert(model_id.clone()) {
            return;
        }
        restored.insert(id.to_owned(), model_id);
    }
    for message in messages {
        for id in message.tool_calls.iter_mut().flatten().filter_map(|call| call.id.as_mut()) {
            *id = restored.get(id).cloned().unwrap_or_default();
        }
        if let Some(id) = &mut message.tool_call_id
            && let Some(model_id) = restored.get(id)
        {
            id.clone_from(model_id);
        }
    }
}

/// The model's counter in an id made by [`outgoing`].
fn counter(id: &str) -> Option<&str> {
    let (random, counter) = id.strip_prefix("toolu_")?.split_once('_')?;
    let is_random = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_counter = !counter.is_empty() && counter.bytes().all(|byte| byte.is_ascii_digit());
    (is_random && is_counter).then_some(counter)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn history(calls: &[(&str, &str)]) -> Vec<Message> {
        let call =
            |(id, name): &(&str, &str)| json!({ "id": id, "function": { "name": name, "arguments": "{}" } });
        let results =
            calls.iter().map(|(id, _)| json!({ "role": "tool", "tool_call_id": id, "content": "" }));
        let calls: Value = calls.iter().map(call).collect();
        let messages = [json!({ "role": "assistant", "tool_calls": calls })].into_iter().chain(results);
        serde_json::from_value(messages.collect()).unwrap()
    }

    #[test]
    fn the_models_ids_come_back() {
        let ours = ["functions.get-time:0", "functions.get_time:12"].map(outgoing);
        let safe = |id: &String| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        assert!(ours.iter().all(safe), "{ours:?}");
        let [first, second] = [ours[0].as_str(), ours[1].as_str()];
        let check = |calls: [(&str, &str); 2], expected: [&str; 2]| {
            let mut messages = history(&calls);
            restore(&mut messages);
            let ids = messages.iter().flat_map(Message::calls).map(|call| call.id.as_deref().unwrap());
            assert_eq!(ids.collect::<Vec<_>>(), expected);
            let answered = messages[1..].iter().map(|message| message.tool_call_id.as_deref().unwrap());
            assert_eq!(answered.collect::<Vec<_>>(), expected);
        };
        check([(first, "get-time"), (second, "get_time")], ["functions.get-time:0", "functions.get_time:12"]);
        // An id of somebody else, or two calls that the model has numbered alike: left to the normalisation.
        check([(first, "get-time"), ("toolu_01A09q90qw", "get_time")], [first, "toolu_01A09q90qw"]);
        let again = outgoing("functions.get-time:0");
        check([(first, "get-time"), (&again, "get-time")], [first, &again]);
    }
}
