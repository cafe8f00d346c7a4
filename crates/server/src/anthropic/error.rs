//! Errors in Anthropic's shape: `{"type": "error", "error": {"type", "message"}}`.

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::ApiError;

/// Words the errors of Anthropic's routes, whoever found them.
pub(crate) async fn worded(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let ours = path == "/v1/messages" || path.starts_with("/v1/messages/") || path.starts_with("/anthropic/");
    let response = next.run(request).await;
    match response.extensions().get::<ApiError>() {
        Some(error) if ours => {
            let mut worded = (error.status, Json(json(error))).into_response();
            if let Some(after) = response.headers().get(header::RETRY_AFTER) {
                worded.headers_mut().insert(header::RETRY_AFTER, after.clone());
            }
            worded
        }
        _ => response,
    }
}

/// The body.
pub(super) fn json(error: &ApiError) -> Value {
    json!({ "type": "error", "error": { "type": kind(error.status), "message": error.message() } })
}

fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        status if status < 500 => "invalid_request_error",
        _ => "api_error",
    }
}
