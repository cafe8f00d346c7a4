//! The deployment under test, and one question to it.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::{Answer, Finding, expect};
use crate::endpoint::{Body, Endpoint, Response, excerpt};

/// How often a question is asked again after status 429 or 503.
const RETRIES: usize = 8;

/// Longest wait that an endpoint may ask for.
const LONGEST_WAIT: u64 = 30;

/// Who is asked.
#[derive(Clone, Debug)]
pub(super) struct Target<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) model: &'a str,
}

/// Whether an answer is asked for in one piece or as a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Whole,
    Stream,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Reply {
    Answered(Answer),
    /// Status 400 with an error in OpenAI's shape; its message.
    Refused(String),
}

impl Transport {
    pub(super) const BOTH: [Transport; 2] = [Transport::Whole, Transport::Stream];

    pub(super) fn name(self) -> &'static str {
        match self {
            Transport::Whole => "whole",
            Transport::Stream => "stream",
        }
    }

    /// Asks for the answer in this form.
    pub(super) fn asked(self, mut body: Value) -> Value {
        if self == Transport::Stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({ "include_usage": true });
        }
        body
    }
}

impl Target<'_> {
    /// A request for a chat completion.
    pub(super) fn chat(&self, body: &Value, transport: Transport) -> Result<Reply, Finding> {
        let response = self.post("chat/completions", &transport.asked(body.clone()))?;
        match (response.status, &response.body) {
            (200, Body::Whole(_)) if transport == Transport::Stream => {
                Err(Finding("a stream was asked for, and the answer is no `text/event-stream`".into()))
            }
            (200, Body::Events(_)) if transport == Transport::Whole => {
                Err(Finding("no stream was asked for, and the answer is one".into()))
            }
            (200, body) => Ok(Reply::Answered(Answer::read(body)?)),
            (400, _) => refusal(&response).map(Reply::Refused),
            (status, body) => Err(Finding(format!("status {status}: {}", quoted(body)))),
        }
    }

    /// A request for a chat completion that must be answered.
    pub(super) fn answer(&self, body: &Value, transport: Transport) -> Result<Answer, Finding> {
        match self.chat(body, transport)? {
            Reply::Answered(answer) => Ok(answer),
            Reply::Refused(message) => Err(Finding(format!("refused: {message}"))),
        }
    }

    /// Any request; the model is added. Waits and asks again as long as the endpoint is busy.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Response, Finding> {
        let mut body = body.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.entry("model").or_insert_with(|| json!(self.model));
        }
        let mut tries = 0;
        loop {
            let response = self.endpoint.post(path, &body).map_err(|error| Finding(error.to_string()))?;
            if !matches!(response.status, 429 | 503) || tries == RETRIES {
                return Ok(response);
            }
            tries += 1;
            sleep(Duration::from_secs(response.retry_after.unwrap_or(1).clamp(1, LONGEST_WAIT)));
        }
    }
}

/// The message of an error in OpenAI's shape.
pub(super) fn refusal(response: &Response) -> Result<String, Finding> {
    let Body::Whole(text) = &response.body else {
        return Err(Finding(format!("status {} with a stream of events", response.status)));
    };
    let body: Value = serde_json::from_str(text).map_err(|_| {
        Finding(format!("status {} with {:?}, expected JSON", response.status, excerpt(text)))
    })?;
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    expect(&body, "/error/message", "a message", is_text)?;
    expect(&body, "/error/type", "the kind of error", is_text)?;
    Ok(body["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// The beginning of a body.
pub(super) fn quoted(body: &Body) -> String {
    match body {
        Body::Whole(text) => format!("{:?}", excerpt(text)),
        Body::Events(events) => format!("{} events", events.len()),
    }
}
