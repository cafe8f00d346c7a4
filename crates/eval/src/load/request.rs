//! One request of a load, and the times that its client sees.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LoadError, Plan, Route};
use crate::answer::chunks;
use crate::endpoint::{Body, Endpoint, Response, excerpt};
use crate::sse::Event;

/// A question.
pub(super) struct Asked {
    pub(super) prompt: String,
    pub(super) answer_tokens: usize,
    pub(super) seed: u64,
    /// When it is to be asked, from the start.
    pub(super) due: Duration,
}

/// What a client saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Tokens of the prompt, by the endpoint's count.
    pub prompt_tokens: u64,
    /// Of those, found in a cache.
    pub cached_tokens: u64,
    /// Tokens of the answer; pieces of text if the endpoint does not count.
    pub completion_tokens: u64,
    /// From the request to the first piece of text.
    pub first: Duration,
    /// From the first piece to the last.
    pub rest: Duration,
    /// Between pieces.
    pub gaps: Vec<Duration>,
    /// From the request to the last byte.
    pub total: Duration,
    /// How long the question had to wait for a client.
    pub late: Duration,
    /// Why there is no answer; everything else is zero then.
    pub error: Option<String>,
}

/// How questions are put to an endpoint.
pub(super) struct Form<'a> {
    model: &'a str,
    route: Route,
    ignore_eos: bool,
}

impl<'a> Form<'a> {
    /// Finds out with a request of one token whether the endpoint answers, and knows `ignore_eos`.
    pub(super) fn settle(endpoint: &Endpoint, model: &'a str, plan: &Plan) -> Result<Form<'a>, LoadError> {
        let mut form = Form { model, route: plan.route, ignore_eos: plan.ignore_eos };
        let asked = Asked { prompt: "hello".into(), answer_tokens: 1, seed: 0, due: Duration::ZERO };
        let mut response = form.post(endpoint, &asked)?;
        if response.status == 400 && form.ignore_eos {
            form.ignore_eos = false;
            response = form.post(endpoint, &asked)?;
        }
        match sample(&response) {
            Ok(_) => Ok(form),
            Err(message) => Err(LoadError::Refused(message)),
        }
    }

    /// Whether answers are as long as they are asked to be.
    pub(super) fn ignores_eos(&self) -> bool {
        self.ignore_eos
    }

    pub(super) fn ask(&self, endpoint: &Endpoint, asked: &Asked) -> Sample {
        let sampled = self.post(endpoint, asked).map_err(|error| error.to_string());
        let sampled = sampled.and_then(|response| sample(&response));
        sampled.unwrap_or_else(|error| Sample { error: Some(error), ..Sample::default() })
    }

    fn post(&self, endpoint: &Endpoint, asked: &Asked) -> Result<Response, crate::EndpointError> {
        let mut body = json!({
            "model": self.model,
            "max_tokens": asked.answer_tokens,
            "seed": asked.seed >> 11, // whole in any JSON library
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if self.ignore_eos {
            body["ignore_eos"] = json!(true);
        }
        let path = match self.route {
            Route::Chat => {
                body["messages"] = json!([{ "role": "user", "content": asked.prompt }]);
                "chat/completions"
            }
            Route::Completions => {
                body["prompt"] = json!(asked.prompt);
                "completions"
            }
        };
        endpoint.post(path, &body)
    }
}

fn sample(response: &Response) -> Result<Sample, String> {
    let events = match (response.status, &response.body) {
        (200, Body::Events(events)) => events,
        (200, Body::Whole(_)) => return Err("status 200 without a stream of events".into()),
        (status, Body::Whole(text)) => return Err(format!("status {status}: {}", excerpt(text))),
        (status, Body::Events(_)) => return Err(format!("status {status}")),
    };
    let chunks = chunks(events).map_err(|finding| finding.to_string())?;
    let times: Vec<Duration> = events
        .iter()
        .zip(&chunks)
        .filter(|(_, chunk)| has_text(chunk))
        .map(|(Event { at, .. }, _)| *at)
        .collect();
    let usage = chunks.iter().rev().find_map(|chunk| {
        let usage = [&chunk["usage"], &chunk["choices"][0]["usage"]];
        usage.into_iter().find(|usage| usage.is_object()).cloned()
    });
    let usage = usage.unwrap_or_default();
    let count = |name: &str| usage[name].as_u64();
    let (first, last) = (times.first().copied(), times.last().copied());
    let first = first.unwrap_or(response.elapsed);
    Ok(Sample {
        prompt_tokens: count("prompt_tokens").unwrap_or_default(),
        cached_tokens: usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_default(),
        completion_tokens: count("completion_tokens").unwrap_or(times.len() as u64),
        first,
        rest: last.unwrap_or(first).saturating_sub(first),
        gaps: times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect(),
        total: response.elapsed,
        ..Sample::default()
    })
}

/// Whether a chunk of either route carries something to read.
fn has_text(chunk: &Value) -> bool {
    let choice = &chunk["choices"][0];
    let delta = &choice["delta"];
    let texts = [&choice["text"], &delta["content"], &delta["reasoning_content"]];
    texts.iter().any(|text| text.as_str().is_some_and(|text| !text.is_empty()))
        || delta["tool_calls"].is_array()
}
