//! `k2 verify` against a vendor without fault, and against one fault after the other.

use k2_eval::verify::{Check, Group, ParameterRules, Report, Settings, ThinkMode, Verdict, run};
use k2_eval::{Endpoint, Options};
use serde_json::{Value, json};

use crate::vendor::{self, Fault, Reply, chat, flawless};

fn verified(groups: &[Group], fault: Fault) -> Report {
    verified_before(groups, fault, |_, _| ())
}

fn verified_before(groups: &[Group], fault: Fault, seen: impl Fn(&Check, usize) + Sync) -> Report {
    let settings = Settings {
        groups: groups.to_vec(),
        parameter_rules: ParameterRules::Kimi,
        think_mode: ThinkMode::Kimi,
        renderer: Some(vendor::renderer()),
        requests: None,
        concurrency: 4,
    };
    let endpoint = Endpoint::new(&vendor::start(fault), &Options::default()).unwrap();
    run(&endpoint, vendor::MODEL, &settings, seen)
}

/// Names of failed checks with what was found.
fn failed(report: &Report) -> Vec<String> {
    let failed = report.checks.iter().filter_map(|check| match &check.verdict {
        Verdict::Failed(found) => Some(format!("{}: {found}", check.name)),
        _ => None,
    });
    failed.collect()
}

#[test]
fn a_vendor_without_fault_passes_everything() {
    let report = verified(&Group::ALL, flawless);
    assert_eq!(failed(&report), [""; 0]);
    let count = |group: Group| {
        let passed = |check: &&Check| check.group == group && check.verdict == Verdict::Passed;
        report.checks.iter().filter(passed).count()
    };
    // As many as in Moonshot's suites where they correspond: see the table in `verify.rs`.
    let counts = Group::ALL.map(count);
    assert_eq!(counts, [18, 34, 13, 3, 24, 22, 36, 410, 7, 0]);
}

