//! The routes, and what holds for all of them: keys, limits, errors.

use std::sync::Arc;

use axum::body::{Body as HttpBody, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::body::Body;
use crate::error::ApiError;
use crate::served::Served;
use crate::{anthropic, chat, completions, responses};

/// What guards the routes.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The key that requests must bring; none lets everybody in.
    pub api_key: Option<String>,
}

/// All routes of a served model.
pub fn app(served: Served, guard: Guard) -> Router {
    let served = Arc::new(served);
    let guard = Arc::new((guard, Arc::clone(&served)));
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/embeddings", post(no_embeddings))
        .route("/v1/messages", post(anthropic::create))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .route("/anthropic/v1/messages", post(anthropic::create))
        .route("/anthropic/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/anthropic/v1/models", get(models))
        .route("/anthropic/v1/models/{model}", get(model))
        .layer(DefaultBodyLimit::disable()) // `guarded` has the limit in force
        .layer(from_fn_with_state(guard, guarded))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(from_fn(anthropic::worded))
        .with_state(served)
}

impl Served {
    /// Reads `model`, which must be the one that is served.
    pub(crate) fn check_model(&self, body: &mut Body) -> Result<(), ApiError> {
        let wanted: String = body.required("model")?;
        match wanted == self.model_name {
            true => Ok(()),
            false => Err(ApiError::no_such_model(&wanted, &self.model_name)),
        }
    }

    fn json(&self) -> Value {
        let context = self.engine.context_tokens();
        json!({
            "id": self.model_name,
            "object": "model",
            "created": 0,
            "owned_by": "k2",
            "max_model_len": context,
            "context_length": context,
            "type": "model",
            "display_name": self.model_name,
            "created_at": "1970-01-01T00:00:00Z",
        })
    }
}

/// With the fields of OpenAI's list and of Anthropic's.
async fn models(State(served): State<Arc<Served>>) -> Json<Value> {
    let id = &served.model_name;
    Json(json!({
        "object": "list",
        "data": [served.json()],
        "has_more": false,
        "first_id": id,
        "last_id": id,
    }))
}

async fn no_embeddings(State(served): State<Arc<Served>>) -> ApiError {
    let message = format!("{} continues texts and has no embeddings of them", served.model_name);
    ApiError::unsupported("model", message)
}

async fn model(
    State(served): State<Arc<Served>>,
    axum::extract::Path(wanted): axum::extract::Path<String>,
) -> Result<Json<Value>, ApiError> {
    match wanted == served.model_name {
        true => Ok(Json(served.json())),
        false => Err(ApiError::no_such_model(&wanted, &served.model_name)),
    }
}

/// Lets a request through with the right key and its body read, if that is not too long.
async fn guarded(
    State(state): State<Arc<(Guard, Arc<Served>)>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (guard, served) = &*state;
    if let Some(key) = &guard.api_key {
        let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
        let bearer = header("authorization").and_then(|value| value.strip_prefix(b"Bearer "));
        let sent = bearer.or_else(|| header("x-api-key")).unwrap_or_default();
        if !bool::from(sent.ct_eq(key.as_bytes())) {
            return Err(ApiError::unauthorized());
        }
    }
    let (parts, body) = request.into_parts();
    let body = limited(body, served.limits.body_bytes).await?;
    Ok(next.run(Request::from_parts(parts, HttpBody::from(body))).await)
}

async fn limited(body: HttpBody, limit: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit).await.map_err(|_| ApiError::too_large(limit))
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::route(StatusCode::NOT_FOUND, format!("there is no {} here", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::route(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
