//! What the log says of a request, and what it never says.

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use k2_server::{Keys, ServerOptions};
use serde_json::{Value, json};

use crate::fixtures::{MODEL, request, routes, send};

/// Lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_for_each_request_without_its_text() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_max_level(tracing::Level::TRACE);
    let _log = tracing::subscriber::set_default(log.with_writer(move || writer.clone()).finish());
    let router =
        routes(ServerOptions { keys: Keys::parse(b"ann: key-of-ann").unwrap(), ..ServerOptions::default() });
    let ann = ("x-api-key", "key-of-ann");
    let said = "a-thing-nobody-else-may-know";
    let chat = |content: Value| {
        json!({ "model": MODEL, "max_tokens": 3, "messages": [{ "role": "user", "content": content }] })
            .to_string()
    };
    let broken = format!("{{\"messages\": {said}");
    let wizard = json!({ "model": MODEL, "messages": [{ "role": said, "content": said }] }).to_string();
    let mut ids = Vec::new();
    for (path, key, body) in [
        ("/v1/chat/completions", ann, chat(json!(said))),
        ("/v1/chat/completions", ann, chat(json!({ said: said }))),
        ("/v1/chat/completions", ann, wizard),
        ("/v1/completions", ann, broken),
        ("/v1/completions", ("x-api-key", said), String::new()),
    ] {
        let answer = send(&router, request(&format!("POST {path}"), &[key], body)).await;
        ids.push((answer.header("x-request-id").to_owned(), path, answer.status.as_u16()));
    }
    send(&router, request("GET /health", &[], Body::empty())).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains(said) && !text.contains("key-of-ann"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    assert_eq!(requests.len(), ids.len() + 1, "{text}");
    for (line, (id, path, status)) in requests.iter().zip(&ids) {
        let expected = json!([id, "POST", path, status, "complete", "INFO"]);
        let found =
            ["id", "method", "endpoint", "status", "outcome", "level"].map(|field| line[field].clone());
        assert_eq!(json!(found), expected, "{line}");
        assert_eq!(line["key"], if *status == 401 { "-" } else { "ann" }, "{line}");
    }
    assert_eq!((&requests[0]["status"], &requests[0]["completion_tokens"]), (&json!(200), &json!(3)));
    assert!(requests[0]["prompt_tokens"].as_u64() > Some(30), "{}", requests[0]);
    assert_eq!(requests[ids.len()]["level"], "DEBUG", "those who watch are not news");
}
