//! What is refused, with which status and in whose words, and always before a stream begins.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fixtures::{Usual, request};

const OPENAI: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/responses"];
const ANTHROPIC: [&str; 2] = ["/v1/messages", "/anthropic/v1/messages?beta=true"];

/// A request that is taken, of each endpoint.
fn good(path: &str) -> Value {
    let user = json!([{ "role": "user", "content": "?" }]);
    match path {
        "/v1/completions" => json!({ "model": "bytes", "prompt": "?", "max_tokens": 1 }),
        "/v1/responses" => json!({ "model": "bytes", "input": "?", "max_output_tokens": 1 }),
        _ => json!({ "model": "bytes", "messages": user, "max_tokens": 1 }),
    }
}

/// `changed` over a good request, whole and as a stream: the answer has `status`, and the error's fields say `expected`.
async fn check(server: &Usual, path: &str, changed: Value, status: u16, expected: &[(&str, Value)]) {
    for stream in [false, true] {
        let mut body = good(path);
        body["stream"] = json!(stream);
        for (name, value) in changed.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = server.post(path, &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {changed}: {}", answer.text);
        let said: Value = serde_json::from_str(&answer.text).unwrap();
        for (pointer, value) in expected {
            assert_eq!(said.pointer(pointer), Some(value), "{path} {changed}: {said}");
        }
        assert!(said["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{said}");
    }
}

#[tokio::test]
async fn every_endpoint_refuses_in_its_own_words() {
    let server = Usual::start(None);
    let wrong_fields = [json!({ "temperature": 9 }), json!({ "top_p": 0 }), json!({ "stream": "yes" })];
    for path in OPENAI {
        for changed in &wrong_fields {
            let param = json!(changed.as_object().unwrap().keys().next());
            let kind = json!("invalid_request_error");
            check(&server, path, changed.clone(), 400, &[("/error/param", param), ("/error/type", kind)])
                .await;
        }
        let gone = [("/error/code", json!("model_not_found")), ("/error/param", json!("model"))];
        check(&server, path, json!({ "model": "gpt" }), 404, &gone).await;
        let unknown =
            [("/error/code", json!("unsupported_parameter")), ("/error/param", json!("no_such_field"))];
        check(&server, path, json!({ "no_such_field": 1 }), 400, &unknown).await;
    }
    for path in ANTHROPIC {
        let said = |kind: &str| [("/type", json!("error")), ("/error/type", json!(kind))];
        for changed in &wrong_fields {
            check(&server, path, changed.clone(), 400, &said("invalid_request_error")).await;
        }
        check(&server, path, json!({ "model": "claude" }), 404, &said("not_found_error")).await;
        check(&server, path, json!({ "max_tokens": null }), 400, &said("invalid_request_error")).await;
    }
}

/// Before anything is made of the values: a list of ones is far more memory than text.
#[tokio::test]
async fn bodies_of_many_values_are_refused() {
    let server = Usual::start(None);
    let ones = |count: usize| Value::from(vec![json!(1); count]);
    let parts = Value::from(vec![json!({}); 1 << 19]);
    let said = json!([{ "role": "user", "content": parts }]);
    for path in OPENAI.iter().chain(&ANTHROPIC) {
        for (name, value) in [("tools", ones(1 << 20)), ("stop", ones(1 << 20)), ("messages", said.clone())] {
            let mut body = good(path);
            body[name] = value;
            let answer = server.post(path, &body.to_string()).await;
            assert_eq!(answer.status.as_u16(), 400, "{path} {name}: {}", answer.text);
            assert!(answer.text.contains("JSON keys and values; at most 1048576"), "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn models_are_found_by_names_with_slashes() {
    let server = Usual::with(|served| served.model_name = "moonshotai/Kimi-K2".into());
    for (name, found) in [
        ("moonshotai/Kimi-K2", true),
        ("moonshotai%2FKimi-K2", true),
        ("moonshotai", false),
        ("moonshotai/Kimi-K2/x", false),
    ] {
        for path in ["/v1/models", "/anthropic/v1/models"] {
            let answer = server.send(request(&format!("GET {path}/{name}"), &[], Body::empty())).await;
            let (status, id) = if found { (200, "moonshotai/Kimi-K2") } else { (404, "") };
            assert_eq!(answer.status.as_u16(), status, "{path}/{name}: {}", answer.text);
            assert_eq!(answer.json()["id"].as_str().unwrap_or_default(), id, "{path}/{name}");
            assert!(found || answer.text.contains("does not exist; this server has `moonshotai/Kimi-K2`"));
        }
    }
}

#[tokio::test]
async fn what_needs_a_memory_of_requests_is_refused() {
    let server = Usual::start(None);
    for (name, value) in [
        ("previous_response_id", json!("resp_1")),
        ("store", json!(true)),
        ("background", json!(true)),
        ("truncation", json!("auto")),
        ("n", json!(2)),
    ] {
        let expected = [("/error/param", json!(name)), ("/error/code", json!("unsupported_parameter"))];
        check(&server, "/v1/responses", json!({ name: value }), 400, &expected).await;
    }
    let answer = server.post("/v1/embeddings", r#"{"model": "bytes", "input": "?"}"#).await;
    assert_eq!(answer.status.as_u16(), 400, "{}", answer.text);
}

#[tokio::test]
async fn fields_of_chat_are_none_of_responses() {
    let server = Usual::start(None);
    for (name, value) in [
        ("messages", json!([{ "role": "user", "content": "another" }])),
        ("response_format", json!({ "type": "json_object" })),
        ("max_tokens", json!(1)),
        ("max_completion_tokens", json!(1)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(1)),
    ] {
        let expected = [("/error/param", json!(name)), ("/error/code", json!("unsupported_parameter"))];
        check(&server, "/v1/responses", json!({ name: value }), 400, &expected).await;
    }
}

/// All of a request's answers are submitted at once, and 64 may wait.
#[tokio::test]
async fn more_answers_than_can_wait_are_refused() {
    let server = Usual::start(None);
    for (prompts, n) in [(65, 1), (9, 8)] {
        let changed = json!({ "prompt": vec!["?"; prompts], "n": n });
        let message = format!("{prompts} prompts with {n} answers each; at most 64 answers are given");
        let expected = [("/error/param", json!("prompt")), ("/error/message", json!(message))];
        check(&server, "/v1/completions", changed, 400, &expected).await;
    }
    let mut most = good("/v1/completions");
    most["prompt"] = json!(vec!["?"; 64]);
    let answer = server.post("/v1/completions", &most.to_string()).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
}

#[tokio::test]
async fn a_key_comes_in_either_header() {
    let server = Usual::start(Some("open-sesame"));
    let ask = async |path: &str, name: &str, value: &str| {
        let request = Request::post(path)
            .header("host", "localhost")
            .header(name, value)
            .body(Body::from(good(path).to_string()))
            .unwrap();
        let answer = server.send(request).await;
        (answer.status.as_u16(), answer.text)
    };
    for path in OPENAI.into_iter().chain(ANTHROPIC) {
        assert_eq!(ask(path, "authorization", "Bearer open-sesame").await.0, 200, "{path}");
        assert_eq!(ask(path, "x-api-key", "open-sesame").await.0, 200, "{path}");
        for (name, value) in [("authorization", "Bearer open"), ("x-api-key", ""), ("accept", "*/*")] {
            let (status, body) = ask(path, name, value).await;
            assert_eq!(status, 401, "{path} {name}: {value}");
            let said: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(said["error"]["type"], "authentication_error", "{body}");
            assert_eq!(said["type"] == "error", path.contains("messages"), "{body}");
        }
    }
}
