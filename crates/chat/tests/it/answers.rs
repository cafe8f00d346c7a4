//! Answers of the model, parsed: the contract line by line, with made-up cases.

use k2_chat::{
    Delta, EndReason, ParserOptions, StopMatcher, Tool, ToolCallParser,
    tool_calls::{Markers, Reply, parse_text, parse_tokens},
};
use serde_json::{Value, json};

use crate::small;

const SECTION: &str = "<|tool_calls_section_begin|>";
const CALL: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const END: &str = "<|tool_call_end|>";

fn tools() -> Vec<Tool> {
    let tool = |name: &str, properties: Value, required: Value| {
        Tool(json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties, "required": required}}}).into())
    };
    vec![
        tool("get", json!({"q": {}}), json!([])),
        tool("put", json!({"q": {}, "v": {}}), json!(["v"])),
        tool("functions.odd", json!({"z": {}}), json!(["z"])),
    ]
}

/// Parses `output` as text and by token, and compares content and (id, arguments) of the calls.
fn check(options: ParserOptions, output: &str, content: Value, calls: &[(&str, &str)]) {
    let by_text = parse_text(options.clone(), output, EndReason::EndOfTurn);
    let tokenizer = small::tokenizer();
    let by_id =
        parse_tokens(options, tokenizer, &tokenizer.encode(output, true), EndReason::EndOfTurn).unwrap();
    assert_eq!(by_text, by_id, "{output}");
    assert_eq!(json!(by_text.content), content, "{output}");
    let found: Vec<_> =
        by_text.tool_calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
    assert_eq!(found, calls, "{output}");
}

fn with_tools() -> ParserOptions {
    ParserOptions::with_tools(&tools())
}

/// The one call that comes of this id and these arguments, as (id, arguments).
fn check_id(id: &str, arguments: &str, expected: Option<(&str, &str)>) {
    let output = format!("{SECTION}{CALL}{id}{ARGUMENTS}{arguments}{END}");
    let content = if expected.is_some() { Value::Null } else { json!("") };
    check(with_tools(), &output, content, expected.as_slice());
}

#[test]
fn ids() {
    check_id("functions.get:3", "{}", Some(("functions.get:3", "{}")));
    check_id("get:3", "{}", Some(("functions.get:3", "{}")));
    check_id("functions.get", "{}", Some(("functions.get:0", "{}")));
    check_id("functions_get_5", "{}", Some(("functions.get:5", "{}")));
    check_id("functions_get:5", "{}", Some(("functions.get:5", "{}")));
    check_id("functions_new:5", "{}", Some(("functions.functions_new:5", "{}")));
    // A declared name that begins like the prefix.
    check_id("functions.odd:1", "{}", Some(("functions.functions.odd:1", "{}")));
    check_id("functions.odd", "{}", Some(("functions.functions.odd:0", "{}")));
    // No counter at all is better than one that does not fit.
    check_id("get:99999999999999999999999", "{}", Some(("functions.get:0", "{}")));
    check_id("get:18446744073709551615", "{}", Some(("functions.get:0", "{}")));
    // Ids of others: the arguments tell.
    check_id("call_9", "{\"v\": 1}", Some(("functions.put:0", "{\"v\": 1}")));
    check_id("toolu_01", "{\"z\": 1}", Some(("functions.functions.odd:0", "{\"z\": 1}")));
    check_id("fc_1", "{\"q\": 1}", Some(("functions.get:0", "{\"q\": 1}")));
    check_id("7", "\"{\\\"v\\\": 1}\"", Some(("functions.put:0", "{\"v\": 1}")));
    check_id("0f8fad5b-d9cb-469f-a165-70867728950e", "", Some(("functions.get:0", "{}")));
    check_id("call_9", "{\"w\": 1}", None);
    check_id("call_9", "[1]", None);
    check_id("call_9", "{\"v\": ", None);
    for nonsense in ["", "new", "a b:0", "get:x", ":0", "a:b:0", "get|:0"] {
        check_id(nonsense, "{}", None);
    }
}

