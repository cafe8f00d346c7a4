//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}` with a fitting status.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use k2_engine::SubmitError;
use serde_json::{Value, json};

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, message: message.into(), param: None, code: None }
    }

    /// The request is wrong, in no field in particular.
    pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field is wrong.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::invalid(message) }
    }

    /// What a request asks for cannot be; the field that is to blame, if one is.
    pub(crate) fn refused(param: Option<String>, message: impl Into<String>) -> ApiError {
        ApiError { param, ..ApiError::invalid(message) }
    }

    /// A field asks for something that this server does not do.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> ApiError {
        ApiError { code: Some("unsupported_parameter"), ..ApiError::field(param, message) }
    }

    /// Another model than the one that is served.
    pub(crate) fn no_such_model(wanted: &str, served: &str) -> ApiError {
        let message = format!("the model `{wanted}` does not exist; this server has `{served}`");
        ApiError {
            status: StatusCode::NOT_FOUND,
            code: Some("model_not_found"),
            ..ApiError::field("model", message)
        }
    }

    /// A missing or wrong key.
    pub(crate) fn unauthorized() -> ApiError {
        let message = "a valid key is needed: Authorization: Bearer KEY, or x-api-key: KEY";
        ApiError {
            code: Some("invalid_api_key"),
            ..ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
        }
    }

    /// A name or a page that is not let in.
    pub(crate) fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// More at the same time than is allowed.
    pub(crate) fn too_many(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
    }

    /// The server is about to end.
    pub(crate) fn stopping() -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is stopping")
    }

    /// A body that does not come.
    pub(crate) fn slow_body(seconds: u64) -> ApiError {
        let message = format!("the body did not come within {seconds} seconds");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// An answer that takes too long.
    pub(crate) fn took_too_long(longest: Duration) -> ApiError {
        let message = format!("the answer took more than {} seconds", longest.as_secs_f64());
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "server_error", message)
    }

    /// An address that does not exist, or not with this method.
    pub(crate) fn route(status: StatusCode, what: String) -> ApiError {
        ApiError::new(status, "invalid_request_error", what)
    }

    /// A body beyond the limit.
    pub(crate) fn too_large(limit: usize) -> ApiError {
        let message = format!("the body is larger than {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// The model could not be computed.
    pub(crate) fn failed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// What the engine refused; `prompt` is the field that the prompt came from.
    pub(crate) fn submit(error: &SubmitError, prompt: &str) -> ApiError {
        let message = error.to_string();
        match error {
            SubmitError::PromptTooLong { .. } => {
                ApiError { code: Some("context_length_exceeded"), ..ApiError::field(prompt, message) }
            }
            SubmitError::EmptyPrompt | SubmitError::TokenId { .. } => ApiError::field(prompt, message),
            SubmitError::Temperature { .. } => ApiError::field("temperature", message),
            SubmitError::TopP { .. } => ApiError::field("top_p", message),
            SubmitError::MinP { .. } => ApiError::field("min_p", message),
            SubmitError::Penalty { name, .. } => ApiError::field(*name, message),
            SubmitError::LogitBias { .. } => ApiError::field("logit_bias", message),
            SubmitError::TopLogprobs { .. } => ApiError::field("top_logprobs", message),
            SubmitError::Priority { .. } => ApiError::field("priority", message),
            SubmitError::QueueFull { .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
            }
            SubmitError::AllMasked { .. } | SubmitError::Stopped => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            }
        }
    }

    /// What is wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        let ApiError { kind, message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
        }
        // For APIs that word their errors otherwise.
        response.extensions_mut().insert(self);
        response
    }
}
