//! Streams: their events come in order, and join to what the whole answer is.

use k2_chat::Template;
use k2_server::ServerOptions;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fixtures::{Usual, request, routes};
use crate::metrics::until;

/// Name and data of each event; comments are left out.
pub(crate) fn events(body: &str) -> Vec<(String, Value)> {
    let event = |text: &str| {
        let mut event = (String::new(), Value::Null);
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("event", name)) => event.0 = name.to_owned(),
                Some(("data", "[DONE]")) => event.1 = json!("[DONE]"),
                Some(("data", data)) => event.1 = serde_json::from_str(data).unwrap(),
                _ => assert_eq!(line, ":", "{text}"),
            }
        }
        event
    };
    body.split_terminator("\n\n").map(event).filter(|event| !event.1.is_null()).collect()
}

/// Names, each only once in a row.
fn order(events: &[(String, Value)]) -> Vec<&str> {
    let mut names: Vec<_> =
        events.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "ping").collect();
    names.dedup();
    names
}

/// The strings at `pointer` of all events, joined.
fn joined(events: &[(String, Value)], pointer: &str) -> String {
    events.iter().filter_map(|(_, data)| data.pointer(pointer)?.as_str()).collect()
}

/// Asks the same whole and as a stream.
async fn both(path: &str, mut body: Value) -> (Value, Vec<(String, Value)>) {
    let server = Usual::start(None);
    let whole = server.post(path, &body.to_string()).await;
    assert_eq!(whole.status.as_u16(), 200, "{}", whole.text);
    body["stream"] = json!(true);
    let streamed = server.post(path, &body.to_string()).await;
    assert_eq!(streamed.status.as_u16(), 200, "{}", streamed.text);
    (serde_json::from_str(&whole.text).unwrap(), events(&streamed.text))
}

fn ask() -> Value {
    json!({ "model": "bytes", "messages": [{ "role": "user", "content": "b" }], "max_tokens": 24, "temperature": 0 })
}

