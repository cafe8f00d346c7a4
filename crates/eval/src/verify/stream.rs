//! The shape of streams, rule by rule (OpenAI's API reference, "The chat completion chunk object"; what the `openai`
//! client and the accumulators of Moonshot's suites rely on), and that of errors.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::Group;
use super::run::Planned;
use super::target::{Target, Transport, quoted, refusal};
use super::tool_choice::weather_tool;
use crate::answer::{Answer, DONE, Finding, chunks, expect};
use crate::endpoint::{Body, excerpt};
use crate::sse::Event;

pub(super) fn plan<'a>() -> Vec<Planned<'a>> {
    type OfEvents = fn(&[Event]) -> Result<(), Finding>;
    let of_one_stream: [(&str, OfEvents); 6] = [
        ("events are data of one object", one_object),
        ("the first delta has the role", role_first),
        ("one finish reason, in the last choice", one_finish_reason),
        ("usage stands in the last choice and in a chunk of its own", usage_twice),
        ("[DONE] is the last event", done_last),
        ("the text comes in pieces", in_pieces),
    ];
    let stream = Arc::new(OnceLock::new());
    let fetched = |(name, rule): (&'static str, OfEvents)| {
        let stream = Arc::clone(&stream);
        Planned::new(Group::Stream, name, move |target| {
            rule(
                stream
                    .get_or_init(|| events(target, &text_request(), true))
                    .as_ref()
                    .map_err(Clone::clone)?,
            )
        })
    };
    type Look = fn(&Target<'_>) -> Result<(), Finding>;
    let others: [(&str, Look); 7] = [
        ("no usage that nobody asked for", no_usage_unasked),
        ("a text's deltas join to the whole answer", |target| joins(target, &text_request())),
        ("a call's deltas join to the whole answer", |target| joins(target, &call_request())),
        ("a call begins with id, type and name, and goes on with arguments", call_deltas),
        ("a bad request is refused before its stream begins", refused_early),
        ("an unknown model is status 404", unknown_model),
        ("a body that is no object is status 400", no_object),
    ];
    let mut plan: Vec<_> = of_one_stream.into_iter().map(fetched).collect();
    plan.extend(others.map(|(name, look)| Planned::new(Group::Stream, name, look)));
    plan
}

fn text_request() -> Value {
    json!({
        "messages": [{ "role": "user", "content": "Tell me about the tides." }],
        "max_tokens": 48,
        "temperature": 0,
        "seed": 7,
    })
}

fn call_request() -> Value {
    json!({
        "messages": [{ "role": "user", "content": "What is the weather in Beijing?" }],
        "tools": [weather_tool()],
        "tool_choice": "required",
        "max_tokens": 1024,
        "temperature": 0.6,
        "seed": 7,
    })
}

/// The events of a streamed answer.
fn events(target: &Target<'_>, body: &Value, include_usage: bool) -> Result<Vec<Event>, Finding> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    if include_usage {
        body["stream_options"] = json!({ "include_usage": true });
    }
    let response = target.post("chat/completions", &body)?;
    match (response.status, response.body) {
        (200, Body::Events(events)) => Ok(events),
        (status, body) => {
            Err(Finding(format!("status {status}: {}, expected a stream of events", quoted(&body))))
        }
    }
}

fn one_object(events: &[Event]) -> Result<(), Finding> {
    let chunks = chunks(events)?;
    if let Some(event) = events.iter().find(|event| event.name.is_some()) {
        return Err(Finding(format!("an event is named {:?}; expected data alone", event.name)));
    }
    for chunk in &chunks {
        expect(chunk, "/object", "\"chat.completion.chunk\"", |object| object == "chat.completion.chunk")?;
        expect(chunk, "/id", "a string", Value::is_string)?;
        expect(chunk, "/choices", "a list", Value::is_array)?;
        expect(chunk, "/created", "a whole number", Value::is_u64)?;
        for field in ["id", "created", "model"] {
            let first = &chunks[0][field];
            expect(chunk, &format!("/{field}"), &format!("{first} as in the first chunk"), |value| {
                value == first
            })?;
        }
    }
    Ok(())
}

fn role_first(events: &[Event]) -> Result<(), Finding> {
    let chunks = chunks(events)?;
    let first = chunks.first().unwrap_or(&Value::Null);
    expect(first, "/choices/0/delta/role", "\"assistant\"", |role| role == "assistant")
}

fn one_finish_reason(events: &[Event]) -> Result<(), Finding> {
    let chunks = chunks(events)?;
    let choices: Vec<_> =
        chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| !choice.is_null()).collect();
    let reasons = choices.iter().filter(|choice| !choice["finish_reason"].is_null()).count();
    if reasons != 1 {
        return Err(Finding(format!("{reasons} chunks have a finish reason; expected 1")));
    }
    match choices.last() {
        Some(last) if !last["finish_reason"].is_null() => Answer::joined(&chunks).map(drop),
        _ => Err(Finding("choices follow the one with the finish reason".into())),
    }
}

