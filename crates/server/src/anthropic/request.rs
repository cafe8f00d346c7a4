//! A request for a message, said in the fields of chat completions.
//!
//! Fields that nobody here knows are passed over: Anthropic's clients send those of many betas, and none of them
//! changes what a model like this one can do. What would change an answer and cannot be done is refused.

use std::collections::HashMap;

use k2_chat::message::FunctionCall;
use k2_chat::{Content, Json, Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::call_id;
use crate::body::Body;
use crate::error::ApiError;
use crate::served::Served;

/// "The Anthropic-compatible API maps temperature by real_temperature = request_temperature * 0.6" (README of
/// MoonshotAI/Kimi-K2).
const TEMPERATURE: f64 = 0.6;

/// Between blocks of text that follow each other.
const BETWEEN_TEXTS: &str = "\n\n";

/// A message as it is sent.
#[derive(Deserialize)]
struct Sent {
    role: String,
    content: Box<RawValue>,
}

/// A block of a message, with the fields of all kinds.
#[derive(Default, Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    /// `tool_use`
    id: Option<String>,
    name: Option<String>,
    input: Option<Json>,
    /// `tool_result`. Its `is_error` has no place in the turn format; results say it themselves.
    tool_use_id: Option<String>,
    content: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    description: Option<String>,
    input_schema: Option<Json>,
}

#[derive(Deserialize)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: bool,
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

/// The request without `max_tokens`, which counting does not have.
pub(super) fn chat(mut body: Body, served: &Served) -> Result<Body, ApiError> {
    let mut chat = Body::default();
    for (theirs, here) in [
        ("model", "model"),
        ("stop_sequences", "stop"),
        ("stream", "stream"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("seed", "seed"), // not Anthropic's: the same seed gives the same answer here
    ] {
        chat.pass(&mut body, theirs, here);
    }
    if let Some(temperature) = body.number("temperature", 0.0, 1.0)? {
        chat.set("temperature", &(temperature * TEMPERATURE))?;
    }
    let metadata = body.optional::<Metadata>("metadata")?;
    if let Some(user) = metadata.and_then(|metadata| metadata.user_id) {
        chat.set("user", &user)?;
    }
    chat.set("messages", &messages(&mut body)?)?;
    tools(&mut body, &mut chat)?;
    thinking(&mut body, &mut chat, served)?;
    output_format(&mut body, &mut chat)?;
    Ok(chat)
}

fn messages(body: &mut Body) -> Result<Vec<Message>, ApiError> {
    let system = body.optional::<Box<RawValue>>("system")?;
    let sent: Vec<Box<RawValue>> = body.required("messages")?;
    if sent.is_empty() {
        return Err(ApiError::field("messages", "messages: at least one message is needed"));
    }
    let mut messages = Vec::new();
    if let Some(system) = system {
        let text = texts(&system).map_err(|why| ApiError::field("system", format!("system: {why}")))?;
        messages.push(Message::text(Role::System, text));
    }
    let mut names = HashMap::new();
    for (index, raw) in sent.iter().enumerate() {
        let wrong = |why: String| ApiError::field("messages", format!("messages.{index}: {why}"));
        let Sent { role, content } =
            serde_json::from_str(raw.get()).map_err(|error| wrong(error.to_string()))?;
        let blocks = blocks(&content).map_err(wrong)?;
        match role.as_str() {
            "user" => user(blocks, &names, &mut messages).map_err(wrong)?,
            "assistant" => messages.push(assistant(blocks, &mut names).map_err(wrong)?),
            "system" => messages.push(Message::text(Role::System, texts(&content).map_err(wrong)?)),
            _ => return Err(wrong(format!("role is {role:?}, expected user or assistant"))),
        }
    }
    // An answer that is there already is continued.
    if let Some(last) =
        messages.last_mut().filter(|last| last.role == Role::Assistant && last.calls().is_empty())
    {
        last.partial = Some(true);
    }
    call_id::restore(&mut messages);
    Ok(messages)
}

/// Results first, each as a message of its own, then the text.
fn user(
    blocks: Vec<Block>,
    names: &HashMap<String, String>,
    messages: &mut Vec<Message>,
) -> Result<(), String> {
    let (mut text, mut has_results) = (Vec::new(), false);
    for block in blocks {
        match block.kind.as_str() {
            "text" => text.push(needed(block.text, "text")?),
            "tool_result" => {
                let id = needed(block.tool_use_id, "tool_use_id")?;
                let result = block.content.as_deref().map_or(Ok(String::new()), texts)?;
                let name = names.get(&id).cloned();
                let result = Message::text(Role::Tool, result);
                messages.push(Message { tool_call_id: Some(id), name, ..result });
                has_results = true;
            }
            kind => return Err(unknown(kind)),
        }
    }
    if !(text.is_empty() && has_results) {
        messages.push(Message::text(Role::User, text.join(BETWEEN_TEXTS)));
    }
    Ok(())
}

fn assistant(blocks: Vec<Block>, names: &mut HashMap<String, String>) -> Result<Message, String> {
    let (mut text, mut calls, mut reasoning) = (Vec::new(), Vec::new(), String::new());
    for block in blocks {
        match block.kind.as_str() {
            "text" => text.push(needed(block.text, "text")?),
            "thinking" => reasoning.push_str(&block.thinking.unwrap_or_default()),
            "redacted_thinking" => {}
            "tool_use" => {
                let (id, name) = (needed(block.id, "id")?, needed(block.name, "name")?);
                names.insert(id.clone(), name.clone());
                let function = FunctionCall { name, arguments: block.input };
                let kind = Some("function".to_owned());
                calls.push(ToolCall { id: Some(id), kind, function, extra: Default::default() });
            }
            kind => return Err(unknown(kind)),
        }
    }
    Ok(Message {
        role: Role::Assistant,
        content: Some(Content::Text(text.join(BETWEEN_TEXTS))),
        tool_calls: (!calls.is_empty()).then_some(calls),
        reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
        ..Message::default()
    })
}

/// Content as blocks; a string is one of text.
fn blocks(content: &RawValue) -> Result<Vec<Block>, String> {
    let read = match content.get().starts_with('"') {
        true => serde_json::from_str(content.get()).map(|text: String| {
            vec![Block { kind: "text".to_owned(), text: Some(text), ..Block::default() }]
        }),
        false => serde_json::from_str(content.get()),
    };
    read.map_err(|error| error.to_string())
}

/// Content that can only be text.
fn texts(content: &RawValue) -> Result<String, String> {
    let text = |block: Block| match block.kind.as_str() {
        "text" => needed(block.text, "text"),
        kind => Err(unknown(kind)),
    };
    let texts: Vec<String> = blocks(content)?.into_iter().map(text).collect::<Result<_, _>>()?;
    Ok(texts.join(BETWEEN_TEXTS))
}

fn needed<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("a block lacks `{name}`"))
}