#[tokio::test]
async fn chat_completions() {
    let (whole, events) = both("/v1/chat/completions", ask()).await;
    assert_eq!(order(&events), [""], "no names, as OpenAI's clients expect");
    let text = joined(&events, "/choices/0/delta/content");
    assert_eq!(whole["choices"][0]["message"]["content"], text.as_str());
    assert!(text.len() > 4, "{text:?}");
    assert_eq!(events[0].1["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let last = &events[events.len() - 2].1["choices"][0];
    assert_eq!(last["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert_eq!(events[events.len() - 1].1, "[DONE]");
}

/// The engine goes on until it hears of a stop string; what it computes after that is not counted.
#[tokio::test]
async fn tokens_are_counted_up_to_a_stop_string() {
    let mut body = ask();
    for (name, value) in
        [("prompt", json!("b")), ("logit_bias", json!({ "65": 100 })), ("max_tokens", json!(1000))]
    {
        body[name] = value;
    }
    for (path, without) in [("/v1/chat/completions", "prompt"), ("/v1/completions", "messages")] {
        for (stop, count) in [("A", 1), ("AAA", 3), ("AAAAAAAA", 8)] {
            let mut body = body.clone();
            body.as_object_mut().unwrap().remove(without);
            body["stop"] = json!(stop);
            let (whole, _) = both(path, body.clone()).await;
            assert_eq!(whole["usage"]["completion_tokens"], count, "{path} {stop}");
            body["stream_options"] = json!({ "include_usage": true });
            body["stream"] = json!(true);
            let streamed = Usual::start(None).post(path, &body.to_string()).await;
            let events = events(&streamed.text);
            let usage = &events[events.len() - 2].1["usage"];
            assert_eq!(usage["completion_tokens"], count, "{path} {stop}: {}", streamed.text);
        }
    }
}

/// The prompt of a message that is continued has closed its reasoning already.
#[tokio::test]
async fn a_continued_message_goes_on_with_its_content() {
    let server = Usual::with(|served| served.template = Template::K25);
    let said = json!({ "role": "user", "content": "b" });
    let begun = json!({ "role": "assistant", "content": "A", "partial": true });
    for (messages, kwargs, field) in [
        (json!([said]), json!({}), "reasoning_content"),
        (json!([said]), json!({ "enable_thinking": false }), "content"),
        (json!([said]), json!({ "thinking": false }), "content"),
        (json!([said, begun]), json!({}), "content"),
    ] {
        let mut body = ask();
        body["messages"] = messages;
        body["chat_template_kwargs"] = kwargs;
        body["logit_bias"] = json!({ "65": 100 });
        let whole = server.post("/v1/chat/completions", &body.to_string()).await;
        let whole: Value = serde_json::from_str(&whole.text).unwrap();
        let message = &whole["choices"][0]["message"];
        for name in ["reasoning_content", "content"] {
            let expected = if name == field { "A".repeat(24) } else { String::new() };
            assert_eq!(message[name].as_str().unwrap_or_default(), expected, "{body}: {message}");
        }
        body["stream"] = json!(true);
        let streamed = events(&server.post("/v1/chat/completions", &body.to_string()).await.text);
        assert_eq!(joined(&streamed, &format!("/choices/0/delta/{field}")), "A".repeat(24), "{body}");
    }
}

#[tokio::test]
async fn several_choices_come_together() {
    let mut body = ask();
    for (name, value) in
        [("n", json!(3)), ("temperature", json!(1)), ("seed", json!(4)), ("max_tokens", json!(24))]
    {
        body[name] = value;
    }
    body["ignore_eos"] = json!(true);
    let (whole, _) = both("/v1/chat/completions", body.clone()).await;
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let streamed = Usual::start(None).post("/v1/chat/completions", &body.to_string()).await;
    let events = events(&streamed.text);
    // As OpenAI's clients read: each chunk of one choice, its index says of which.
    let (mut contents, mut reasons, mut order) =
        ([const { String::new() }; 3], [const { Vec::new() }; 3], Vec::new());
    let (last, chunks) = events.split_last().unwrap();
    let (usage, chunks) = chunks.split_last().unwrap();
    for (_, chunk) in chunks {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        assert!(reasons[index].is_empty(), "nothing comes after the end: {chunk}");
        contents[index] += text;
        order.extend((!text.is_empty()).then_some(index));
        reasons[index].extend(choice["finish_reason"].as_str());
        assert_eq!((&chunk["usage"], &chunk["id"]), (&Value::Null, &chunks[0].1["id"]));
    }
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["message"]["content"], contents[index], "choice {index}");
        assert_eq!([choice["finish_reason"].as_str().unwrap()], reasons[index][..], "choice {index}");
    }
    assert!(contents[0] != contents[1] && contents[1] != contents[2], "{contents:?}");
    assert!(!order.is_sorted(), "one choice after the other: {order:?}");
    assert_eq!(usage.1["choices"], json!([]));
    for name in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(usage.1["usage"][name], whole["usage"][name], "{name}");
    }
    assert_eq!(last.1, "[DONE]");
}

#[tokio::test]
async fn who_leaves_cancels_all_choices() {
    let router = routes(ServerOptions::default());
    let mut body = ask();
    for (name, value) in [("n", json!(3)), ("stream", json!(true)), ("max_tokens", json!(4000))] {
        body[name] = value;
    }
    let asked = request("POST /v1/chat/completions", &[], body.to_string());
    let streamed = router.clone().oneshot(asked).await.unwrap();
    until(&router, |found| found["k2_sequences_running"] == 3.0).await;
    drop(streamed);
    let found = until(&router, |found| found["k2_sequences_running"] == 0.0).await;
    assert_eq!(found["k2_disconnects_total"], 1.0);
    assert!(found["k2_generated_tokens_total"] < 12_000.0, "they were not computed to their ends");
}

#[tokio::test]
async fn usage_and_progress_come_to_those_who_ask() {
    let mut body = ask();
    body["messages"][0]["content"] = json!("The tide. ".repeat(230));
    body["stream_options"] = json!({ "include_usage": true, "include_progress": true });
    body["stream"] = json!(true);
    let server = Usual::start(None);
    let answer = server.post("/v1/chat/completions", &body.to_string()).await;
    let events = events(&answer.text);
    let progress: Vec<_> = events.iter().filter_map(|(_, data)| data.get("prefill_progress")).collect();
    let computed: Vec<_> = progress.iter().map(|one| one["computed_tokens"].as_u64().unwrap()).collect();
    assert!(computed.len() > 2 && computed.is_sorted(), "{progress:?}");
    assert!(computed[computed.len() - 1] < progress[0]["prompt_tokens"].as_u64().unwrap(), "{progress:?}");
    let (_, last) = &events[events.len() - 2];
    assert_eq!(
        (&last["choices"], &last["usage"]["prompt_tokens"]),
        (&json!([]), &progress[0]["prompt_tokens"])
    );
    assert!(events[..events.len() - 2].iter().all(|(_, data)| data["usage"].is_null()));
}

#[tokio::test]
async fn completions_and_responses_tell_their_progress_too() {
    let text = "The tide. ".repeat(230);
    for (path, prompt, most, place) in [
        ("/v1/completions", "prompt", "max_tokens", "/prefill_progress/index"),
        ("/v1/responses", "input", "max_output_tokens", "/response/status"),
    ] {
        for wanted in [true, false] {
            let mut body = json!({ "model": "bytes", "stream": true, "temperature": 0 });
            (body[prompt], body[most]) = (json!(text), json!(4));
            body["stream_options"] = json!({ "include_progress": wanted });
            let server = Usual::start(None);
            let events = events(&server.post(path, &body.to_string()).await.text);
            let progress: Vec<_> =
                events.iter().filter(|(_, data)| !data["prefill_progress"].is_null()).collect();
            assert_eq!(progress.len() > 2, wanted, "{path}: {events:?}");
            for (_, data) in progress {
                assert!(data["prefill_progress"]["prompt_tokens"].as_u64().unwrap() > 2000, "{data}");
                assert!(data.pointer(place).is_some(), "{path}: {data}");
            }
        }
    }
}

#[tokio::test]
async fn messages() {
    let (whole, events) = both("/v1/messages", ask()).await;
    let names = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(order(&events), names);
    assert!(events.iter().all(|(name, data)| data["type"] == name.as_str()));
    let text = joined(&events, "/delta/text");
    assert_eq!(whole["content"], json!([{ "type": "text", "text": text }]));
    let (_, delta) = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    let input = |usage: &Value| {
        usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap()
    };
    assert_eq!(input(&events[0].1["message"]["usage"]), input(&whole["usage"]));
}

#[tokio::test]
async fn responses() {
    let body = json!({ "model": "bytes", "input": "b", "max_output_tokens": 24, "temperature": 0 });
    let (whole, events) = both("/v1/responses", body).await;
    let status = whole["status"].as_str().unwrap();
    let last = format!("response.{status}");
    let names = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        &last,
    ];
    assert_eq!(order(&events), names);
    assert!(events.iter().zip(0..).all(|((name, data), number)| {
        data["type"] == name.as_str() && data["sequence_number"] == json!(number)
    }));
    let text = joined(&events, "/delta");
    assert_eq!(whole["output"][0]["content"][0]["text"], text.as_str());
    let response = &events[events.len() - 1].1["response"];
    assert_eq!(response["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(response["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}
