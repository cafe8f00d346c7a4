//! Calls and the ends of answers, in all APIs: a call is whole or it is none, and stop strings are not for calls.

use serde_json::{Value, json};

use crate::fixtures::Usual;
use crate::streams::events;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// One token for each byte: two markers, the id and a third.
const BEFORE_ARGUMENTS: usize = 2 + "functions.set:0".len() + 1;

/// A request that has to call, with at most so many tokens.
fn asked(path: &str, max_tokens: usize, stop: Value) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": { "unit": { "enum": ["celsius", "kelvin"] } },
        "required": ["unit"],
        "additionalProperties": false,
    });
    let user = json!([{ "role": "user", "content": "?" }]);
    let function = json!({ "name": "set", "parameters": parameters });
    // A counter of one digit, so that tokens can be counted.
    match path {
        CHAT => json!({
            "model": "bytes", "messages": user, "max_tokens": max_tokens, "stop": stop,
            "tools": [{ "type": "function", "function": function }],
            "tool_choice": "required", "parallel_tool_calls": false, "logit_bias": { "48": 100 },
        }),
        MESSAGES => json!({
            "model": "bytes", "messages": user, "max_tokens": max_tokens, "stop_sequences": stop, "seed": 1,
            "tools": [{ "name": "set", "input_schema": parameters }],
            "tool_choice": { "type": "any", "disable_parallel_tool_use": true },
        }),
        _ => json!({
            "model": "bytes", "input": "?", "max_output_tokens": max_tokens, "stop": stop,
            "tools": [{ "type": "function", "name": "set", "parameters": parameters }],
            "tool_choice": "required", "parallel_tool_calls": false, "logit_bias": { "48": 100 },
        }),
    }
}

/// Arguments of the calls that a whole answer has, and how it says that it ended.
fn made(path: &str, answer: &Value) -> (Vec<Value>, String) {
    let of = |list: &Value, kind: &str, pointer: &str| -> Vec<Value> {
        let calls = list.as_array().into_iter().flatten().filter(|item| item["type"] == kind);
        calls.map(|call| call.pointer(pointer).unwrap().clone()).collect()
    };
    let read = |text: Value| serde_json::from_str(text.as_str().unwrap()).unwrap();
    let (calls, end) = match path {
        CHAT => {
            let choice = &answer["choices"][0];
            let calls = of(&choice["message"]["tool_calls"], "function", "/function/arguments");
            (calls.into_iter().map(read).collect(), &choice["finish_reason"])
        }
        MESSAGES => (of(&answer["content"], "tool_use", "/input"), &answer["stop_reason"]),
        _ => {
            let calls = of(&answer["output"], "function_call", "/arguments");
            (calls.into_iter().map(read).collect(), &answer["status"])
        }
    };
    (calls, end.as_str().unwrap().to_owned())
}

/// How a stream says that it ended. In responses the last item has to say so too.
fn ended(path: &str, stream: &str) -> String {
    let events = events(stream);
    let last = |pointer: &str| {
        let said = events.iter().rev().find_map(|(_, data)| data.pointer(pointer)?.as_str());
        said.unwrap().to_owned()
    };
    match path {
        CHAT => last("/choices/0/finish_reason"),
        MESSAGES => last("/delta/stop_reason"),
        _ => {
            assert_eq!(last("/item/status"), last("/response/status"));
            last("/response/status")
        }
    }
}

/// The answer to a request whole and streamed: whether it calls, and how it ended.
async fn check(path: &str, mut body: Value, calls: bool, end: &str) {
    let server = Usual::start(None);
    let whole = server.post(path, &body.to_string()).await;
    assert_eq!(whole.status.as_u16(), 200, "{path}: {}", whole.text);
    let (made, whole_end) = made(path, &whole.json());
    assert_eq!((made.len(), whole_end.as_str()), (usize::from(calls), end), "{path}: {}", whole.text);
    let units = [json!({ "unit": "celsius" }), json!({ "unit": "kelvin" })];
    assert!(made.iter().all(|arguments| units.contains(arguments)), "{}", whole.text);
    body["stream"] = json!(true);
    let streamed = server.post(path, &body.to_string()).await;
    assert_eq!(ended(path, &streamed.text), end, "{path}: {}", streamed.text);
}

#[tokio::test]
async fn stop_strings_do_not_end_calls() {
    for (path, end) in [(CHAT, "tool_calls"), (MESSAGES, "tool_use"), (RESPONSES, "completed")] {
        for stop in ["{", "unit\"", ":", "functions", "s"] {
            check(path, asked(path, 600, json!([stop])), true, end).await;
        }
    }
}

#[tokio::test]
async fn calls_that_are_cut_off_are_none() {
    for (path, end) in [(CHAT, "length"), (MESSAGES, "max_tokens"), (RESPONSES, "incomplete")] {
        for more in [0, 1, 4, 10] {
            check(path, asked(path, BEFORE_ARGUMENTS + more, json!([])), false, end).await;
        }
    }
    // A token that the client ends the answer with.
    let mut brace = asked(CHAT, 600, json!([]));
    brace["stop_token_ids"] = json!([b'{']);
    check(CHAT, brace, false, "stop").await;
    let mut quote = asked(RESPONSES, 600, json!([]));
    quote["stop_token_ids"] = json!([b'"']);
    check(RESPONSES, quote, false, "incomplete").await;
}
