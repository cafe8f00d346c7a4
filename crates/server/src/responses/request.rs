//! A request for a response, said in the fields of chat completions.

use k2_chat::message::{FunctionCall, Part};
use k2_chat::{Content, Json, Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::error::ApiError;

/// An item of `input`, with the fields of all kinds.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Messages.
    role: Option<String>,
    content: Option<Box<RawValue>>,
    /// Calls and their results.
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Json>,
    strict: Option<bool>,
}

/// The request in chat's fields, and what of it the response says again.
pub(super) fn chat(mut body: Body) -> Result<(Body, Map<String, Value>), ApiError> {
    let mut chat = Body::default();
    let mut echoed = Map::new();
    for (name, default) in [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("reasoning", json!({ "effort": null, "summary": null })),
        ("temperature", Value::Null),
        ("text", json!({ "format": { "type": "text" } })),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", Value::Null),
    ] {
        echoed.insert(name.to_owned(), body.peek::<Option<Value>>(name)?.flatten().unwrap_or(default));
    }
    refuse(&mut body)?;
    refuse_chat(&mut body)?;
    chat.set("messages", &messages(&mut body)?)?;
    tools(&mut body, &mut chat)?;
    tool_choice(&mut body, &mut chat)?;
    format(&mut body, &mut chat)?;
    chat.pass(&mut body, "max_output_tokens", "max_tokens");
    // How much to reason: K2 has no such setting and reasons as it was trained to.
    body.optional::<Value>("reasoning")?;
    // The rest has the same names and the same meaning in chat, or is refused there.
    chat.pass_all(body);
    Ok((chat, echoed))
}

/// What would need a memory of earlier requests, or more than one answer.
fn refuse(body: &mut Body) -> Result<(), ApiError> {
    if let Some(id) = body.optional::<String>("previous_response_id")? {
        let message = format!(
            "`previous_response_id` is {id:?}; this server stores no responses: send the whole input"
        );
        return Err(ApiError::unsupported("previous_response_id", message));
    }
    if body.optional::<bool>("store")? == Some(true) {
        let message = "`store` is true; this server stores no responses: send `store: false` or leave it out";
        return Err(ApiError::unsupported("store", message));
    }
    body.only("background", &[false])?;
    body.only("truncation", &["disabled".to_owned()])?;
    // Reasoning comes in the open, so nothing of it is lost without its encrypted form.
    let include: Vec<String> = body.optional("include")?.unwrap_or_default();
    match include.iter().find(|wanted| *wanted != "reasoning.encrypted_content") {
        Some(wanted) => Err(ApiError::unsupported(
            "include",
            format!("`include`: {wanted:?} is not supported by this server"),
        )),
        None => Ok(()),
    }
}

/// What chat would take, and what has no place in a response.
fn refuse_chat(body: &mut Body) -> Result<(), ApiError> {
    for name in ["messages", "response_format", "max_tokens", "max_completion_tokens", "logprobs"] {
        if body.optional::<Value>(name)?.is_some() {
            let message = format!("`{name}` is a field of chat completions, not of responses");
            return Err(ApiError::unsupported(name, message));
        }
    }
    body.only("top_logprobs", &[0])
}

fn messages(body: &mut Body) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = body.optional::<String>("instructions")? {
        messages.push(Message::text(Role::System, instructions));
    }
    let input: Box<RawValue> = body.required("input")?;
    if input.get().starts_with('"') {
        let text: String = serde_json::from_str(input.get())
            .map_err(|error| ApiError::field("input", format!("`input`: {error}")))?;
        messages.push(Message::text(Role::User, text));
        return Ok(messages);
    }
    let items: Vec<Box<RawValue>> = serde_json::from_str(input.get()).map_err(|error| {
        ApiError::field("input", format!("`input` is neither a string nor a list: {error}"))
    })?;
    for (index, raw) in items.iter().enumerate() {
        let param = format!("input[{index}]");
        let wrong = |why: String| ApiError::field(&param, format!("{param}: {why}"));
        let item: Item = serde_json::from_str(raw.get()).map_err(|error| wrong(error.to_string()))?;
        add(item, &mut messages).map_err(wrong)?;
    }
    Ok(messages)
}