/// Each fault is found by `expected` checks of its group, the first of which says `words`.
#[test]
fn every_fault_is_found() {
    use Group::{
        DynamicTools, Model, Parameters, PromptTokens, RawCompletions, ResponseFormat, Stream, ToolChoice,
        ToolSchemas,
    };
    let mut missed = Vec::new();
    let mut check = |group: Group, fault: Fault, expected: usize, words: &str| {
        let found = failed(&verified(&[group], fault));
        let first = found.first().map_or("", String::as_str);
        if found.len() != expected || !first.contains(words) {
            missed.push(format!(
                "{group:?}: {} checks failed, expected {expected}; {words:?} in {first:?}",
                found.len()
            ));
        }
    };
    check(Parameters, takes_everything, 14, "expected status 400");
    check(Parameters, with_status_422, 14, "status 422");
    check(Parameters, refuses_temperature_0, 1, "defaults are taken, thinking: refused: no");
    check(Parameters, content_null, 4, "`content` is null");
    check(Parameters, thoughts_alone, 4, "`content` is null");
    check(Parameters, content_is_a_list, 4, "expected a string or null");
    check(Parameters, wrong_total, 4, "in total");
    check(Parameters, bare_error, 14, "`error.message` is null");
    check(PromptTokens, one_token_more, 34, "tokens; expected");
    check(PromptTokens, no_usage, 34, "there is no `usage`");
    check(ToolSchemas, text_instead, 410, "the finish reason is \"stop\" with 0 calls");
    check(ToolSchemas, cut_arguments, 410, "is no JSON");
    check(ToolSchemas, another_property, 410, "does not fit its schema");
    check(ToolSchemas, undeclared_tool, 410, "\"other\" is called; expected");
    check(ToolSchemas, refuses_refs, 70, "refused: no");
    check(
        ToolChoice,
        first_tool,
        2,
        "a named function: that one is called, whole: \"get_weather\" is called",
    );
    check(ToolChoice, two_calls, 2, "2 calls; expected 1 to 1");
    check(ToolChoice, calls_under_none, 2, "none: no tool is called, whole: \"get_weather\" is called");
    check(ToolChoice, takes_everything, 8, "expected status 400");
    check(ToolChoice, stops_short, 8, "expected \"stop\", or \"length\" after 64");
    check(ToolChoice, empty_text, 8, "none: no tool is called, whole: the text is empty");
    check(ToolChoice, empty_text_after_thoughts, 0, "");
    check(ToolChoice, no_id, 8, "has the id \"\"");
    check(ResponseFormat, pretty_json, 8, "has line breaks or tabs");
    check(ResponseFormat, prose, 8, "is no JSON");
    check(ResponseFormat, null_values, 4, "does not fit its schema");
    check(ResponseFormat, takes_everything, 12, "expected status 400");
    check(DynamicTools, takes_everything, 36, "expected status 400");
    check(Stream, no_role, 1, "`choices.0.delta.role` is null");
    check(Stream, ids_change, 1, "`id` is \"3\", expected");
    check(Stream, no_usage_in_choice, 1, "as Moonshot sends it");
    check(Stream, no_usage_chunk, 1, "`choices` is");
    check(Stream, two_finish_reasons, 1, "2 chunks have a finish reason");
    check(Stream, goes_on, 2, "choices follow the one with the finish reason");
    check(Stream, no_done, 10, "expected [DONE]");
    check(Stream, done_twice, 10, "[DONE]");
    check(Stream, named_events, 1, "an event is named");
    check(Stream, one_piece, 1, "12 tokens come in one piece");
    check(Stream, loses_a_delta, 2, "the text of the stream");
    check(Stream, name_repeated, 1, "nothing after a call's first delta");
    check(Stream, call_from_1, 2, "a call has the index 1 after 0 calls");
    check(Stream, error_in_stream, 10, "the stream carries an error: \"overloaded\"");
    check(Stream, no_stream, 10, "expected a stream of events");
    check(Stream, usage_unasked, 1, "a chunk has no choice");
    check(Stream, takes_everything, 3, "expected 400");
    check(RawCompletions, loses_a_delta, 1, "the stream says");
    check(RawCompletions, one_token_more, 1, "tokens; expected");
    check(RawCompletions, takes_nothing, 3, "status 400");
    check(Model, text_instead, 2, "a tool is called when it is asked for");
    check(Model, calls_always, 2, "\"get_weather\" is called; expected a text");
    check(Model, null_values, 2, "has no key \"city\"");
    check(Model, markers_lost, 1, "has no <|tool_call_end|>");
    assert!(missed.is_empty(), "{missed:#?}");
}

/// Rather than a report of the others.
#[test]
fn a_panic_is_not_lost() {
    let at_one = |check: &Check, _: usize| assert_ne!(check.name, "required without tools: refused, whole");
    let verified =
        std::panic::catch_unwind(|| verified_before(&[Group::ToolChoice], flawless, at_one).checks.len());
    assert!(verified.is_err(), "{verified:?}");
}

#[test]
fn a_busy_endpoint_is_asked_again() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    fn busy_at_first(_: &Value, reply: &mut Reply) {
        if ASKED.fetch_add(1, Ordering::SeqCst) == 0 {
            (reply.status, reply.streams, reply.headers) = (429, false, "retry-after: 1\r\n");
        }
    }
    assert_eq!(failed(&verified(&[Group::RawCompletions], busy_at_first)), [""; 0]);
    assert_eq!(ASKED.load(Ordering::SeqCst), 5);
}

fn refuse(reply: &mut Reply) {
    *reply = Reply {
        status: 400,
        streams: false,
        whole: json!({ "error": { "message": "no", "type": "x" } }),
        chunks: Vec::new(),
        ..*reply
    };
}

/// Answers with any text instead of refusing.
fn takes_everything(_: &Value, reply: &mut Reply) {
    if reply.status != 200 {
        *reply = chat(&json!({ "messages": [{ "role": "user", "content": "hello" }] }));
    }
}

