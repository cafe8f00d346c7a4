//! `response_format`: text, a JSON object, JSON by a schema; malformed ones are refused.

use serde_json::{Value, json};

use super::case::{Case, Expected};

/// Room for an object.
const MAX_TOKENS: usize = 1024;

pub(super) fn cases() -> Vec<Case> {
    let schema = |json_schema: Value| json!({ "type": "json_schema", "json_schema": json_schema });
    let rows = [
        ("text: a text", json!({ "type": "text" }), Expected::Text),
        ("json_object: an object", json!({ "type": "json_object" }), Expected::Json),
        (
            "json_schema, strict: an object that fits",
            schema(json!({ "name": "weather", "strict": true, "schema": weather() })),
            Expected::Json,
        ),
        (
            "json_schema without `strict`: an object that fits",
            schema(json!({ "name": "weather", "schema": weather() })),
            Expected::Json,
        ),
        (
            "json_schema, not strict: an object",
            schema(json!({ "name": "weather", "strict": false, "schema": weather() })),
            Expected::Json,
        ),
        ("an unknown type: refused", json!({ "type": "yaml" }), Expected::Refusal),
        ("json_schema without its object: refused", json!({ "type": "json_schema" }), Expected::Refusal),
        ("no name: refused", schema(json!({ "schema": { "type": "object" } })), Expected::Refusal),
        ("no schema: refused", schema(json!({ "name": "weather" })), Expected::Refusal),
        (
            "`strict` that is no boolean: refused",
            schema(json!({ "name": "weather", "strict": "yes", "schema": { "type": "object" } })),
            Expected::Refusal,
        ),
        (
            "a schema that is no object: refused",
            schema(json!({ "name": "weather", "schema": "object" })),
            Expected::Refusal,
        ),
    ];
    rows.into_iter()
        .map(|(name, format, expected)| Case::new(name, asked(format, expected), expected))
        .collect()
}

fn asked(format: Value, expected: Expected) -> Value {
    let content = match expected {
        Expected::Text => "Describe Beijing in a sentence.",
        _ => "The weather of Beijing as a JSON object, please, with the keys city and temperature.",
    };
    json!({
        "messages": [{ "role": "user", "content": content }],
        "response_format": format,
        "max_tokens": if expected == Expected::Text { 64 } else { MAX_TOKENS },
    })
}

fn weather() -> Value {
    json!({
        "type": "object",
        "properties": { "city": { "type": "string" }, "temperature": { "type": "number" } },
        "required": ["city", "temperature"],
        "additionalProperties": false,
    })
}
