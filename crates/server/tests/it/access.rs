//! Who is let in, and how much they may ask for.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream;
use k2_engine::{Constraint, Grammar};
use k2_server::{Keys, Limits, ServeError, Server, ServerOptions, Timeouts};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tower::ServiceExt;

use crate::fixtures::{MODEL, completion, endless, request, routes, send, served};
use crate::metrics::until;

fn keys() -> Keys {
    Keys::parse(b"ann: key-of-ann\nbob: key-of-bob\n").unwrap()
}

#[tokio::test]
async fn keys_are_needed() {
    let router = routes(ServerOptions { keys: keys(), ..ServerOptions::default() });
    let open = routes(ServerOptions::default());
    for (line, header, value, status) in [
        ("GET /v1/models", "", "", 401),
        ("GET /v1/models", "authorization", "Bearer key-of-ann", 200),
        ("GET /v1/models", "authorization", "bearer key-of-bob", 200),
        ("GET /v1/models", "authorization", "Bearer key-of-eve", 401),
        ("GET /v1/models", "authorization", "Bearer key-of-an", 401),
        ("GET /v1/models", "authorization", "Bearer ", 401),
        ("GET /v1/models", "authorization", "Basic key-of-ann", 401),
        ("GET /v1/models", "authorization", "key-of-ann", 401),
        ("GET /v1/models", "x-api-key", "key-of-ann", 200),
        ("GET /v1/models", "x-api-key", "key-of-ann, key-of-bob", 401),
        ("GET /no/such/place", "", "", 401),
        ("GET /no/such/place", "x-api-key", "key-of-ann", 404),
        ("POST /v1/completions", "", "", 401),
        ("DELETE /v1/completions", "x-api-key", "key-of-ann", 405),
        ("GET /health", "", "", 200),
        ("GET /ready", "", "", 200),
        ("GET /metrics", "", "", 200), // the address is a loopback one
    ] {
        let headers = if header.is_empty() { vec![] } else { vec![(header, value)] };
        let answer = send(&router, request(line, &headers, Body::empty())).await;
        assert_eq!(answer.status, status, "{line} {header}: {value}: {}", answer.text);
        if status == 401 {
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key", "{line}");
        }
        assert!(answer.header("x-request-id").starts_with("req-"), "{line}");
        if !line.starts_with("POST") {
            let status = if status == 401 { 200 } else { status };
            let answer = send(&open, request(line, &headers, Body::empty())).await;
            assert!(
                answer.status == status || line.contains("such"),
                "{line} without keys: {}",
                answer.status
            );
        }
    }
}

#[tokio::test]
async fn metrics_of_a_reachable_server_need_a_key() {
    let address = "0.0.0.0:0".parse().unwrap();
    let options = ServerOptions { keys: keys(), address, ..ServerOptions::default() };
    let router = routes(options.clone());
    let open = routes(ServerOptions { open_metrics: true, ..options });
    for (router, header, status) in
        [(&router, "", 401), (&router, "key-of-ann", 200), (&open, "", 200), (&open, "key-of-eve", 200)]
    {
        let answer = send(router, request("GET /metrics", &[("x-api-key", header)], Body::empty())).await;
        assert_eq!(answer.status, status, "{header}");
    }
}

#[test]
fn a_reachable_server_has_keys() {
    let check = |address: &str, keys: Keys, insecure: bool, allowed: bool| {
        let address = address.parse().unwrap();
        let options = ServerOptions { address, keys, insecure, ..ServerOptions::default() };
        let refused = matches!(Server::new(served(Limits::default()), options), Err(ServeError::Open(_)));
        assert_eq!(!refused, allowed, "{address}");
    };
    check("0.0.0.0:8000", Keys::default(), false, false);
    check("[::]:8000", Keys::default(), false, false);
    check("0.0.0.0:8000", Keys::default(), true, true);
    check("0.0.0.0:8000", keys(), false, true);
    check("127.0.0.1:8000", Keys::default(), false, true);
    check("[::1]:8000", Keys::default(), false, true);
}