fn takes_nothing(_: &Value, reply: &mut Reply) {
    refuse(reply);
}

fn with_status_422(_: &Value, reply: &mut Reply) {
    reply.status = if reply.status == 400 { 422 } else { reply.status };
}

fn bare_error(_: &Value, reply: &mut Reply) {
    if reply.status == 400 {
        reply.whole = json!({ "detail": "no" });
    }
}

fn refuses_temperature_0(body: &Value, reply: &mut Reply) {
    if body["temperature"] == 0 {
        refuse(reply);
    }
}

fn refuses_refs(body: &Value, reply: &mut Reply) {
    if body.to_string().contains("$ref") {
        refuse(reply);
    }
}

fn content_null(_: &Value, reply: &mut Reply) {
    if reply.status == 200 {
        reply.whole["choices"][0]["message"]["content"] = json!(null);
    }
}

fn thoughts_alone(body: &Value, reply: &mut Reply) {
    content_null(body, reply);
    if reply.status == 200 {
        reply.whole["choices"][0]["message"]["reasoning_content"] = json!("hm");
    }
}

/// Leaves nothing of the text of an answer in either form.
fn empty_text(_: &Value, reply: &mut Reply) {
    for answer in reply.chunks.iter_mut().chain([&mut reply.whole]) {
        for message in ["message", "delta"] {
            let pointer = format!("/choices/0/{message}/content");
            if let Some(content) = answer.pointer_mut(&pointer).filter(|content| content.is_string()) {
                *content = json!("");
            }
        }
    }
}

fn empty_text_after_thoughts(body: &Value, reply: &mut Reply) {
    empty_text(body, reply);
    for answer in reply.chunks.iter_mut().take(1).chain([&mut reply.whole]) {
        for message in ["message", "delta"] {
            if let Some(message) = answer.pointer_mut(&format!("/choices/0/{message}")) {
                message["reasoning_content"] = json!("hm");
            }
        }
    }
}

fn content_is_a_list(_: &Value, reply: &mut Reply) {
    if reply.status == 200 {
        reply.whole["choices"][0]["message"]["content"] = json!([{ "type": "text", "text": "OK" }]);
    }
}

fn wrong_total(_: &Value, reply: &mut Reply) {
    if reply.status == 200 {
        reply.whole["usage"]["total_tokens"] = json!(1);
    }
}

/// Changes every `usage` of an answer.
fn each_usage(reply: &mut Reply, change: fn(&mut Value)) {
    for answer in reply.chunks.iter_mut().chain([&mut reply.whole]) {
        change(&mut answer["usage"]);
        if answer["choices"][0].is_object() {
            change(&mut answer["choices"][0]["usage"]);
        }
    }
}

fn one_token_more(_: &Value, reply: &mut Reply) {
    each_usage(reply, |usage| {
        if usage.is_object() {
            for field in ["prompt_tokens", "total_tokens"] {
                usage[field] = json!(usage[field].as_u64().unwrap() + 1);
            }
        }
    });
}

fn no_usage(_: &Value, reply: &mut Reply) {
    each_usage(reply, |usage| *usage = json!(null));
}

/// Rewrites the answer in both forms to another one's.
fn answer_with(body: &Value, reply: &mut Reply, other: Value) {
    let mut asked = json!({ "messages": [{ "role": "user", "content": "hello" }] });
    for (name, value) in other.as_object().unwrap() {
        asked[name] = value.clone();
    }
    asked["stream"] = body["stream"].clone();
    asked["stream_options"] = body["stream_options"].clone();
    *reply = chat(&asked);
}

fn text_instead(body: &Value, reply: &mut Reply) {
    if body["tools"].is_array() && reply.status == 200 {
        answer_with(body, reply, json!({}));
    }
}

