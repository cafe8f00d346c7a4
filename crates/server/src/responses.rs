//! `POST /v1/responses`, as in OpenAI's API reference ("Create a model response").
//!
//! A request is said in the fields of chat completions and goes the same way from there. Nothing is stored: a
//! conversation is sent whole each time, as chat clients do anyway.

mod events;
mod output;
mod request;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::blocking::blocking;
use crate::body::Body;
use crate::chat::ChatRequest;
use crate::error::ApiError;
use crate::served::Served;
use crate::stream::sse;
use events::Events;
use output::{Output, Shell};

/// Everything that can be refused is refused before the first byte of an answer.
pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let model = served.model_name.clone();
    let begin = move || {
        let (chat, echoed) = request::chat(Body::parse(&body)?)?;
        let request = ChatRequest::take(chat, &served)?;
        Ok((request.stream, request.answer(&served)?, echoed))
    };
    let (stream, answer, echoed) = blocking(begin).await?;
    let shell = Shell::new(&model, echoed);
    if let Some(options) = stream {
        return Ok(sse(vec![(answer, Events::new(shell, options.include_progress))]));
    }
    let (reply, end) = answer.whole().await?;
    Ok(Json(shell.ended(&Output::of(&reply, &end), &end)).into_response())
}