#[tokio::test]
async fn names_must_be_known() {
    let allowed_hosts = vec!["k2.example".into()];
    let router = routes(ServerOptions { allowed_hosts, ..ServerOptions::default() });
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("localhost.", 200),
        ("127.0.0.1:8000", 200),
        ("192.168.1.5", 200),
        ("[::1]:8000", 200),
        ("k2.example:443", 200),
        ("K2.Example", 200),
        ("evil.example", 403),
        ("k2.example.evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example@localhost", 403),
        ("local host", 403),
        ("", 400),
    ] {
        for line in ["GET /health", "GET /v1/models", "GET /metrics"] {
            let answer = send(&router, request(line, &[("host", host)], Body::empty())).await;
            assert_eq!(answer.status, status, "{line} with host {host:?}: {}", answer.text);
        }
    }
    let answer = send(&router, request("GET http://evil.example/v1/models", &[], Body::empty())).await;
    assert_eq!(answer.status, 403, "a name in the address line");
}

#[tokio::test]
async fn pages_of_other_origins_stay_out() {
    let allowed_origins = vec!["https://chat.example".into()];
    let options = ServerOptions { allowed_origins, keys: keys(), ..ServerOptions::default() };
    let router = routes(options.clone());
    let all = routes(ServerOptions { allowed_origins: vec!["*".into()], ..options });
    for (router, origin, status, allowed) in [
        (&router, "", 200, ""),
        (&router, "https://chat.example", 200, "https://chat.example"),
        (&router, "http://localhost:8000", 200, ""), // a page of its own
        (&router, "https://evil.example", 403, ""),
        (&router, "https://chat.example.evil.example", 403, ""),
        (&router, "http://chat.example", 403, ""),
        (&router, "null", 403, ""),
        (&all, "https://evil.example", 200, "https://evil.example"),
    ] {
        let key = ("x-api-key", "key-of-ann");
        let answer = send(router, request("GET /v1/models", &[("origin", origin), key], Body::empty())).await;
        assert_eq!(answer.status, status, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");

        let asks = ("access-control-request-method", "POST");
        let wants = ("access-control-request-headers", "authorization,content-type");
        let preflight =
            request("OPTIONS /v1/chat/completions", &[("origin", origin), asks, wants], Body::empty());
        let answer = send(router, preflight).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "preflight of {origin}");
        let answered = [StatusCode::NO_CONTENT, StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED];
        let expected = answered[if status == 403 { 1 } else { usize::from(origin.is_empty()) * 2 }];
        assert_eq!(answer.status, expected, "preflight of {origin}");
        if !allowed.is_empty() {
            assert_eq!(answer.header("access-control-allow-headers"), "authorization,content-type");
            assert_eq!(answer.header("vary"), "origin");
        }
    }
}

#[tokio::test]
async fn requests_are_bounded() {
    let limits = Limits { body_bytes: 4000, messages: 2, tools: 1, stops: 2, ..Limits::default() };
    let router = Server::new(served(limits), ServerOptions::default()).unwrap().router();
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let user = json!({ "role": "user", "content": "Hi" });
    let chat = |changed: Value| {
        let mut body = json!({ "model": MODEL, "messages": [user], "max_tokens": 1 });
        body.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        body.to_string()
    };
    let check = async |body: String, status: u16, says: &str| {
        let answer = send(&router, request("POST /v1/chat/completions", &[], body.clone())).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert!(answer.text.contains(says), "{body}: {}", answer.text);
    };
    check(chat(json!({})), 200, "").await;
    check(chat(json!({ "messages": [user, user] })), 200, "").await;
    check(chat(json!({ "messages": [user, user, user] })), 400, "has 3 messages, expected 1 to 2").await;
    check(chat(json!({ "tools": [tool("a")] })), 200, "").await;
    check(chat(json!({ "tools": [tool("a"), tool("b")] })), 400, "2 tools; at most 1").await;
    check(chat(json!({ "stop": ["a", "b"] })), 200, "").await;
    check(chat(json!({ "stop": ["a", "b", "c"] })), 400, "`stop` has 3 strings, expected at most 2").await;
    check(chat(json!({ "n": 4 })), 200, "").await;
    check(chat(json!({ "n": 5 })), 400, "`n` is 5, expected 1 to 4").await; // no more could wait
    check(format!("{}{}", chat(json!({})), " ".repeat(4000)), 413, "larger than 4000 bytes").await;
    check("{".into(), 400, "not a JSON object").await;

    let pieces = stream::iter((0..3).map(|_| Ok::<_, axum::Error>(Bytes::from(vec![b' '; 1500]))));
    let answer = send(&router, request("POST /v1/completions", &[], Body::from_stream(pieces))).await;
    assert_eq!(answer.status, 413, "a length that was not announced");
}