fn unknown(kind: &str) -> String {
    format!(
        "a block of type {kind:?} cannot be read here; this model reads text, tool calls and their results"
    )
}

fn tools(body: &mut Body, chat: &mut Body) -> Result<(), ApiError> {
    let tools: Vec<Tool> = body.optional("tools")?.unwrap_or_default();
    let mut declared = Vec::new();
    for (index, tool) in tools.into_iter().enumerate() {
        let Tool { kind, name, description, input_schema } = tool;
        if let Some(kind) = kind.filter(|kind| kind != "custom") {
            let message =
                format!("tools.{index}: {kind:?} runs on Anthropic's servers; only custom tools exist here");
            return Err(ApiError::unsupported("tools", message));
        }
        let Some(parameters) = input_schema else {
            return Err(ApiError::field("tools", format!("tools.{index}: `input_schema` is missing")));
        };
        let mut function = indexmap::IndexMap::from([("name".to_owned(), Json::String(name))]);
        function.extend(description.map(|text| ("description".to_owned(), Json::String(text))));
        function.insert("parameters".to_owned(), parameters);
        let tool = [("type", Json::String("function".into())), ("function", Json::Object(function))];
        declared.push(Json::Object(tool.map(|(key, value)| (key.to_owned(), value)).into()));
    }
    if !declared.is_empty() {
        chat.set("tools", &declared)?;
    }
    tool_choice(body, chat)
}

fn tool_choice(body: &mut Body, chat: &mut Body) -> Result<(), ApiError> {
    let Some(ToolChoice { kind, name, disable_parallel_tool_use }) = body.optional("tool_choice")? else {
        return Ok(());
    };
    let choice = match (kind.as_str(), name) {
        ("auto", _) => json!("auto"),
        ("none", _) => json!("none"),
        ("any", _) => json!("required"),
        ("tool", Some(name)) => json!({ "type": "function", "function": { "name": name } }),
        ("tool", None) => {
            return Err(ApiError::field(
                "tool_choice",
                "tool_choice: a choice of type \"tool\" needs `name`",
            ));
        }
        _ => {
            let message = format!("tool_choice: type is {kind:?}, expected auto, any, tool or none");
            return Err(ApiError::field("tool_choice", message));
        }
    };
    chat.set("tool_choice", &choice)?;
    if disable_parallel_tool_use {
        chat.set("parallel_tool_calls", &false)?;
    }
    Ok(())
}

/// A switch only for models that have one; others think as they were trained to.
fn thinking(body: &mut Body, chat: &mut Body, served: &Served) -> Result<(), ApiError> {
    match body.optional::<Thinking>("thinking")? {
        Some(Thinking { kind }) if served.template.form().prompts_thinking => {
            let kind = if kind == "disabled" { "disabled" } else { "enabled" };
            chat.set("thinking", &json!({ "type": kind }))
        }
        _ => Ok(()),
    }
}

/// Structured output, in its two places.
fn output_format(body: &mut Body, chat: &mut Body) -> Result<(), ApiError> {
    let config: Option<Value> = body.optional("output_config")?;
    let older: Option<Value> = body.optional("output_format")?;
    let format = config.and_then(|mut config| config.get_mut("format").map(Value::take)).or(older);
    let Some(mut format) = format.filter(|format| !format.is_null()) else { return Ok(()) };
    if format["type"] != "json_schema" {
        let message = format!("output_config.format: type is {}, expected \"json_schema\"", format["type"]);
        return Err(ApiError::field("output_config", message));
    }
    let schema = json!({ "name": "output", "schema": format["schema"].take(), "strict": true });
    chat.set("response_format", &json!({ "type": "json_schema", "json_schema": schema }))
}