/// Changes the calls of an answer in both forms; `change` sees a call's `function`.
fn each_function(reply: &mut Reply, change: fn(&mut Value)) {
    let whole = reply.whole.pointer_mut("/choices/0/message/tool_calls").and_then(Value::as_array_mut);
    whole.into_iter().flatten().for_each(|call| change(&mut call["function"]));
    for chunk in &mut reply.chunks {
        if let Some(calls) = chunk.pointer_mut("/choices/0/delta/tool_calls") {
            calls.as_array_mut().unwrap().iter_mut().for_each(|call| change(&mut call["function"]));
        }
    }
}

fn cut_arguments(_: &Value, reply: &mut Reply) {
    each_function(reply, |function| {
        let arguments = function["arguments"].as_str().unwrap();
        function["arguments"] = json!(arguments.strip_suffix('}').unwrap_or(arguments));
    });
}

fn another_property(_: &Value, reply: &mut Reply) {
    each_function(reply, |function| {
        let arguments = function["arguments"].as_str().unwrap();
        function["arguments"] = json!(arguments.replacen("{\"value\"", "{\"other\":1,\"value\"", 1));
    });
}

fn undeclared_tool(_: &Value, reply: &mut Reply) {
    each_function(reply, |function| {
        if function["name"].is_string() {
            function["name"] = json!("other");
        }
    });
}

fn first_tool(body: &Value, reply: &mut Reply) {
    if body["tool_choice"].is_object() && reply.status == 200 {
        answer_with(body, reply, json!({ "tools": body["tools"], "tool_choice": "required" }));
    }
}

fn calls_under_none(body: &Value, reply: &mut Reply) {
    if body["tool_choice"] == "none" && body["tools"].is_array() {
        answer_with(body, reply, json!({ "tools": body["tools"], "tool_choice": "required" }));
    }
}

fn calls_always(body: &Value, reply: &mut Reply) {
    if body["tools"].is_array() {
        answer_with(body, reply, json!({ "tools": body["tools"], "tool_choice": "required" }));
    }
}

fn two_calls(body: &Value, reply: &mut Reply) {
    if body["parallel_tool_calls"] == false {
        let calls = reply.whole["choices"][0]["message"]["tool_calls"].as_array_mut().unwrap();
        calls.push(calls[0].clone());
        let of_call: Vec<_> = reply
            .chunks
            .iter()
            .filter(|c| c["choices"][0]["delta"]["tool_calls"].is_array())
            .cloned()
            .collect();
        let at = reply.chunks.iter().position(|c| c["choices"][0]["finish_reason"].is_string()).unwrap();
        for mut chunk in of_call.into_iter().rev() {
            chunk["choices"][0]["delta"]["tool_calls"][0]["index"] = json!(1);
            reply.chunks.insert(at, chunk);
        }
    }
}

/// Says that the limit was reached long before it.
fn stops_short(_: &Value, reply: &mut Reply) {
    for answer in reply.chunks.iter_mut().chain([&mut reply.whole]) {
        if answer["choices"][0]["finish_reason"] == "stop" {
            answer["choices"][0]["finish_reason"] = json!("length");
        }
    }
}

fn no_id(_: &Value, reply: &mut Reply) {
    let whole = reply.whole.pointer_mut("/choices/0/message/tool_calls").and_then(Value::as_array_mut);
    whole.into_iter().flatten().for_each(|call| call["id"] = json!(""));
    for chunk in &mut reply.chunks {
        if let Some(id) = chunk.pointer_mut("/choices/0/delta/tool_calls/0/id") {
            *id = json!("");
        }
    }
}

/// Puts another text into answers with JSON.
fn json_text(body: &Value, reply: &mut Reply, change: fn(&str) -> String) {
    if !matches!(body["response_format"]["type"].as_str(), Some("json_object" | "json_schema"))
        || reply.status != 200
    {
        return;
    }
    let content = &mut reply.whole["choices"][0]["message"]["content"];
    *content = json!(change(content.as_str().unwrap()));
    let content = content.clone();
    reply.chunks.retain(|chunk| chunk["choices"][0]["delta"]["content"].as_str().is_none_or(str::is_empty));
    if let Some(first) = reply.chunks.first_mut() {
        first["choices"][0]["delta"]["content"] = content;
    }
}