/// Who needs no place gets none for a body either.
#[tokio::test]
async fn bodies_are_read_of_posts_alone() {
    let router = routes(ServerOptions::default());
    for (line, status, read) in [
        ("POST /v1/completions", 400, true),
        ("GET /v1/models", 200, false),
        ("HEAD /v1/models", 200, false),
        ("GET /no/such/place", 404, false),
        ("PUT /v1/completions", 405, false),
        ("DELETE /v1/models", 405, false),
    ] {
        let (seen, asked) = (Arc::new(AtomicBool::new(false)), Bytes::from_static(b"{}"));
        let sees = Arc::clone(&seen);
        let piece = stream::once(async move {
            sees.store(true, Relaxed);
            Ok::<_, axum::Error>(asked)
        });
        let answer = send(&router, request(line, &[], Body::from_stream(piece))).await;
        assert_eq!((answer.status.as_u16(), seen.load(Relaxed)), (status, read), "{line}: {}", answer.text);
    }
}

#[tokio::test]
async fn bodies_and_answers_come_in_time() {
    let short = Duration::from_millis(20);
    let timeouts = Timeouts { body: short, request: short, ..Timeouts::default() };
    let router = routes(ServerOptions { timeouts, ..ServerOptions::default() });
    let silent = Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>());
    let answer = send(&router, request("POST /v1/completions", &[], silent)).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["type"].clone()),
        (StatusCode::REQUEST_TIMEOUT, json!("invalid_request_error"))
    );

    let answer = send(&router, request("POST /v1/completions", &[], completion(4000).to_string())).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text);
}

/// A grammar that keeps the engine's thread until its sender is gone.
#[derive(Debug)]
struct Held(Mutex<Option<Receiver<()>>>);

impl Grammar for Held {
    fn start(&self) -> Box<dyn Constraint> {
        Box::new(Holding(self.0.lock().unwrap().take().unwrap()))
    }
}

#[derive(Debug)]
struct Holding(Receiver<()>);

impl Constraint for Holding {
    fn allowed(&mut self) -> Result<Option<&[u32]>, String> {
        Err(self.0.recv().unwrap_err().to_string())
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test]
async fn streams_that_take_too_long_say_so() {
    let served = served(Limits::default());
    let (release, held) = std::sync::mpsc::channel();
    let grammar: Arc<dyn Grammar> = Arc::new(Held(Mutex::new(Some(held))));
    let blocker =
        k2_engine::Request { prompt: vec![1], max_tokens: 1, grammar: Some(grammar), ..Default::default() };
    let _events = served.engine.submit(blocker).unwrap();
    let timeouts = Timeouts { request: Duration::from_millis(500), ..Timeouts::default() };
    let options = ServerOptions { timeouts, ..ServerOptions::default() };
    let router = Server::new(served, options).unwrap().router();
    let says = "the answer took more than 0.5 seconds";
    let openai = json!({ "error": { "message": says, "type": "server_error", "param": null, "code": null } });
    let anthropic = json!({ "type": "error", "error": { "type": "api_error", "message": says } });
    for (path, name, pointer, expected) in [
        ("/v1/chat/completions", "", "", &openai),
        ("/v1/completions", "", "", &openai),
        ("/v1/messages", "event: error\n", "", &anthropic),
        ("/v1/responses", "event: response.failed\n", "/response/error/message", &json!(says)),
    ] {
        let mut body = json!({ "model": MODEL, "max_tokens": 9, "stream": true });
        match path {
            "/v1/completions" => body["prompt"] = json!("?"),
            "/v1/responses" => body = json!({ "model": MODEL, "input": "?", "stream": true }),
            _ => body["messages"] = json!([{ "role": "user", "content": "?" }]),
        }
        // The body ends as it should: `send` would not read one that is cut off.
        let answer = send(&router, request(&format!("POST {path}"), &[], body.to_string())).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let last = answer.text.trim_end().rsplit("\n\n").next().unwrap();
        let data = last.strip_prefix(name).unwrap_or_default().strip_prefix("data: ").unwrap_or_default();
        let event: Value = serde_json::from_str(data).unwrap_or_else(|_| panic!("{path}: {}", answer.text));
        assert_eq!(event.pointer(pointer), Some(expected), "{path}");
    }
    drop(release);
    until(&router, |found| found["k2_sequences_running"] + found["k2_requests_waiting"] == 0.0).await;
}

#[tokio::test]
async fn each_key_has_its_places() {
    let options =
        ServerOptions { keys: keys(), max_requests: 3, max_requests_per_key: 2, ..ServerOptions::default() };
    let router = routes(options);
    let ask = |key: &'static str| {
        let headers = [("authorization", key)];
        router.clone().oneshot(request("POST /v1/completions", &headers, endless()))
    };
    let (ann, bob) = ("Bearer key-of-ann", "Bearer key-of-bob");
    let first = ask(ann).await.unwrap();
    let second = ask(ann).await.unwrap();
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let third = ask(ann).await.unwrap();
    assert_eq!(third.status(), 429, "this key has its two");
    assert_eq!(third.headers()["retry-after"], "1");
    let other = ask(bob).await.unwrap();
    assert_eq!(other.status(), 200, "another key has places of its own");
    let full = ask(bob).await.unwrap();
    assert_eq!(full.status(), 429, "all places are taken");
    assert_eq!(ask("Bearer key-of-eve").await.unwrap().status(), 401, "no key, no word of places");
    drop(first);
    assert_eq!(ask(ann).await.unwrap().status(), 200, "a place that was given back");
}