/// Adds an item. What a model says in one turn comes as several: reasoning, then text, then calls.
fn add(item: Item, messages: &mut Vec<Message>) -> Result<(), String> {
    match item.kind.as_deref().unwrap_or("message") {
        "message" => match item.role.as_deref() {
            Some("assistant") => {
                let text = text(item.content.as_deref())?;
                turn(messages, |turn| turn.content.is_none() && turn.calls().is_empty()).content = Some(text);
            }
            Some(role @ ("user" | "system" | "developer")) => {
                let content = Some(text(item.content.as_deref())?);
                messages.push(Message { role: Role::from(role.to_owned()), content, ..Message::default() });
            }
            role => return Err(format!("role is {role:?}, expected user, assistant, system or developer")),
        },
        "reasoning" => {
            let content = text(item.content.as_deref())?;
            turn(messages, |_| false).reasoning_content = Some(joined(&content));
        }
        "function_call" => {
            let name = needed(item.name, "name")?;
            let function = FunctionCall { name, arguments: item.arguments.map(Json::String) };
            let (id, kind) = (Some(needed(item.call_id, "call_id")?), Some("function".to_owned()));
            let call = ToolCall { id, kind, function, extra: Map::new() };
            turn(messages, |_| true).tool_calls.get_or_insert_default().push(call);
        }
        "function_call_output" => {
            let content = Some(text(item.output.as_deref())?);
            let tool_call_id = Some(needed(item.call_id, "call_id")?);
            messages.push(Message { role: Role::Tool, content, tool_call_id, ..Message::default() });
        }
        kind => return Err(format!("an item of type {kind:?} is not supported by this server")),
    }
    Ok(())
}

/// The last message if it is the model's and still takes this, or else a new one.
fn turn(messages: &mut Vec<Message>, takes: impl Fn(&Message) -> bool) -> &mut Message {
    let fits = messages.last().is_some_and(|last| last.role == Role::Assistant && takes(last));
    let place = if fits { messages.len() - 1 } else { messages.len() };
    if !fits {
        messages.push(Message { role: Role::Assistant, ..Message::default() });
    }
    &mut messages[place]
}

/// Content: a string, or parts of text. Others stay, for chat to refuse.
fn text(content: Option<&RawValue>) -> Result<Content, String> {
    let Some(content) = content else { return Ok(Content::Text(String::new())) };
    let mut content: Content = serde_json::from_str(content.get()).map_err(|error| error.to_string())?;
    if let Content::Parts(parts) = &mut content {
        for part in parts {
            match part.kind.as_deref() {
                Some("input_text" | "output_text" | "reasoning_text" | "text") => {
                    *part = Part { kind: Some("text".to_owned()), text: part.text.take(), extra: Map::new() };
                }
                Some("input_image") => part.kind = Some("image".to_owned()),
                kind => return Err(format!("content of type {kind:?} is not supported by this server")),
            }
        }
    }
    Ok(content)
}

fn joined(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => parts.iter().filter_map(|part| part.text.as_deref()).collect(),
    }
}

fn needed(field: Option<String>, name: &str) -> Result<String, String> {
    field.ok_or_else(|| format!("`{name}` is missing"))
}

fn tools(body: &mut Body, chat: &mut Body) -> Result<(), ApiError> {
    let tools: Vec<Tool> = body.optional("tools")?.unwrap_or_default();
    let mut declared = Vec::new();
    for (index, tool) in tools.into_iter().enumerate() {
        let Tool { kind, name, description, parameters, strict } = tool;
        if kind != "function" {
            let message = format!("tools[{index}] is of type {kind:?}; this server has only \"function\"");
            return Err(ApiError::unsupported(&format!("tools[{index}]"), message));
        }
        let fields = [
            ("name", name.map(Json::String)),
            ("description", description.map(Json::String)),
            ("parameters", parameters),
            ("strict", strict.map(Json::Bool)),
        ];
        let function = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        let tool = [("type", Json::String(kind)), ("function", Json::Object(function))];
        declared.push(Json::Object(tool.map(|(key, value)| (key.to_owned(), value)).into()));
    }
    if declared.is_empty() { Ok(()) } else { chat.set("tools", &declared) }
}

/// A named function is one level flatter here than in chat.
fn tool_choice(body: &mut Body, chat: &mut Body) -> Result<(), ApiError> {
    match body.optional::<Value>("tool_choice")? {
        None => Ok(()),
        Some(choice) if choice["type"] == "function" => {
            chat.set("tool_choice", &json!({ "type": "function", "function": { "name": choice["name"] } }))
        }
        Some(choice) => chat.set("tool_choice", &choice),
    }
}

/// `text.format`; a schema is one level flatter here than in chat.
fn format(body: &mut Body, chat: &mut Body) -> Result<(), ApiError> {
    let text: Option<Value> = body.optional("text")?;
    let Some(mut format) = text.and_then(|mut text| text.get_mut("format").map(Value::take)) else {
        return Ok(());
    };
    match (format["type"] == "json_schema", format.as_object_mut()) {
        (true, Some(schema)) => {
            schema.remove("type");
            chat.set("response_format", &json!({ "type": "json_schema", "json_schema": schema }))
        }
        _ => chat.set("response_format", &format),
    }
}
