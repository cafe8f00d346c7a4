//! Normalising histories that are in no public golden file.

use k2_chat::{Message, normalize, normalize::count_calls};
use serde_json::{Value, json};

fn check(messages_in: Value, messages_out: Value) {
    let mut messages: Vec<Message> = serde_json::from_value(messages_in).unwrap();
    normalize(&mut messages);
    assert_eq!(serde_json::to_value(&messages).unwrap(), messages_out);
}

fn calls(ids: &[&str]) -> Value {
    let call =
        |id: &&str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    json!({"role": "assistant", "content": "", "tool_calls": ids.iter().map(call).collect::<Vec<_>>()})
}

fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": ""})
}

#[test]
fn results_find_their_calls() {
    // The same foreign id again and again: first asked, first answered.
    check(
        json!([calls(&["x", "x"]), result("x"), result("x"), result("x")]),
        json!([
            calls(&["functions.f:0", "functions.f:1"]),
            result("functions.f:0"),
            result("functions.f:1"),
            result("x")
        ]),
    );
    // Without an id the oldest open call is meant, also where the ids are in order.
    check(
        json!([calls(&["functions.f:0", "functions.f:1"]), result("functions.f:0"), result("")]),
        json!([calls(&["functions.f:0", "functions.f:1"]), result("functions.f:0"), result("functions.f:1")]),
    );
    check(
        json!([result("early"), calls(&["a", "b"]), result("b"), {"role": "tool", "content": "r"}]),
        json!([result("early"), calls(&["functions.f:0", "functions.f:1"]), result("functions.f:1"),
            {"role": "tool", "content": "r", "tool_call_id": "functions.f:0"}]),
    );
}

#[test]
fn ids_that_only_look_right_are_renamed() {
    for id in [
        "functions.f:",
        "functions.f:x",
        "functions.ff:0",
        "Functions.f:0",
        "functions.f:0 ",
        "functions.f:٣",
    ] {
        check(json!([calls(&[id])]), json!([calls(&["functions.f:0"])]));
    }
    check(
        json!([calls(&["functions.f:12", "functions.f:007"])]),
        json!([calls(&["functions.f:12", "functions.f:007"])]),
    );
}

#[test]
fn what_is_missing_is_filled_in_and_what_is_unknown_is_kept() {
    let call = |arguments: Value| json!({"role": "assistant", "tool_calls": [{"id": "functions.f:0", "function": {"name": "f", "arguments": arguments}, "index": 0}]});
    let filled = |arguments: Value| {
        let mut message = call(arguments);
        message["content"] = json!("");
        json!([message])
    };
    for empty in [json!(null), json!(""), json!(" \n")] {
        check(json!([call(empty)]), filled(json!("{}")));
    }
    check(json!([call(json!({"a": 1}))]), filled(json!({"a": 1})));
    check(
        json!([{"role": "assistant", "content": null, "tool_calls": null, "refusal": null, "reasoning_content": "r"}]),
        json!([{"role": "assistant", "content": "", "refusal": null, "reasoning_content": "r"}]),
    );
}

#[test]
fn calls_are_counted() {
    let messages: Vec<Message> =
        serde_json::from_value(json!([calls(&["a", "b"]), result("a"), calls(&["c"])])).unwrap();
    assert_eq!(count_calls(&messages), 3);
}

#[test]
fn a_long_history_takes_no_long_time() {
    let n = 20_000;
    let mut messages = vec![calls(&vec!["x"; n])];
    messages.extend((0..n).map(|_| result("x")));
    let mut messages: Vec<Message> = serde_json::from_value(Value::from(messages)).unwrap();
    normalize(&mut messages);
    assert_eq!(messages[n].tool_call_id.as_deref(), Some(format!("functions.f:{}", n - 1).as_str()));
}