#[test]
fn arguments() {
    let cases = [
        ("", "{}"),
        (" \n", "{}"),
        (" {} ", "{}"),
        (" {\"a\" :  1 } \n", "{\"a\" :  1 }"),
        ("{\"a\": \"\u{a0} \"}", "{\"a\": \"\u{a0} \"}"),
        ("\"{}\"", "{}"),
        (" \"{\\\"a\\\": \\\" \\\"}\" ", "{\"a\": \" \"}"),
        ("\"[1]\"", "\"[1]\""),
        ("\"{\" x", "\"{\" x"),
        ("\"\\ud800\"", "\"\\ud800\""),
        ("null", "null"),
    ];
    for (written, expected) in cases {
        check_id("get:0", written, Some(("functions.get:0", expected)));
    }
}

#[test]
fn counters_go_on_from_the_history_and_never_repeat() {
    let call = |id: &str| format!("{CALL}{id}{ARGUMENTS}{{}}{END}");
    let options = ParserOptions { history_calls: 4, ..with_tools() };
    let output = ["get", "get", "get:5", "get:9", "get:9", "put:9"].map(call).concat();
    let ids = ["get:4", "get:5", "get:6", "get:9", "get:10", "put:9"].map(|id| format!("functions.{id}"));
    check(options, &output, Value::Null, &ids.each_ref().map(|id| (id.as_str(), "{}")));
    let last = u64::MAX / 2;
    let ids = [last, last + 1].map(|n| format!("functions.get:{n}"));
    let output = call(&format!("get:{last}")).repeat(2);
    check(with_tools(), &output, Value::Null, &ids.each_ref().map(|id| (id.as_str(), "{}")));
}

#[test]
fn markers_in_odd_places() {
    let call = format!("{CALL}get:0{ARGUMENTS}{{}}{END}");
    let called: &[(&str, &str)] = &[("functions.get:0", "{}")];
    check(with_tools(), &format!("a {SECTION} b {call} c"), json!("a "), called);
    check(with_tools(), &format!(" {SECTION}{SECTION}{call}"), json!(null), called);
    check(with_tools(), &format!(" {SECTION}<|tool_calls_section_end|> x"), json!(" "), &[]);
    check(with_tools(), &format!("a{ARGUMENTS}b{END}c"), json!("abc"), &[]);
    // A marker inside a call that neither ends it nor belongs to it leaves no trace.
    check(with_tools(), &format!("{CALL}get{SECTION}:0{ARGUMENTS}{{{ARGUMENTS}}}{END}"), json!(null), called);
    // The singular form has no token; before a call it is a marker.
    check(with_tools(), &format!("a<|tool_call_section_begin|> \n{call}"), json!("a"), called);
    check(with_tools(), &format!(" <|tool_call_section_begin|>{call}"), json!(null), called);
}

#[test]
fn the_singular_form_is_prose_unless_a_call_follows() {
    let tokenizer = small::tokenizer();
    for prose in
        ["<|tool_call_section_begin|>", "a <|tool_call_section_begin|> b", " <|tool_call_section_begin|> "]
    {
        let ids = tokenizer.encode(prose, true);
        let reply = parse_tokens(with_tools(), tokenizer, &ids, EndReason::EndOfTurn).unwrap();
        assert_eq!(reply.content.as_deref(), Some(prose));
    }
}

#[test]
fn spelled_markers_are_data_by_id_and_markers_by_text() {
    let tokenizer = small::tokenizer();
    let spelled = tokenizer.encode(&format!("{CALL}get:0{ARGUMENTS}{{}}{END}"), false);
    let reply = parse_tokens(with_tools(), tokenizer, &spelled, EndReason::EndOfTurn).unwrap();
    assert_eq!(reply.tool_calls, []);
    assert_eq!(reply.content.unwrap(), format!("{CALL}get:0{ARGUMENTS}{{}}{END}"));
}

