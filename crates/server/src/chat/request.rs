//! A chat request, read and checked.

use std::collections::HashSet;
use std::sync::Arc;

use k2_chat::message::Role;
use k2_chat::normalize::count_calls;
use k2_chat::tool_calls::Markers;
use k2_chat::{Content, Message, ParserOptions, RenderOptions, Tool, ToolCallParser, normalize, render};
use k2_engine::Request;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::agent_header;
use crate::answer::{Answer, Reader};
use crate::body::Body;
use crate::error::ApiError;
use crate::options::{Options, StreamOptions};
use crate::served::Served;

/// What a client asks for.
pub(crate) struct ChatRequest {
    messages: Vec<Message>,
    tools: Vec<Tool>,
    /// False: `tool_choice` is "none".
    calls: bool,
    thinking: bool,
    options: Options,
    pub(crate) stream: Option<StreamOptions>,
}

/// Moonshot's switch for models that can answer without reasoning.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

impl ChatRequest {
    /// Reads every field.
    pub(crate) fn take(mut body: Body, served: &Served) -> Result<ChatRequest, ApiError> {
        served.check_model(&mut body)?;
        let options = Options::take(&mut body, served)?;
        body.only("logprobs", &[false])?;
        body.only("top_logprobs", &[0])?;
        body.only("parallel_tool_calls", &[true])?;
        body.only("modalities", &[vec!["text".to_owned()]])?;
        body.only("response_format", &[serde_json::json!({ "type": "text" })])?;
        let mut messages = messages(&mut body, served.limits.messages)?;
        if !served.keep_agent_headers {
            agent_header::leave_out(&mut messages);
        }
        let request = ChatRequest {
            messages,
            tools: tools(&mut body, served.limits.tools)?,
            calls: tool_choice(&mut body)?,
            thinking: thinking(&mut body, served)?,
            stream: options.stream,
            options,
        };
        body.finish()?;
        Ok(request)
    }

    /// Submits it. What the engine refuses is wrong with `messages`, under whatever name.
    pub(crate) fn answer(self, served: &Arc<Served>) -> Result<Answer, ApiError> {
        let (request, reader) = self.start(served)?;
        let events = served.engine.submit(request).map_err(|error| ApiError::submit(&error, "messages"))?;
        Ok(Answer::new(Arc::clone(served), events, reader))
    }

    /// The ids of the prompt.
    pub(crate) fn prompt(&mut self, served: &Served) -> Result<Vec<u32>, ApiError> {
        normalize(&mut self.messages);
        let tools = if self.calls { &self.tools[..] } else { &[] };
        let options = RenderOptions { add_generation_prompt: true, thinking: self.thinking };
        let rendered = render(served.template, &self.messages, tools, options)
            .map_err(|error| ApiError::field("messages", error.to_string()))?;
        Ok(rendered.ids(&served.tokenizer))
    }

    /// The engine's request, and the reader of its answer.
    fn start(mut self, served: &Served) -> Result<(Request, Reader), ApiError> {
        let prompt = self.prompt(served)?;
        let calls = self.calls && !self.tools.is_empty();
        let tools = if self.calls { &self.tools[..] } else { &[] };
        let form = served.template.form();
        let parser = ParserOptions {
            calls,
            history_calls: count_calls(&self.messages),
            thinking: form.thinking,
            think_prefilled: form.prompts_thinking && self.thinking,
            stop: self.options.stop,
            ..ParserOptions::with_tools(tools)
        };
        let parser = ToolCallParser::new(parser, Markers::of(&served.tokenizer));
        let request = Request {
            prompt,
            max_tokens: self.options.max_tokens.unwrap_or(usize::MAX),
            sampling: self.options.sampling,
            stop_ids: Arc::clone(&served.stop_ids),
            masked_ids: Arc::clone(&served.masked_ids),
            priority: self.options.priority,
            user: self.options.user,
            ..Request::default()
        };
        Ok((request, Reader::Chat(Box::new(parser))))
    }
}

fn messages(body: &mut Body, most: usize) -> Result<Vec<Message>, ApiError> {
    let raw: Vec<Box<RawValue>> = body.required("messages")?;
    if raw.is_empty() || raw.len() > most {
        let message = format!("`messages` has {} messages, expected 1 to {most}", raw.len());
        return Err(ApiError::field("messages", message));
    }
    raw.iter().enumerate().map(|(index, raw)| message(index, raw)).collect()
}

fn message(index: usize, raw: &RawValue) -> Result<Message, ApiError> {
    let param = format!("messages[{index}]");
    let wrong = |what: String| ApiError::field(&param, format!("{param}: {what}"));
    let mut message: Message = serde_json::from_str(raw.get()).map_err(|error| wrong(error.to_string()))?;
    message.role = match message.role {
        Role::Developer => Role::System,
        Role::Other(role) => {
            return Err(wrong(format!("role {role:?} is none of system, developer, user, assistant, tool")));
        }
        role => role,
    };
    if message.extra.contains_key("tools") {
        return Err(wrong("tools declared inside a message are not supported; use the field `tools`".into()));
    }
    if message.role == Role::Tool && message.tool_call_id.is_none() {
        return Err(wrong("a message with role \"tool\" needs `tool_call_id`".into()));
    }
    if message.content.is_none() && message.role != Role::Assistant {
        return Err(wrong(format!("a message with role {:?} needs `content`", message.role.as_str())));
    }
    match &message.content {
        Some(Content::Parts(parts)) if parts.iter().any(|part| part.is_image()) => {
            Err(wrong("this model reads text only; images are not supported".into()))
        }
        _ => Ok(message),
    }
}

fn tools(body: &mut Body, most: usize) -> Result<Vec<Tool>, ApiError> {
    let tools: Vec<Tool> = body.optional("tools")?.unwrap_or_default();
    if tools.len() > most {
        return Err(ApiError::field("tools", format!("{} tools; at most {most} are accepted", tools.len())));
    }
    let mut names = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let param = format!("tools[{index}]");
        let Some(name) = tool.name().filter(|name| is_name(name)) else {
            let message =
                format!("{param} needs `function.name`: letters, digits, `_`, `-` and `.`, at most 256");
            return Err(ApiError::field(param, message));
        };
        if !names.insert(name) {
            return Err(ApiError::field(&param, format!("{param}: a tool named {name:?} is declared twice")));
        }
    }
    Ok(tools)
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    !name.is_empty() && name.len() <= 256 && name.chars().all(allowed)
}

/// Whether the model may call tools.
fn tool_choice(body: &mut Body) -> Result<bool, ApiError> {
    match body.optional::<Value>("tool_choice")? {
        None => Ok(true),
        Some(Value::String(choice)) if choice == "auto" => Ok(true),
        Some(Value::String(choice)) if choice == "none" => Ok(false),
        Some(other) => {
            let message = format!("`tool_choice` is {other}; this server supports \"auto\" and \"none\"");
            Err(ApiError::unsupported("tool_choice", message))
        }
    }
}

fn thinking(body: &mut Body, served: &Served) -> Result<bool, ApiError> {
    let Some(Thinking { kind }) = body.optional("thinking")? else { return Ok(true) };
    let can_choose = served.template.form().prompts_thinking;
    match kind.as_str() {
        "enabled" => Ok(true),
        "disabled" if can_choose => Ok(false),
        "disabled" => {
            let message = format!("the turn format {} has no choice of thinking", served.template.name());
            Err(ApiError::unsupported("thinking", message))
        }
        _ => Err(ApiError::field(
            "thinking",
            format!("`thinking.type` is {kind:?}, expected enabled or disabled"),
        )),
    }
}
