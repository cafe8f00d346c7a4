//! What those ask who watch the server: whether it lives (`/health`), whether it takes requests (`/ready`), and its numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use k2_engine::Engine;
use serde_json::json;

use crate::error::ApiError;
use crate::guard::Guard;
use crate::metrics::CONTENT_TYPE;

/// The routes.
pub(crate) fn routes(guard: Arc<Guard>, engine: Engine) -> Router<Arc<crate::Served>> {
    let ready = move |State(guard): State<Arc<Guard>>| async move { ready(&guard, &engine) };
    Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(guard)
}

fn ready(guard: &Guard, engine: &Engine) -> Response {
    let stats = engine.stats();
    let why_not = if guard.draining.load(Relaxed) {
        "the server is stopping"
    } else if stats.stopped {
        "the engine has stopped"
    } else if stats.waiting >= stats.max_waiting {
        "the queue is full"
    } else {
        return Json(json!({ "status": "ready" })).into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reason": why_not })))
        .into_response()
}

async fn metrics(State(guard): State<Arc<Guard>>) -> Result<Response, ApiError> {
    let text = guard.metrics.text().map_err(|error| ApiError::failed(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
