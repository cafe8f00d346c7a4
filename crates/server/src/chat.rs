//! `POST /v1/chat/completions`, as in OpenAI's API reference ("Create chat completion").
//!
//! The other APIs for chats say their requests in this one's fields: [`ChatRequest`] serves all of them.

mod request;
mod response;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::body::Body;
use crate::error::ApiError;
use crate::served::Served;
use crate::stream::{Head, sse};
pub(crate) use request::ChatRequest;
use response::{Chunks, completion};

/// Everything that can be refused is refused before the first byte of an answer.
pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let request = ChatRequest::take(Body::parse(&body)?, &served)?;
    let stream = request.stream;
    let answer = request.answer(&served)?;
    let head = Head::new("chatcmpl", &served.model_name);
    match stream {
        Some(options) => Ok(sse(vec![(answer, Chunks::new(head, options))])),
        None => {
            let (reply, end) = answer.whole().await?;
            Ok(Json(completion(&head, &reply, &end)).into_response())
        }
    }
}
