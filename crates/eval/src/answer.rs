//! An answer of `/v1/chat/completions`, from its whole or from its chunks (OpenAI's API reference, "Create chat
//! completion"), and the ways in which one can be malformed.

use std::fmt;

use serde_json::Value;

use crate::endpoint::{Body, excerpt};
use crate::sse::Event;

/// What is wrong with an answer, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding(pub String);

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the data of a stream ends with.
pub const DONE: &str = "[DONE]";

/// Why an answer can end.
const FINISH_REASONS: [&str; 4] = ["stop", "length", "tool_calls", "content_filter"];

/// A message of an assistant, and what came with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text; null and absent are the same.
    pub content: Option<String>,
    /// What was thought before it.
    pub reasoning_content: Option<String>,
    /// The calls.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish_reason: String,
    /// What it took, if the endpoint says so.
    pub usage: Option<Usage>,
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// What the result will refer to.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON, if all is well.
    pub arguments: String,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of those, found in a cache.
    pub cached_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
}

impl Answer {
    /// Reads the body of an answer with status 200.
    ///
    /// # Errors
    ///
    /// The first thing that a client would stumble over.
    pub fn read(body: &Body) -> Result<Answer, Finding> {
        match body {
            Body::Whole(text) => {
                let completion: Value = serde_json::from_str(text)
                    .map_err(|error| Finding(format!("the body is no JSON: {error}: {:?}", excerpt(text))))?;
                Answer::whole(&completion)
            }
            Body::Events(events) => Answer::joined(&chunks(events)?),
        }
    }

    fn whole(completion: &Value) -> Result<Answer, Finding> {
        expect(completion, "/object", "\"chat.completion\"", |object| object == "chat.completion")?;
        expect(completion, "/id", "a string", Value::is_string)?;
        expect(completion, "/created", "a whole number", Value::is_u64)?;
        expect(completion, "/model", "a string", Value::is_string)?;
        expect(completion, "/choices/0", "an object", Value::is_object)?;
        expect(completion, "/choices/0/index", "0", |index| index == 0)?;
        expect(completion, "/choices/0/message/role", "\"assistant\"", |role| role == "assistant")?;
        let message = &completion["choices"][0]["message"];
        let mut answer = Answer {
            content: text(message, "content")?,
            reasoning_content: text(message, "reasoning_content")?,
            usage: usage(&completion["usage"])?,
            ..Answer::default()
        };
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            expect(call, "/type", "\"function\"", |kind| kind == "function")?;
            expect(call, "/id", "a string", Value::is_string)?;
            expect(call, "/function/name", "a string", Value::is_string)?;
            expect(call, "/function/arguments", "a string of JSON", Value::is_string)?;
            answer.tool_calls.push(ToolCall::default());
            answer.add_to_call(answer.tool_calls.len() - 1, call);
        }
        answer.finish(&completion["choices"][0]["finish_reason"])?;
        Ok(answer)
    }

    /// Puts chunks together as clients do.
    ///
    /// # Errors
    ///
    /// The first thing that a client would stumble over.
    pub fn joined(chunks: &[Value]) -> Result<Answer, Finding> {
        let mut answer = Answer::default();
        let mut finish_reason = &Value::Null;
        for chunk in chunks {
            answer.usage = usage(&chunk["usage"])?.or(answer.usage);
            let choice = &chunk["choices"][0];
            answer.usage = answer.usage.or(usage(&choice["usage"])?);
            answer.add(&choice["delta"])?;
            if !choice["finish_reason"].is_null() {
                finish_reason = &choice["finish_reason"];
            }
        }
        answer.finish(finish_reason)?;
        Ok(answer)
    }

    fn add(&mut self, delta: &Value) -> Result<(), Finding> {
        let extend = |to: &mut Option<String>, name| -> Result<(), Finding> {
            if let Some(text) = text(delta, name)? {
                to.get_or_insert_default().push_str(&text);
            }
            Ok(())
        };
        extend(&mut self.content, "content")?;
        extend(&mut self.reasoning_content, "reasoning_content")?;
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            match index {
                Some(index) if index == self.tool_calls.len() => self.tool_calls.push(ToolCall::default()),
                Some(index) if index < self.tool_calls.len() => {}
                _ => {
                    let known = self.tool_calls.len();
                    return Err(Finding(format!(
                        "a call has the index {} after {known} calls; expected 0 to {known}",
                        call["index"]
                    )));
                }
            }
            self.add_to_call(index.unwrap_or_default(), call);
        }
        Ok(())
    }

    fn add_to_call(&mut self, index: usize, from: &Value) {
        let call = &mut self.tool_calls[index];
        let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if call.id.is_empty() {
            call.id = of(&from["id"]);
        }
        if call.name.is_empty() {
            call.name = of(&from["function"]["name"]);
        }
        call.arguments += &of(&from["function"]["arguments"]);
    }

    fn finish(&mut self, reason: &Value) -> Result<(), Finding> {
        match reason.as_str() {
            Some(reason) if FINISH_REASONS.contains(&reason) => self.finish_reason = reason.to_owned(),
            _ => {
                return Err(Finding(format!(
                    "the finish reason is {reason}, expected one of {FINISH_REASONS:?}"
                )));
            }
        }
        match self.tool_calls.iter().find(|call| call.id.is_empty() || call.name.is_empty()) {
            Some(call) => Err(Finding(format!(
                "a call has the id {:?} and the name {:?}; both are needed",
                call.id, call.name
            ))),
            None => Ok(()),
        }
    }
}

