//! Most checks are rows of a table: a request, and what must come of it.

use serde_json::Value;

use super::target::{Reply, Target, Transport};
use crate::answer::{Answer, Finding};
use crate::{endpoint::excerpt, schema};

/// A request for a chat completion and what it must lead to.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// What is being asked, in words.
    pub(super) name: String,
    /// Without `model`.
    pub(super) body: Value,
    pub(super) expected: Expected,
}

/// What a request must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any answer with a text.
    Answer,
    /// Status 400.
    Refusal,
    /// A text and no call.
    Text,
    /// Calls of declared tools with arguments that fit, of `only` if it names one, at most so many.
    Calls { only: Option<&'static str>, at_most: usize },
    /// [`Expected::Calls`] or [`Expected::Text`].
    CallsOrText,
    /// A compact JSON object; one that fits if the request has a schema and does not call it lax.
    Json,
}

impl Case {
    pub(super) fn new(name: impl Into<String>, body: Value, expected: Expected) -> Case {
        Case { name: name.into(), body, expected }
    }

    pub(super) fn check(&self, target: &Target<'_>, transport: Transport) -> Result<(), Finding> {
        match (target.chat(&self.body, transport)?, self.expected) {
            (Reply::Refused(_), Expected::Refusal) => Ok(()),
            (Reply::Refused(message), _) => Err(Finding(format!("refused: {message}"))),
            (Reply::Answered(_), Expected::Refusal) => {
                Err(Finding("answered with status 200; expected status 400".into()))
            }
            (Reply::Answered(answer), Expected::Answer) => has_text(&answer),
            (Reply::Answered(answer), Expected::Text) => text(&self.body, &answer),
            (Reply::Answered(answer), Expected::Calls { only, at_most }) => {
                calls(&self.body, &answer, only, at_most)
            }
            (Reply::Answered(answer), Expected::CallsOrText) if answer.tool_calls.is_empty() => {
                text(&self.body, &answer)
            }
            (Reply::Answered(answer), Expected::CallsOrText) => calls(&self.body, &answer, None, usize::MAX),
            (Reply::Answered(answer), Expected::Json) => json_object(&self.body, &answer),
        }
    }
}

/// Nothing but text, ended by the model or by the limit.
pub(super) fn text(body: &Value, answer: &Answer) -> Result<(), Finding> {
    if let Some(call) = answer.tool_calls.first() {
        return Err(Finding(format!("{:?} is called; expected a text", call.name)));
    }
    has_text(answer)?;
    let is_empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    match is_empty(&answer.content) && is_empty(&answer.reasoning_content) {
        true => Err(Finding("the text is empty".into())),
        false => ended(body, answer),
    }
}

/// `stop`, or `length` with as many tokens as were allowed.
fn ended(body: &Value, answer: &Answer) -> Result<(), Finding> {
    let limit = body["max_tokens"].as_u64();
    let used = answer.usage.map(|usage| usage.completion_tokens);
    match answer.finish_reason.as_str() {
        "stop" => Ok(()),
        "length" if limit.is_some() && used == limit => Ok(()),
        reason => Err(Finding(format!(
            "the finish reason is {reason:?} after {} tokens; expected \"stop\", or \"length\" after {}",
            used.map_or("unknown".into(), |used| used.to_string()),
            limit.map_or("none".into(), |limit| limit.to_string())
        ))),
    }
}

/// A string, if only an empty one beside reasoning: clients take it as one.
fn has_text(answer: &Answer) -> Result<(), Finding> {
    match answer.content.is_some() {
        true => Ok(()),
        false => Err(Finding("`content` is null; expected a string".into())),
    }
}

/// Calls that a client can carry out.
pub(super) fn calls(
    body: &Value,
    answer: &Answer,
    only: Option<&str>,
    at_most: usize,
) -> Result<(), Finding> {
    if answer.finish_reason != "tool_calls" {
        let content = excerpt(answer.content.as_deref().unwrap_or_default());
        return Err(Finding(format!(
            "the finish reason is {:?} with {} calls and the text {content:?}; expected \"tool_calls\"",
            answer.finish_reason,
            answer.tool_calls.len()
        )));
    }
    if answer.tool_calls.is_empty() || answer.tool_calls.len() > at_most {
        return Err(Finding(format!("{} calls; expected 1 to {at_most}", answer.tool_calls.len())));
    }
    for call in &answer.tool_calls {
        if let Some(only) = only.filter(|only| *only != call.name) {
            return Err(Finding(format!("{:?} is called; expected {only:?}", call.name)));
        }
        schema::check(declared(body, &call.name)?, &call.arguments)?;
    }
    Ok(())
}

/// The parameters of a declared tool.
pub(super) fn declared<'a>(body: &'a Value, name: &str) -> Result<&'a Value, Finding> {
    let mut tools = body["tools"].as_array().into_iter().flatten();
    let tool = tools.find(|tool| tool["function"]["name"] == name);
    let tool = tool.ok_or_else(|| Finding(format!("{name:?} is called, which nobody declared")))?;
    Ok(&tool["function"]["parameters"])
}

fn json_object(body: &Value, answer: &Answer) -> Result<(), Finding> {
    let content = answer.content.as_deref().unwrap_or_default();
    if answer.finish_reason != "stop" {
        return Err(Finding(format!(
            "the finish reason is {:?} after {:?}; expected \"stop\" after a whole object",
            answer.finish_reason,
            excerpt(content)
        )));
    }
    let wanted = &body["response_format"]["json_schema"];
    match wanted.is_object() && wanted["strict"] != false {
        true => schema::check(&wanted["schema"], content)?,
        false => drop(schema::object(content)?),
    }
    match content.contains(['\n', '\t']) {
        true => {
            Err(Finding(format!("{:?} has line breaks or tabs; expected compact JSON", excerpt(content))))
        }
        false => Ok(()),
    }
}
