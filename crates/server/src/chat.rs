//! `POST /v1/chat/completions`, as in OpenAI's API reference ("Create chat completion").

mod request;
mod response;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use k2_chat::Reply;

use crate::answer::{Answer, Step};
use crate::error::ApiError;
use crate::served::Served;
use crate::stream::{Head, sse};
use request::ChatRequest;
use response::{Chunks, completion};

/// Everything that can be refused is refused before the first byte of an answer.
pub(crate) async fn create(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let request = ChatRequest::parse(&body, &served)?;
    let prompt_field = "messages";
    let stream = request.stream;
    let (engine_request, reader) = request.start(&served)?;
    let events =
        served.engine.submit(engine_request).map_err(|error| ApiError::submit(&error, prompt_field))?;
    let head = Head::new("chatcmpl", &served.model_name);
    let answer = Answer::new(Arc::clone(&served), events, reader);
    match stream {
        Some(options) => Ok(sse(answer, Chunks::new(head, options.include_usage))),
        None => whole(answer, &head).await,
    }
}

async fn whole(mut answer: Answer, head: &Head) -> Result<Response, ApiError> {
    let mut reply = Reply::default();
    while let Some(step) = answer.next().await {
        match step {
            Step::Deltas(deltas) => reply.extend(deltas),
            Step::End(deltas, reason, usage) => {
                reply.extend(deltas);
                reply.finish_reason = reason;
                return Ok(Json(completion(head, &reply, usage)).into_response());
            }
            Step::Failed(error) => return Err(error),
        }
    }
    Err(ApiError::failed("the answer has no end"))
}
