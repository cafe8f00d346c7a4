//! From a result to the answer: one sentence that follows from question and result.
//!
//! There is one form per kind of tool and shape of result, chosen by nothing else. What an answer consists of
//! is copied from the conversation, and at a temperature above zero there is nothing to waver between.

use k2_chat::Json;

use super::catalogue::{AnswerForm, Kind};
use super::phrases::Slots;
use super::results::{ToolResult, plain};

/// Keys that say nothing about their value.
const PLAIN_KEYS: [&str; 6] = ["value", "result", "results", "output", "answer", "data"];

/// The answer to a call that was made with these values.
pub(crate) fn tell(kind: &Kind, slots: &Slots, result: &ToolResult) -> String {
    let fill = |text: &str| filled(text, slots);
    match (result, kind.answer) {
        (ToolResult::Error(error), _) => format!("That did not work: {error}."),
        (ToolResult::Plain(value), form) => one(form, kind, None, value, &fill),
        (ToolResult::Facts(facts), form) => match facts.as_slice() {
            [(key, value)] => one(form, kind, named(key), value, &fill),
            facts => many(form, kind, facts, &fill),
        },
    }
}

/// The key, if it says something.
fn named(key: &str) -> Option<String> {
    (!PLAIN_KEYS.contains(&key)).then(|| key.replace('_', " "))
}

fn one(
    form: AnswerForm,
    kind: &Kind,
    key: Option<String>,
    value: &Json,
    fill: &dyn Fn(&str) -> String,
) -> String {
    let value = plain(value);
    let labelled = key.as_ref().map_or_else(|| value.clone(), |key| format!("{key} {value}"));
    match form {
        AnswerForm::Lookup => {
            let noun = key.unwrap_or_else(|| kind.noun.clone());
            joined(&["The", &noun, &fill(&kind.rest), "is", &value])
        }
        AnswerForm::Equation => joined(&[&fill(&kind.left), "=", &value, &fill(&kind.right)]),
        AnswerForm::Done => format!("Done: {labelled}."),
        AnswerForm::Found => format!("I found: {labelled}."),
    }
}

fn many(form: AnswerForm, kind: &Kind, facts: &[(String, Json)], fill: &dyn Fn(&str) -> String) -> String {
    let facts: Vec<String> =
        facts.iter().map(|(key, value)| format!("{} {}", key.replace('_', " "), plain(value))).collect();
    let facts = facts.join(", ");
    match form {
        AnswerForm::Lookup => {
            let about = joined(&["The", &kind.noun, &fill(&kind.rest)]);
            format!("{}: {facts}.", about.trim_end_matches('.'))
        }
        AnswerForm::Equation => format!("{}: {facts}.", fill(&kind.left)),
        AnswerForm::Done => format!("Done: {facts}."),
        AnswerForm::Found => format!("I found: {facts}."),
    }
}

/// Words with blanks between them and a full stop.
fn joined(words: &[&str]) -> String {
    let words: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    words.join(" ") + "."
}

/// The text with its slots replaced by the arguments.
fn filled(text: &str, slots: &Slots) -> String {
    slots.iter().fold(text.to_owned(), |text, (slot, value)| {
        text.replace(&format!("{{{slot}}}"), value.argument.as_str())
    })
}
