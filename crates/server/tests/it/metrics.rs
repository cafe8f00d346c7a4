//! What `/metrics`, `/health` and `/ready` say.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use k2_server::{Keys, Server, ServerOptions};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fixtures::{MODEL, completion, endless, request, routes, send, served_with_store};

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
        "k2_steps_between_layers_total",
        "k2_rearranged_bytes_total",
        "k2_cached_prompt_tokens_total",
        "k2_kv_blocks{state=\"idle\"}",
    ] {
        assert!(found[name] >= 0.0, "{name}");
    }
}

#[tokio::test]
async fn grammars_are_counted() {
    let router = routes(ServerOptions::default());
    let ask = async |format: Value| {
        let user = json!([{ "role": "user", "content": "?" }]);
        let body = json!({ "model": MODEL, "messages": user, "max_tokens": 1, "response_format": format });
        send(&router, request("POST /v1/chat/completions", &[], body.to_string())).await.status.as_u16()
    };
    let of_schema =
        |schema: Value| json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let text = "k2_grammars_total";
    assert_eq!(ask(json!({ "type": "text" })).await, 200);
    assert_eq!(samples(&router).await["k2_grammar_mask_seconds_total"], 0.0);
    assert!(!samples(&router).await.keys().any(|name| name.starts_with(text)), "there is none for text");
    assert_eq!(ask(json!({ "type": "json_object" })).await, 200);
    assert_eq!(ask(json!({ "type": "json_object" })).await, 200);
    assert_eq!(ask(of_schema(json!({ "type": "object", "properties": {} }))).await, 200);
    assert_eq!(ask(of_schema(json!({ "not": {} }))).await, 400);
    let found = samples(&router).await;
    for (outcome, count) in [("cached", 1.0), ("compiled", 2.0), ("refused", 1.0)] {
        assert_eq!(found[&format!("{text}{{outcome=\"{outcome}\"}}")], count, "{outcome}");
    }
    assert_eq!(found["k2_grammar_compile_seconds_count"], 3.0);
    assert!(found["k2_grammar_compile_seconds_sum"] > 0.0);
    assert!(found["k2_grammar_mask_seconds_total"] > 0.0);
}

#[tokio::test]
async fn the_prefix_store_is_counted() {
    const BUDGET: u64 = 1 << 24;
    let directory = std::env::temp_dir().join(format!("k2-server-prefix-store-{}", std::process::id()));
    let ask = async || {
        let served = served_with_store(&directory, BUDGET);
        let engine = served.engine.clone();
        let router = Server::new(served, ServerOptions::default()).unwrap().router();
        let mut body = completion(8);
        body["prompt"] = json!("The tide. ".repeat(10));
        let answer = send(&router, request("POST /v1/completions", &[], body.to_string())).await;
        assert!(engine.flush(Duration::from_secs(60)));
        let found = samples(&router).await;
        let blocks = |event: &str| found[&format!("k2_prefix_store_blocks_total{{event=\"{event}\"}}")];
        let blocks = ["wanted", "read", "found", "removed", "written", "evicted", "failed"].map(blocks);
        assert_eq!(found["k2_prefix_store_budget_bytes"], BUDGET as f64);
        (blocks, found["k2_prefix_store_bytes"], answer.json()["choices"][0]["text"].clone())
    };
    // Of 107 tokens in the cache 96 are in full blocks; the block of the prompt's last token is not looked for.
    let (blocks, bytes, text) = ask().await;
    assert_eq!(blocks, [3.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
    assert_eq!(bytes % 3.0, 0.0);
    assert_eq!(ask().await, ([3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0], bytes, text.clone()));
    let file = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    std::fs::write(file, "no block").unwrap();
    let (blocks, again, same_text) = ask().await;
    let [wanted, read, found, removed, written, ..] = blocks;
    assert_eq!((wanted, removed, read - found, written), (3.0, 1.0, 1.0, 1.0), "{blocks:?}");
    assert_eq!((again, same_text), (bytes, text));
    std::fs::remove_dir_all(directory).unwrap();
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
