//! `POST /v1/chat/completions`, as in OpenAI's API reference ("Create chat completion").
//!
//! The other APIs for chats say their requests in this one's fields: [`ChatRequest`] serves all of them.

mod logprobs;
mod request;
mod response;
mod response_format;
mod tool_choice;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::blocking::blocking;
use crate::body::Body;
use crate::error::ApiError;
use crate::served::Served;
use crate::stream::{Head, sse};
pub(crate) use request::ChatRequest;
use response::{Chunks, completion};

/// Everything that can be refused is refused before the first byte of an answer.
pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let head = Head::new("chatcmpl", &served.model_name);
    let begin = move || {
        let request = ChatRequest::take(Body::parse(&body)?, &served)?;
        Ok((request.stream, request.answers(&served)?))
    };
    match blocking(begin).await? {
        (Some(options), answers) => {
            let head = Arc::new(head);
            let chunks = |index| Chunks::new(Arc::clone(&head), index, options);
            Ok(sse(answers.into_iter().zip((0..).map(chunks)).collect()))
        }
        (None, answers) => {
            let mut ended = Vec::new();
            for answer in answers {
                ended.push(answer.whole().await?);
            }
            Ok(Json(completion(&head, &ended)).into_response())
        }
    }
}
