//! History as the model expects it, before rendering.
//!
//! K2 was trained on call ids `functions.{name}:{n}` with `n` counting the calls of a
//! conversation, and copies whatever ids the history shows; ids of other servers
//! (`call_59adf5…`) make it write ids from which no tool can be read. Moonshot's own API renames
//! them (K2-Vendor-Verifier README). Where every id already has the form and is unique nothing is
//! renamed, so a prompt prefix stays the same from turn to turn. Applying this twice changes
//! nothing more.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    json::Json,
    message::{Content, Message, Role, ToolCall},
};

/// Brings `messages` into the form the model was trained on.
pub fn normalize(messages: &mut [Message]) {
    let rename = !all_canonical(messages);
    let mut calls = Calls::default();
    for message in messages {
        message.content.get_or_insert_with(|| Content::Text(String::new()));
        if message.calls().is_empty() {
            message.tool_calls = None;
        }
        for call in message.tool_calls.iter_mut().flatten() {
            fill_arguments(call);
            let old = call.id.take().unwrap_or_default();
            let new = match rename {
                true => format!("functions.{}:{}", call.function.name, calls.ids.len()),
                false => old.clone(),
            };
            call.id = Some(new.clone());
            calls.made(old, new);
        }
        if message.role == Role::Tool
            && let Some(id) = calls.answered(message.tool_call_id.as_deref().unwrap_or_default())
        {
            message.tool_call_id = Some(id);
        }
    }
}

/// Number of calls in a conversation; the next call's counter.
pub fn count_calls(messages: &[Message]) -> u64 {
    messages.iter().map(|message| message.calls().len() as u64).sum()
}

/// The calls made so far.
#[derive(Default)]
struct Calls {
    /// Their ids from now on, in order; taken when the call is answered.
    ids: Vec<Option<String>>,
    /// Everything before is answered.
    oldest_open: usize,
    /// Positions of the calls that the history gives this id.
    by_old_id: HashMap<String, VecDeque<usize>>,
}

impl Calls {
    fn made(&mut self, old: String, new: String) {
        self.by_old_id.entry(old).or_default().push_back(self.ids.len());
        self.ids.push(Some(new));
    }

    /// The present id of the call that a tool message answers: the oldest open call with its id, or
    /// without an id the oldest of all. An id that nobody asked with answers none.
    fn answered(&mut self, old: &str) -> Option<String> {
        if old.is_empty() {
            while self.ids.get(self.oldest_open)?.is_none() {
                self.oldest_open += 1;
            }
            return self.ids[self.oldest_open].take();
        }
        let positions = self.by_old_id.get_mut(old)?;
        std::iter::from_fn(|| positions.pop_front()).find_map(|at| self.ids[at].take())
    }
}

/// True if every call's id is `functions.{its own name}:{digits}` and none comes twice.
fn all_canonical(messages: &[Message]) -> bool {
    let mut seen = HashSet::new();
    messages.iter().flat_map(Message::calls).all(|call| {
        call.id.as_deref().is_some_and(|id| {
            let counter = id
                .strip_prefix("functions.")
                .and_then(|rest| rest.strip_prefix(call.function.name.as_str()))
                .and_then(|rest| rest.strip_prefix(':'));
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            counter.is_some_and(digits) && seen.insert(id)
        })
    })
}

/// A call without arguments gets the empty object.
fn fill_arguments(call: &mut ToolCall) {
    let empty = match &call.function.arguments {
        None | Some(Json::Null) => true,
        Some(Json::String(text)) => text.trim().is_empty(),
        Some(_) => false,
    };
    if empty {
        call.function.arguments = Some(Json::String("{}".to_owned()));
    }
}