/// Who asks what: key, address and body.
type Asked = (&'static str, &'static str, Value);

/// Ann's answers, which name no user, have all places, and two requests wait. When a place is free, does the second of
/// them begin first?
async fn second_comes_first(waiting: [Asked; 2]) -> bool {
    let router = routes(ServerOptions { keys: keys(), ..ServerOptions::default() });
    let post = |key: &str, path: &str, body: String| {
        let key = format!("Bearer key-of-{key}");
        request(path, &[("authorization", key.as_str())], body)
    };
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(router.clone().oneshot(post("ann", "POST /v1/completions", endless())).await.unwrap());
    }
    until(&router, |found| found["k2_sequences_running"] == 4.0).await;
    let (ended, mut order) = unbounded_channel();
    for (place, (key, path, body)) in waiting.into_iter().enumerate() {
        let (asks, ended, asked) = (router.clone(), ended.clone(), post(key, path, body.to_string()));
        tokio::spawn(async move {
            assert_eq!(send(&asks, asked).await.status, StatusCode::OK);
            ended.send(place).unwrap();
        });
        until(&router, |found| found["k2_requests_waiting"] == (place + 1) as f64).await;
    }
    drop(running.pop());
    let first = order.recv().await.unwrap();
    assert_ne!(order.recv().await.unwrap(), first);
    first == 1
}

#[tokio::test]
async fn keys_take_turns_and_under_each_its_users() {
    let completions = |key, user: Value| {
        let mut body = completion(40);
        body["user"] = user;
        (key, "POST /v1/completions", body)
    };
    let messages = |key, user: &str| {
        let said = json!([{ "role": "user", "content": "b" }]);
        let metadata = json!({ "user_id": user });
        let body = json!({ "model": MODEL, "max_tokens": 40, "messages": said, "metadata": metadata });
        (key, "POST /v1/messages", body)
    };
    let (ann, bob) = (completions("ann", json!(null)), completions("bob", json!(null)));
    let check = async |waiting: [&Asked; 2], expected: bool, why: &str| {
        assert_eq!(second_comes_first(waiting.map(Clone::clone)).await, expected, "{why}");
    };
    check([&ann, &bob], true, "ann has three places already").await;
    for carl in [completions("ann", json!("carl")), messages("ann", "carl")] {
        check([&carl, &bob], true, "whom she names gets her no place of bob's").await;
        check([&ann, &carl], true, "under her key carl has no place yet").await;
        check([&carl, &ann], false, "and he was there first").await;
    }
}