/// The JSON of a stream's events, which must end in [`DONE`] and carry no error.
///
/// # Errors
///
/// As said.
pub fn chunks(events: &[Event]) -> Result<Vec<Value>, Finding> {
    let Some((last, events)) = events.split_last() else { return Err(Finding("the stream is empty".into())) };
    let chunks = events.iter().map(|event| {
        let chunk: Value = serde_json::from_str(&event.data)
            .map_err(|error| Finding(format!("an event is no JSON: {error}: {:?}", excerpt(&event.data))))?;
        match &chunk["error"] {
            Value::Null => Ok(chunk),
            error => Err(Finding(format!("the stream carries an error: {}", excerpt(&error.to_string())))),
        }
    });
    let chunks = chunks.collect::<Result<_, _>>()?;
    match last.data == DONE {
        true => Ok(chunks),
        false => Err(Finding(format!("the stream ends with {:?}, expected {DONE}", excerpt(&last.data)))),
    }
}

/// Checks one value of an answer; `expected` says what it should be.
pub(crate) fn expect(
    within: &Value,
    pointer: &str,
    expected: &str,
    is: impl Fn(&Value) -> bool,
) -> Result<(), Finding> {
    let found = within.pointer(pointer).unwrap_or(&Value::Null);
    let name = pointer.trim_start_matches('/').replace('/', ".");
    match is(found) {
        true => Ok(()),
        false => Err(Finding(format!("`{name}` is {}, expected {expected}", excerpt(&found.to_string())))),
    }
}

fn text(of: &Value, name: &str) -> Result<Option<String>, Finding> {
    match &of[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        other => {
            let other = excerpt(&other.to_string());
            Err(Finding(format!("`{name}` is {other}, expected a string or null")))
        }
    }
}

fn usage(usage: &Value) -> Result<Option<Usage>, Finding> {
    if usage.is_null() {
        return Ok(None);
    }
    let number = |name: &str| {
        usage[name]
            .as_u64()
            .ok_or_else(|| Finding(format!("`usage.{name}` is {}, expected a whole number", usage[name])))
    };
    let (prompt, completion, total) =
        (number("prompt_tokens")?, number("completion_tokens")?, number("total_tokens")?);
    if prompt.checked_add(completion) != Some(total) {
        return Err(Finding(format!("`usage` counts {prompt} + {completion} tokens and {total} in total")));
    }
    let details = &usage["prompt_tokens_details"]["cached_tokens"];
    let cached = details.as_u64().or(usage["cached_tokens"].as_u64()).unwrap_or_default();
    Ok(Some(Usage { prompt_tokens: prompt, cached_tokens: cached, completion_tokens: completion }))
}
