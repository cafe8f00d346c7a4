//! `tool_choice` and `parallel_tool_calls`: what must be called, may be called, may not be called.

use serde_json::{Value, json};

use super::case::{Case, Expected};

/// Room for a call.
const MAX_TOKENS: usize = 1024;

pub(super) fn cases() -> Vec<Case> {
    let some = Expected::Calls { only: None, at_most: usize::MAX };
    let one = Expected::Calls { only: None, at_most: 1 };
    let time = Expected::Calls { only: Some("get_time"), at_most: usize::MAX };
    let tools = || json!([weather_tool(), time_tool()]);
    let rows = [
        ("required: a tool is called", json!({ "tools": [weather_tool()], "tool_choice": "required" }), some),
        (
            "required, several tools: one of them is called",
            json!({ "tools": tools(), "tool_choice": "required" }),
            some,
        ),
        (
            "required, not parallel: one call",
            json!({ "tools": tools(), "tool_choice": "required", "parallel_tool_calls": false }),
            one,
        ),
        (
            "a named function: that one is called",
            json!({ "tools": tools(), "tool_choice": named("get_time") }),
            time,
        ),
        (
            "a named function that nobody declared: refused",
            json!({ "tools": tools(), "tool_choice": named("get_news") }),
            Expected::Refusal,
        ),
        ("required without tools: refused", json!({ "tool_choice": "required" }), Expected::Refusal),
        (
            "required with an empty list of tools: refused",
            json!({ "tools": [], "tool_choice": "required" }),
            Expected::Refusal,
        ),
        (
            "none: no tool is called",
            json!({ "tools": [weather_tool()], "tool_choice": "none" }),
            Expected::Text,
        ),
        ("none without tools: a text", json!({ "tool_choice": "none" }), Expected::Text),
        ("auto without tools: a text", json!({ "tool_choice": "auto" }), Expected::Text),
        (
            "auto: a text, or calls that fit",
            json!({ "tools": tools(), "tool_choice": "auto" }),
            Expected::CallsOrText,
        ),
        (
            "an unknown word: refused",
            json!({ "tools": [weather_tool()], "tool_choice": "perhaps" }),
            Expected::Refusal,
        ),
    ];
    rows.into_iter().map(|(name, fields, expected)| Case::new(name, asked(fields), expected)).collect()
}

fn asked(mut body: Value) -> Value {
    body["messages"] = json!([{ "role": "user", "content": "What is the weather in Beijing?" }]);
    let forced = body["tool_choice"] == "required" || body["tool_choice"].is_object();
    body["max_tokens"] = json!(if forced { MAX_TOKENS } else { 64 });
    body
}

fn named(name: &str) -> Value {
    json!({ "type": "function", "function": { "name": name } })
}

pub(super) fn weather_tool() -> Value {
    tool("get_weather", "The weather of a city.")
}

fn time_tool() -> Value {
    tool("get_time", "The time in a city.")
}

fn tool(name: &str, description: &str) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": { "city": { "type": "string" } },
        "required": ["city"],
    });
    let function = json!({ "name": name, "description": description, "parameters": parameters });
    json!({ "type": "function", "function": function })
}
