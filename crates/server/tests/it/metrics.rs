//! What `/metrics`, `/health` and `/ready` say.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use k2_server::{Keys, ServerOptions};
use serde_json::json;
use tower::ServiceExt;

use crate::fixtures::{completion, endless, request, routes, send};

/// Each sample by its name and labels; the text must be well formed.
pub(crate) async fn samples(router: &Router) -> HashMap<String, f64> {
    let answer = send(router, request("GET /metrics", &[], Body::empty())).await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name.replace("model=\"bytes\",", "").replace("{model=\"bytes\"}", ""), value.parse().unwrap())
    };
    answer.text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// Waits until the samples are as wanted.
pub(crate) async fn until(
    router: &Router,
    wanted: impl Fn(&HashMap<String, f64>) -> bool,
) -> HashMap<String, f64> {
    for _ in 0..1000 {
        let found = samples(router).await;
        if wanted(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("that never comes about");
}

/// Waits until the engine is at rest.
async fn settled(router: &Router) -> HashMap<String, f64> {
    until(router, |found| found["k2_sequences_running"] + found["k2_requests_waiting"] == 0.0).await
}

#[tokio::test]
async fn everything_is_counted() {
    let keys = Keys::parse(b"ann: key-of-ann").unwrap();
    let router = routes(ServerOptions { keys, ..ServerOptions::default() });
    let ann = [("x-api-key", "key-of-ann")];
    let mut used = (0.0, 0.0);
    for _ in 0..3 {
        let answer = send(&router, request("POST /v1/completions", &ann, completion(8).to_string())).await;
        let usage = &answer.json()["usage"];
        used.0 += usage["prompt_tokens"].as_f64().unwrap();
        used.1 += usage["completion_tokens"].as_f64().unwrap();
    }
    send(&router, request("POST /v1/completions", &ann, "{}")).await;
    send(&router, request("POST /v1/completions", &[], "{}")).await;
    send(&router, request("GET /somewhere/else", &ann, Body::empty())).await;
    let gone = router.clone().oneshot(request("POST /v1/completions", &ann, endless())).await.unwrap();
    // One that leaves before its turn has no prompt tokens.
    until(&router, |found| found["k2_prompt_tokens_total"] > used.0).await;
    drop(gone);
    let found = settled(&router).await;
    let requests = |endpoint: &str, status: u16, key: &str| {
        found
            .get(&format!("k2_requests_total{{endpoint=\"{endpoint}\",status=\"{status}\",key=\"{key}\"}}"))
            .copied()
    };
    assert_eq!(requests("/v1/completions", 200, "ann"), Some(4.0), "{found:#?}");
    assert_eq!(requests("/v1/completions", 400, "ann"), Some(1.0));
    assert_eq!(requests("/v1/completions", 401, "-"), Some(1.0));
    assert_eq!(requests("other", 404, "ann"), Some(1.0));
    assert_eq!(found["k2_disconnects_total"], 1.0);
    assert_eq!(
        found["k2_prompt_tokens_total"],
        used.0 + 8.0,
        "three prompts and the one whose client went away"
    );
    assert!(found["k2_generated_tokens_total"] >= used.1);
    for histogram in ["queue", "prefill", "time_to_first_token", "time_per_output_token"] {
        assert_eq!(found[&format!("k2_{histogram}_seconds_count")], 3.0, "{histogram}");
    }
    assert_eq!(found["k2_kv_blocks{state=\"used\"}"], 0.0, "all blocks come back");
    assert!(found["k2_kv_blocks{state=\"free\"}"] > 0.0);
    for name in [
        "k2_sequences_paused",
        "k2_preemptions_total",
        "k2_cached_prompt_tokens_total",
        "k2_kv_blocks{state=\"idle\"}",
    ] {
        assert!(found[name] >= 0.0, "{name}");
    }
}

#[tokio::test]
async fn ready_means_there_is_room() {
    let router = routes(ServerOptions::default());
    let status =
        async |path: &str| send(&router, request(&format!("GET {path}"), &[], Body::empty())).await.status;
    assert_eq!((status("/health").await.as_u16(), status("/ready").await.as_u16()), (200, 200));
    let mut running = Vec::new();
    // Four run and four wait; the engine may be slow to take the first four.
    while running.len() < 50 && status("/ready").await == 200 {
        running.push(router.clone().oneshot(request("POST /v1/completions", &[], endless())).await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let full = send(&router, request("GET /ready", &[], Body::empty())).await;
    assert_eq!((full.status.as_u16(), full.json()["reason"].clone()), (503, json!("the queue is full")));
    assert_eq!(status("/health").await, 200);
    drop(running);
    settled(&router).await;
    assert_eq!(status("/ready").await, 200);
}