#[test]
fn without_tools_markers_are_text() {
    let options = ParserOptions { thinking: true, ..ParserOptions::default() };
    let output = format!("<think>a{SECTION}</think>b {CALL} <think> c");
    let content = json!(format!("b {CALL} <think> c"));
    check(options, &output, content, &[]);
}

/// (output, reasoning, content) of a model that thinks.
fn check_thinking(prefilled: bool, output: &str, reasoning: Option<&str>, content: &str) {
    let options = ParserOptions { thinking: true, think_prefilled: prefilled, ..with_tools() };
    check(options.clone(), output, json!(content), &[]);
    let reply = parse_text(options, output, EndReason::EndOfTurn);
    assert_eq!(reply.reasoning_content.as_deref(), reasoning, "{output}");
}

#[test]
fn reasoning() {
    check_thinking(false, "<think> a\n</think>\n b", Some(" a\n"), "\n b");
    check_thinking(false, "\n<think>a", Some("a"), "");
    check_thinking(false, "\n ", None, "\n ");
    check_thinking(false, "a<think>b</think>", None, "a<think>b</think>");
    check_thinking(false, "<think>a<think>b</think>c</think>d", Some("a<think>b"), "c</think>d");
    check_thinking(false, "<think>a<|tool_call_end|>b", Some("ab"), "");
    check_thinking(true, "a</think>b", Some("a"), "b");
    check_thinking(true, "a", Some("a"), "");
}

#[test]
fn think_markers_in_arguments_are_data() {
    let output = format!("<think>a</think>{CALL}get:0{ARGUMENTS}{{\"q\": \"<think></think>\"}}{END}");
    let options = ParserOptions { thinking: true, ..with_tools() };
    check(options, &output, Value::Null, &[("functions.get:0", "{\"q\": \"<think></think>\"}")]);
}

#[test]
fn special_tokens_without_meaning_leave_no_text() {
    let tokenizer = small::tokenizer();
    let ids = tokenizer.encode("a[PAD]<|im_user|>b", true);
    let reply = parse_tokens(with_tools(), tokenizer, &ids, EndReason::EndOfTurn).unwrap();
    assert_eq!(reply.content.as_deref(), Some("ab"));
}

#[test]
fn stop_strings() {
    let run = |output: &str, end: EndReason| {
        let stop = StopMatcher::new(vec!["STOP".to_owned(), "\n\n".to_owned()]).unwrap();
        let reply = parse_text(ParserOptions { stop, ..with_tools() }, output, end);
        (reply.content, reply.tool_calls.len(), json!(reply.finish_reason))
    };
    let content = |text: &str| Some(text.to_owned());
    assert_eq!(run("a STOP b", EndReason::EndOfTurn), (content("a "), 0, json!("stop")));
    // A stop string found in time is no truncation.
    assert_eq!(run("a STOP b", EndReason::Length), (content("a "), 0, json!("stop")));
    assert_eq!(run("a STO", EndReason::Length), (content("a STO"), 0, json!("length")));
    let output = format!("a\n\n{CALL}get:0{ARGUMENTS}{{}}{END}");
    assert_eq!(run(&output, EndReason::EndOfTurn), (content("a"), 0, json!("stop")));
    let output = format!("{CALL}get:0{ARGUMENTS}{{}}{END}\n\nb");
    assert_eq!(run(&output, EndReason::EndOfTurn), (None, 1, json!("tool_calls")));
}

/// What is said, called and finished with under stop strings, by token and by text; cut calls are left out.
fn ended(stops: &[&str], output: &str, end: EndReason) -> Value {
    let tokenizer = small::tokenizer();
    let stop = StopMatcher::new(stops.iter().map(|stop| stop.to_string()).collect()).unwrap();
    let options = ParserOptions { stop, ..with_tools() };
    let run = |markers: Markers| {
        let by_id = matches!(markers, Markers::Ids(_));
        let mut parser = ToolCallParser::new(options.clone(), markers);
        let mut reply = Reply::default();
        match by_id {
            true => tokenizer
                .encode(output, true)
                .into_iter()
                .for_each(|id| reply.extend(parser.push_token(tokenizer, id).unwrap())),
            false => reply.extend(parser.push_text(output)),
        }
        let finished = parser.finish(end);
        let cut_call = finished.cut_call;
        reply.end(finished);
        reply.leave_out(cut_call);
        reply
    };
    let reply = run(Markers::Text);
    assert_eq!(reply, run(Markers::of(tokenizer)), "{output}");
    let calls: Vec<&str> = reply.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
    json!([reply.content, calls, reply.finish_reason])
}