fn pretty_json(body: &Value, reply: &mut Reply) {
    json_text(body, reply, |text| text.replacen('{', "{\n\t", 1));
}

fn prose(body: &Value, reply: &mut Reply) {
    json_text(body, reply, |text| format!("Here you are: {text}"));
}

fn null_values(body: &Value, reply: &mut Reply) {
    json_text(body, reply, |_| "{\"town\":null}".to_owned());
}

fn no_role(_: &Value, reply: &mut Reply) {
    if reply.streams {
        reply.chunks[0]["choices"][0]["delta"] = json!({ "content": "" });
    }
}

fn ids_change(_: &Value, reply: &mut Reply) {
    if let Some(chunk) = reply.chunks.get_mut(3) {
        chunk["id"] = json!("3");
    }
}

fn no_usage_in_choice(_: &Value, reply: &mut Reply) {
    for chunk in reply.chunks.iter_mut().filter(|chunk| chunk["choices"][0].is_object()) {
        chunk["choices"][0]["usage"] = json!(null);
    }
}

fn no_usage_chunk(_: &Value, reply: &mut Reply) {
    reply.chunks.retain(|chunk| chunk["choices"][0].is_object());
}

fn last_choice(reply: &mut Reply) -> usize {
    reply.chunks.iter().position(|chunk| chunk["choices"][0]["finish_reason"].is_string()).unwrap()
}

fn two_finish_reasons(body: &Value, reply: &mut Reply) {
    if reply.streams && body["tools"].is_null() {
        reply.chunks[1]["choices"][0]["finish_reason"] = json!("stop");
    }
}

fn goes_on(body: &Value, reply: &mut Reply) {
    if reply.streams && body["tools"].is_null() {
        let at = last_choice(reply);
        reply.chunks.swap(at, at - 1);
    }
}

fn no_done(_: &Value, reply: &mut Reply) {
    reply.end = "";
}

fn done_twice(_: &Value, reply: &mut Reply) {
    reply.end = "data: [DONE]\n\ndata: [DONE]\n\n";
}

fn named_events(_: &Value, reply: &mut Reply) {
    reply.prefix = "event: message\n";
}

fn one_piece(body: &Value, reply: &mut Reply) {
    if reply.streams && body["tools"].is_null() {
        let text = reply.whole["choices"][0]["message"]["content"].clone();
        reply
            .chunks
            .retain(|chunk| chunk["choices"][0]["delta"]["content"].as_str().is_none_or(str::is_empty));
        reply.chunks[0]["choices"][0]["delta"]["content"] = text;
    }
}

fn loses_a_delta(_: &Value, reply: &mut Reply) {
    if reply.chunks.len() > 4 {
        reply.chunks.remove(2);
    }
}

fn name_repeated(_: &Value, reply: &mut Reply) {
    each_function(reply, |function| function["name"] = json!("get_weather"));
}

fn call_from_1(_: &Value, reply: &mut Reply) {
    for chunk in &mut reply.chunks {
        if let Some(index) = chunk.pointer_mut("/choices/0/delta/tool_calls/0/index") {
            *index = json!(1);
        }
    }
}

fn error_in_stream(_: &Value, reply: &mut Reply) {
    reply.chunks.truncate(2);
    reply.chunks.push(json!({ "error": "overloaded" }));
}

fn no_stream(_: &Value, reply: &mut Reply) {
    reply.streams = false;
}

fn usage_unasked(body: &Value, reply: &mut Reply) {
    if reply.streams && body["stream_options"].is_null() {
        let mut last = reply.chunks[0].clone();
        last["choices"] = json!([]);
        reply.chunks.push(last);
    }
}

fn markers_lost(body: &Value, reply: &mut Reply) {
    if body["prompt"].is_string() {
        reply.whole["choices"][0]["text"] = json!("{\"city\": \"Beijing\"}");
    }
}
