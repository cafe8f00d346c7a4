//! `POST /v1/completions`: raw continuation, as in OpenAI's API reference ("Create completion").
//!
//! Markers of tool calls stay text here, so that clients can parse them by hand; in the prompt they become
//! control tokens, since whoever writes a raw prompt writes the turn format too.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use k2_chat::{Delta, Detokenizer, FinishReason};
use k2_engine::Request;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, End, Reader};
use crate::body::Body;
use crate::error::ApiError;
use crate::options::Options;
use crate::served::Served;
use crate::stream::{Head, Wire, data, done, sse, usage};

/// OpenAI's default for this endpoint.
const MAX_TOKENS: usize = 16;

/// A prompt in one of its forms; several at once are refused.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let mut body = Body::parse(&body)?;
    served.check_model(&mut body)?;
    let options = Options::take(&mut body, &served)?;
    body.only("echo", &[false])?;
    body.only("best_of", &[1])?;
    body.only("suffix", &[String::new()])?;
    body.only::<Value>("logprobs", &[])?;
    let prompt = body.required::<Prompt>("prompt")?.ids(&served)?;
    body.finish()?;
    let request = Request {
        prompt,
        max_tokens: options.max_tokens.unwrap_or(MAX_TOKENS),
        sampling: options.sampling,
        stop_ids: Arc::clone(&served.stop_ids),
        masked_ids: Arc::clone(&served.masked_ids),
        ..Request::default()
    };
    let events = served.engine.submit(request).map_err(|error| ApiError::submit(&error, "prompt"))?;
    let wire = Chunks {
        head: Head::new("cmpl", &served.model_name),
        include_usage: options.stream.is_some_and(|stream| stream.include_usage),
    };
    let answer = Answer::new(served, events, Reader::Text(Detokenizer::new(), options.stop));
    match options.stream {
        Some(_) => Ok(sse(answer, wire)),
        None => whole(answer, &wire).await,
    }
}

impl Prompt {
    fn ids(self, served: &Served) -> Result<Vec<u32>, ApiError> {
        let several = |count: usize| {
            ApiError::unsupported(
                "prompt",
                format!("`prompt` is a list of {count} prompts; send them one by one"),
            )
        };
        match self {
            Prompt::Text(text) => Ok(served.tokenizer.encode(&text, true)),
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Texts(texts) => match <[String; 1]>::try_from(texts) {
                Ok([text]) => Ok(served.tokenizer.encode(&text, true)),
                Err(texts) => Err(several(texts.len())),
            },
            Prompt::IdLists(lists) => match <[Vec<u32>; 1]>::try_from(lists) {
                Ok([ids]) => Ok(ids),
                Err(lists) => Err(several(lists.len())),
            },
        }
    }
}

async fn whole(answer: Answer, wire: &Chunks) -> Result<Response, ApiError> {
    let (reply, end) = answer.whole().await?;
    let text = reply.content.unwrap_or_default();
    let mut completion = wire.head.json("text_completion", choices(&text, Some(end.finish_reason)));
    completion["usage"] = usage(&end);
    Ok(Json(completion).into_response())
}

struct Chunks {
    head: Head,
    include_usage: bool,
}

impl Chunks {
    fn chunk(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = self.head.json("text_completion", choices);
        if self.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

impl Wire for Chunks {
    fn first(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        vec![data(&self.chunk(choices(content(&delta), None), Value::Null))]
    }

    fn last(&mut self, end: &End) -> Vec<Event> {
        let mut last = vec![data(&self.chunk(choices("", Some(end.finish_reason)), Value::Null))];
        if self.include_usage {
            last.push(data(&self.chunk(json!([]), usage(end))));
        }
        last.push(done());
        last
    }
}

fn choices(text: &str, reason: Option<FinishReason>) -> Value {
    json!([{ "index": 0, "text": text, "finish_reason": reason, "logprobs": null }])
}

/// The reader of raw text gives content and nothing else.
fn content(delta: &Delta) -> &str {
    match delta {
        Delta::Content(text) => text,
        Delta::Reasoning(_) | Delta::Call { .. } | Delta::Arguments { .. } => "",
    }
}