#[test]
fn stop_strings_are_not_for_calls() {
    let check = |stop: &str, output: &str, expected: Value| {
        assert_eq!(ended(&[stop], output, EndReason::EndOfTurn), expected, "{stop:?}: {output}");
    };
    let arguments = r#"{"q": "a, STOP"}"#;
    let call = format!("{CALL}functions.get:0{ARGUMENTS}{arguments}{END}");
    let called = |content: Value| json!([content, [arguments], "tool_calls"]);
    // Neither in arguments nor in ids, whole or over their edges.
    for stop in ["STOP", "\"}", ",", "{", "functions", ":0", "0{", "}b"] {
        check(stop, &call, called(json!(null)));
        check(stop, &format!("a{SECTION}{call}<|tool_calls_section_end|>"), called(json!("a")));
    }
    // What was the head of one before the call is none after it.
    check("ST, STOP", &format!("ST{call}"), called(json!("ST")));
    // Before calls they end the answer, and after one no other follows.
    check("STOP", &format!("a STOP{call}"), json!(["a ", [], "stop"]));
    check("b", &format!("{call}b{call}"), called(json!(null)));
}

#[test]
fn calls_that_are_cut_off_are_none() {
    let check = |arguments: &str, end: EndReason, calls: &[&str], reason: &str| {
        let first = format!("{CALL}functions.get:0{ARGUMENTS}{{}}{END}");
        let open = format!("{CALL}functions.get:1{ARGUMENTS}{arguments}");
        assert_eq!(ended(&[], &format!("a{open}"), end), json!(["a", calls, reason]), "{arguments}");
        let both = [&["{}"], calls].concat();
        assert_eq!(ended(&[], &(first + &open), end), json!([null, both, reason]), "{arguments}");
    };
    for cut in ["", " ", "{", r#"{"q": "#, r#"{"q": "a""#, r#"["#, "12", r#""{\"q\": 1"#] {
        check(cut, EndReason::Length, &[], "length");
        check(cut, EndReason::EndOfTurn, &[], "tool_calls");
    }
    // The end of the call alone is missing.
    for whole in ["{}", r#"{"q": "a"}"#] {
        check(whole, EndReason::Length, &[whole], "length");
        check(whole, EndReason::EndOfTurn, &[whole], "tool_calls");
    }
}

#[test]
fn a_stream_as_a_client_sees_it() {
    let tokenizer = small::tokenizer();
    let output =
        format!("Hi {SECTION}{CALL}get:0{ARGUMENTS} {{\"q\": 1}} {END}{CALL}what{ARGUMENTS}{{}}{END}");
    let mut parser = ToolCallParser::new(with_tools(), Markers::of(tokenizer));
    let push = |id| parser.push_token(tokenizer, id).unwrap();
    let mut deltas: Vec<Delta> = tokenizer.encode(&output, true).into_iter().flat_map(push).collect();
    let finished = parser.finish(EndReason::EndOfTurn);
    deltas.extend(finished.deltas);
    let call = deltas.iter().position(|delta| matches!(delta, Delta::Call { .. })).unwrap();
    let announced = Delta::Call { index: 0, id: "functions.get:0".to_owned(), name: "get".to_owned() };
    assert_eq!(deltas[call], announced);
    assert!(deltas[..call].iter().all(|delta| matches!(delta, Delta::Content(_))));
    assert!(deltas[call + 1..].iter().all(|delta| matches!(delta, Delta::Arguments { index: 0, .. })));
    assert!(deltas.len() > call + 2, "arguments come in pieces: {deltas:?}");
    assert_eq!(finished.dropped, ["what"]);
}
