//! The routes.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::body::Body;
use crate::error::ApiError;
use crate::guard::{Guard, guarded, recorded};
use crate::served::Served;
use crate::{anthropic, chat, completions, responses, watch};

/// All routes of a served model.
pub(crate) fn app(served: Served, guard: Arc<Guard>) -> Router {
    let watched = watch::routes(Arc::clone(&guard), served.engine.clone());
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/embeddings", post(no_embeddings))
        .route("/v1/messages", post(anthropic::create))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model)) // names may have slashes
        .route("/anthropic/v1/messages", post(anthropic::create))
        .route("/anthropic/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/anthropic/v1/models", get(models))
        .route("/anthropic/v1/models/{*model}", get(model))
        .merge(watched)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable()) // `guarded` has the limit in force
        .layer(from_fn_with_state(Arc::clone(&guard), guarded))
        .layer(from_fn(anthropic::worded))
        .layer(from_fn_with_state(guard, recorded))
        .with_state(Arc::new(served))
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

async fn not_found(uri: Uri) -> ApiError {
    ApiError::route(StatusCode::NOT_FOUND, format!("there is no {} here", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::route(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
