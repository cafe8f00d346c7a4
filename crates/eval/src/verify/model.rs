//! What only a trained model does: it calls a tool when asked to and not otherwise, answers with the keys that it was
//! asked for, and ends a call that somebody has begun for it. Each has three tries, as in Moonshot's suite.

use serde_json::{Value, json};

use super::Group;
use super::case::{calls, text};
use super::run::Planned;
use super::target::{Target, Transport};
use super::tool_choice::weather_tool;
use crate::answer::{Answer, Finding};
use crate::endpoint::{Body, excerpt};
use crate::schema;

const TRIES: usize = 3;

pub(super) fn plan<'a>() -> Vec<Planned<'a>> {
    type Look = fn(&Target<'_>, Transport) -> Result<(), Finding>;
    let rows: [(&str, Look); 3] = [
        ("auto: a tool is called when it is asked for", calls_when_asked),
        ("auto: no tool is called when none is wanted", does_not_call),
        ("json_object: the keys that were asked for", keys_asked_for),
    ];
    let both = |(name, look): (&str, Look)| {
        Transport::BOTH.map(|transport| {
            let name = format!("{name}, {}", transport.name());
            Planned::new(Group::Model, name, move |target| tried(|| look(target, transport)))
        })
    };
    let mut plan: Vec<_> = rows.into_iter().flat_map(both).collect();
    let name = "raw completions: a call's markers stay in the text";
    plan.push(Planned::new(Group::Model, name, |target| tried(|| markers_stay(target))));
    plan
}

fn tried(look: impl Fn() -> Result<(), Finding>) -> Result<(), Finding> {
    (1..TRIES).find_map(|_| look().ok()).map_or_else(&look, Ok)
}

fn asked(content: &str, more: Value) -> Value {
    let mut body = more;
    body["messages"] = json!([{ "role": "user", "content": content }]);
    body["max_tokens"] = json!(1024);
    body
}

fn calls_when_asked(target: &Target<'_>, transport: Transport) -> Result<(), Finding> {
    let body = asked(
        "What's the weather like in Beijing today? Use the tool to check.",
        json!({ "tools": [weather_tool()], "tool_choice": "auto" }),
    );
    calls(&body, &target.answer(&body, transport)?, None, usize::MAX)
}

fn does_not_call(target: &Target<'_>, transport: Transport) -> Result<(), Finding> {
    let body = asked(
        "Hello! Who are you? Do not use any tool.",
        json!({ "tools": [weather_tool()], "tool_choice": "auto" }),
    );
    let answer = target.answer(&body, transport)?;
    text(&body, &answer)?;
    match &answer {
        Answer { content: Some(content), finish_reason, .. }
            if !content.is_empty() && finish_reason == "stop" =>
        {
            Ok(())
        }
        answer => {
            Err(Finding(format!("{:?} with the finish reason {:?}", answer.content, answer.finish_reason)))
        }
    }
}

fn keys_asked_for(target: &Target<'_>, transport: Transport) -> Result<(), Finding> {
    let body = asked(
        "The weather of Beijing as JSON, please. The object must have a key named 'city'.",
        json!({ "response_format": { "type": "json_object" } }),
    );
    let content = target.answer(&body, transport)?.content.unwrap_or_default();
    match schema::object(&content)?.contains_key("city") {
        true => Ok(()),
        false => Err(Finding(format!("{:?} has no key \"city\"", excerpt(&content)))),
    }
}

/// A prompt in K2's turn format that ends inside a call, continued as raw text.
fn markers_stay(target: &Target<'_>) -> Result<(), Finding> {
    let tools = json!([weather_tool()]);
    let prompt = format!(
        "<|im_system|>tool_declare<|im_middle|>{tools}<|im_end|>\
         <|im_user|>user<|im_middle|>What's the weather like in Beijing?<|im_end|>\
         <|im_assistant|>assistant<|im_middle|><|tool_calls_section_begin|><|tool_call_begin|>\
         functions.get_weather:0<|tool_call_argument_begin|>"
    );
    let response = target.post("completions", &json!({ "prompt": prompt, "max_tokens": 256 }))?;
    let Body::Whole(text) = &response.body else {
        return Err(Finding("a stream that nobody asked for".into()));
    };
    let completion: Value = serde_json::from_str(text).unwrap_or_default();
    match completion["choices"][0]["text"].as_str() {
        Some(text) if text.contains("<|tool_call_end|>") => Ok(()),
        _ => {
            Err(Finding(format!("status {}: {:?} has no <|tool_call_end|>", response.status, excerpt(text))))
        }
    }
}