/// K2-Vendor-Verifier reads Moonshot's place, the `openai` client OpenAI's.
fn usage_twice(events: &[Event]) -> Result<(), Finding> {
    let chunks = chunks(events)?;
    let Some((last, before)) = chunks.split_last() else { return Err(Finding("the stream is empty".into())) };
    expect(last, "/choices", "[] beside the usage", |choices| choices.as_array().is_some_and(Vec::is_empty))?;
    expect(last, "/usage/prompt_tokens", "a whole number", Value::is_u64)?;
    if let Some(chunk) = before.iter().find(|chunk| !chunk["usage"].is_null()) {
        return Err(Finding(format!("a chunk before the last has the usage {}", chunk["usage"])));
    }
    let last_choice = before.last().unwrap_or(&Value::Null);
    let usage = &last["usage"];
    expect(last_choice, "/choices/0/usage/prompt_tokens", "the usage, as Moonshot sends it", |tokens| {
        *tokens == usage["prompt_tokens"]
    })?;
    let all = ["completion_tokens", "total_tokens"];
    match all.iter().find(|field| last_choice["choices"][0]["usage"][**field] != usage[**field]) {
        Some(field) => Err(Finding(format!("the two usages differ in `{field}`"))),
        None => Ok(()),
    }
}

fn done_last(events: &[Event]) -> Result<(), Finding> {
    match events.iter().filter(|event| event.data == DONE).count() {
        1 => chunks(events).map(drop),
        count => Err(Finding(format!("{count} events say {DONE}; expected 1"))),
    }
}

fn in_pieces(events: &[Event]) -> Result<(), Finding> {
    let chunks = chunks(events)?;
    let tokens = Answer::joined(&chunks)?.usage.map_or(0, |usage| usage.completion_tokens);
    let has_text = |chunk: &&Value| {
        let delta = &chunk["choices"][0]["delta"];
        let text = |name: &str| delta[name].as_str().is_some_and(|text| !text.is_empty());
        text("content") || text("reasoning_content")
    };
    match chunks.iter().filter(has_text).count() {
        0 | 1 if tokens > 8 => Err(Finding(format!("{tokens} tokens come in one piece"))),
        _ => Ok(()),
    }
}

fn no_usage_unasked(target: &Target<'_>) -> Result<(), Finding> {
    let chunks = chunks(&events(target, &text_request(), false)?)?;
    match chunks.iter().find(|chunk| chunk["choices"][0].is_null()) {
        Some(chunk) => Err(Finding(format!("a chunk has no choice: {}", excerpt(&chunk.to_string())))),
        None => Ok(()),
    }
}

/// Both forms of an answer to the same seed. Ids of calls may differ.
fn joins(target: &Target<'_>, body: &Value) -> Result<(), Finding> {
    let whole = target.answer(body, Transport::Whole)?;
    let joined = target.answer(body, Transport::Stream)?;
    let text =
        |answer: &Answer| (answer.content.clone().unwrap_or_default(), answer.reasoning_content.clone());
    let calls = |answer: &Answer| -> Vec<_> {
        answer.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
    };
    let tokens = |answer: &Answer| answer.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens));
    same("text", &text(&joined), &text(&whole))?;
    same("calls", &calls(&joined), &calls(&whole))?;
    same("finish reason", &joined.finish_reason, &whole.finish_reason)?;
    same("usage", &tokens(&joined), &tokens(&whole))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, joined: &T, whole: &T) -> Result<(), Finding> {
    match joined == whole {
        true => Ok(()),
        false => Err(Finding(format!(
            "the {what} of the stream: {}; of the whole: {}",
            excerpt(&format!("{joined:?}")),
            excerpt(&format!("{whole:?}"))
        ))),
    }
}

fn call_deltas(target: &Target<'_>) -> Result<(), Finding> {
    let chunks = chunks(&events(target, &call_request(), true)?)?;
    let mut begun = 0;
    for call in
        chunks.iter().flat_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array()).flatten()
    {
        expect(call, "/function/arguments", "a string", Value::is_string)?;
        if call["index"] == begun {
            begun += 1;
            expect(call, "/id", "a string", |id| id.as_str().is_some_and(|id| !id.is_empty()))?;
            expect(call, "/type", "\"function\"", |kind| kind == "function")?;
            expect(call, "/function/name", "\"get_weather\"", |name| name == "get_weather")?;
        } else {
            expect(call, "/function/name", "nothing after a call's first delta", Value::is_null)?;
        }
    }
    match begun {
        0 => Err(Finding("no call comes in the stream".into())),
        _ => Answer::joined(&chunks).map(drop),
    }
}

fn refused_early(target: &Target<'_>) -> Result<(), Finding> {
    let mut body = text_request();
    body["stream"] = json!(true);
    body["temperature"] = json!("warm");
    status(target, &body, 400)
}

fn unknown_model(target: &Target<'_>) -> Result<(), Finding> {
    let mut body = text_request();
    body["model"] = json!("no-such-model");
    status(target, &body, 404)
}

fn no_object(target: &Target<'_>) -> Result<(), Finding> {
    status(target, &json!(["messages"]), 400)
}

/// An error in OpenAI's shape with a status.
fn status(target: &Target<'_>, body: &Value, expected: u16) -> Result<(), Finding> {
    let response = target.post("chat/completions", body)?;
    match response.status == expected {
        true => refusal(&response).map(drop),
        false => Err(Finding(format!("status {}, expected {expected}", response.status))),
    }
}
