//! What those ask who watch the server: whether it and its engine live (`/health`), whether it takes requests (`/ready`),
//! and its numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use k2_engine::{Engine, Stats};
use serde_json::json;

use crate::error::ApiError;
use crate::guard::Guard;
use crate::metrics::CONTENT_TYPE;

const STOPPED: &str = "the engine has stopped";

/// The routes.
pub(crate) fn routes(guard: Arc<Guard>, engine: Engine) -> Router<Arc<crate::Served>> {
    let of_health = engine.clone();
    let health = move || async move { health(&of_health.stats()) };
    let ready = move |State(guard): State<Arc<Guard>>| async move {
        ready(guard.draining.load(Relaxed), &engine.stats())
    };
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(guard)
}

/// A server without its engine does not come to itself again.
fn health(stats: &Stats) -> Response {
    match stats.stopped {
        true => not("ok", STOPPED),
        false => Json(json!({ "status": "ok" })).into_response(),
    }
}

fn ready(draining: bool, stats: &Stats) -> Response {
    let why_not = if draining {
        "the server is stopping"
    } else if stats.stopped {
        STOPPED
    } else if stats.waiting >= stats.max_waiting {
        "the queue is full"
    } else {
        return Json(json!({ "status": "ready" })).into_response();
    };
    not("ready", why_not)
}

fn not(status: &str, why: &str) -> Response {
    let said = json!({ "status": format!("not {status}"), "reason": why });
    (StatusCode::SERVICE_UNAVAILABLE, Json(said)).into_response()
}

async fn metrics(State(guard): State<Arc<Guard>>) -> Result<Response, ApiError> {
    let text = guard.metrics.text().map_err(|error| ApiError::failed(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_its_engine_is_not_well() {
        let check = |draining: bool, stats: Stats, expected: (u16, u16)| {
            let found = (health(&stats).status().as_u16(), ready(draining, &stats).status().as_u16());
            assert_eq!(found, expected, "{draining} {stats:?}");
        };
        let room = Stats { max_waiting: 2, waiting: 1, ..Stats::default() };
        check(false, room, (200, 200));
        check(true, room, (200, 503));
        check(false, Stats { waiting: 2, ..room }, (200, 503));
        check(false, Stats { stopped: true, ..room }, (503, 503));
    }
}
