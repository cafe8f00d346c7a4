//! `POST /v1/messages` and `/v1/messages/count_tokens`, as in Anthropic's API reference ("Create a Message").
//!
//! A request is said in the fields of chat completions and goes the same way from there; only the words of the
//! answer, its events and its errors are others.

mod call_id;
mod error;
mod events;
mod request;
mod response;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::blocking::blocking;
use crate::body::Body;
use crate::chat::ChatRequest;
use crate::error::ApiError;
use crate::served::Served;
use crate::stream::{new_id, sse};
pub(crate) use error::worded;
use events::Events;
use response::message;

/// Everything that can be refused is refused before the first byte of an answer.
pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let (id, model) = (new_id("msg_"), served.model_name.clone());
    let begin = move || {
        let mut body = Body::parse(&body)?;
        let max_tokens: i64 = body.required("max_tokens")?;
        let mut chat = request::chat(body, &served)?;
        chat.set("max_tokens", &max_tokens)?;
        let request = ChatRequest::take(chat, &served)?;
        Ok((request.stream.is_some(), request.answer(&served)?))
    };
    let (streams, answer) = blocking(begin).await?;
    if streams {
        return Ok(sse(vec![(answer, Events::new(id, model))]));
    }
    let (reply, end) = answer.whole().await?;
    Ok(Json(message(&id, &model, &reply, &end)).into_response())
}

/// How many tokens a prompt would have.
pub(crate) async fn count_tokens(
    State(served): State<Arc<Served>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let count = move || {
        let chat = request::chat(Body::parse(&body)?, &served)?;
        ChatRequest::take(chat, &served)?.prompt(&served)
    };
    let prompt = blocking(count).await?;
    Ok(Json(json!({ "input_tokens": prompt.len() })))
}
