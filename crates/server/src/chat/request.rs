//! A chat request, read and checked.

use std::collections::HashSet;
use std::sync::Arc;

use k2_chat::grammar::{Calls, ContentForm, Reasoning, Wanted};
use k2_chat::message::{Part, Role};
use k2_chat::normalize::count_calls;
use k2_chat::python_json::Style;
use k2_chat::tool_calls::Markers;
use k2_chat::{Content, Message, ParserOptions, RenderOptions, Tool, ToolCallParser, normalize, render};
use k2_engine::{Grammar, Request};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::response_format::ResponseFormat;
use super::tool_choice::ToolChoice;
use crate::agent_header;
use crate::answer::{Answer, Reader};
use crate::body::Body;
use crate::error::ApiError;
use crate::grammar;
use crate::options::{Options, StreamOptions};
use crate::params::Params;
use crate::served::Served;

/// What a client asks for.
pub(crate) struct ChatRequest {
    messages: Vec<Message>,
    tools: Vec<Tool>,
    choice: ToolChoice,
    /// Whether one answer may call several times.
    parallel: bool,
    format: ResponseFormat,
    thinking: bool,
    /// Log-probabilities, and of how many of the likeliest tokens.
    logprobs: Option<usize>,
    options: Options,
    pub(crate) stream: Option<StreamOptions>,
}

/// Wishes for how much to reason or to say. K2 has no setting for either, so they are taken and dropped, as is what
/// Moonshot's clients say of it beside the switch ([`Thinking`]).
const NO_SETTING: [&str; 2] = ["reasoning_effort", "verbosity"];

/// Moonshot's switch for models that can answer without reasoning.
#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

/// The same as open-source servers have it, in the words of two families of models. Templates pass over what they do
/// not know.
#[derive(Deserialize)]
struct TemplateKwargs {
    thinking: Option<bool>,
    enable_thinking: Option<bool>,
}

impl ChatRequest {
    /// Reads every field.
    pub(crate) fn take(mut body: Body, served: &Served) -> Result<ChatRequest, ApiError> {
        served.check_model(&mut body)?;
        let options = Options::take(&mut body, served)?;
        body.only("modalities", &[vec!["text".to_owned()]])?;
        let tools = tools(&mut body, served)?;
        let mut messages = messages(&mut body, served.limits.messages)?;
        if !served.keep_agent_headers {
            agent_header::leave_out(&mut messages);
        }
        let request = ChatRequest {
            messages,
            choice: ToolChoice::take(&mut body, &tools)?,
            parallel: body.optional("parallel_tool_calls")?.unwrap_or(true),
            format: ResponseFormat::take(&mut body, served.limits.schema_bytes)?,
            thinking: thinking(&mut body, served)?,
            logprobs: logprobs(&mut body, served.limits.top_logprobs)?,
            stream: options.stream,
            tools,
            options,
        };
        body.pass_over(&NO_SETTING);
        body.finish()?;
        request.check()?;
        Ok(request)
    }

    /// What does not go together.
    fn check(&self) -> Result<(), ApiError> {
        let continued = self.continues();
        let forced = matches!(self.choice, ToolChoice::Required | ToolChoice::Function(_));
        if continued && (forced || self.format != ResponseFormat::Text) {
            let message = "a message with `partial: true` cannot be continued under a `response_format` or a required tool";
            return Err(ApiError::field("messages", message));
        }
        if forced && self.format != ResponseFormat::Text {
            let message = "a required tool and a `response_format` other than text exclude each other";
            return Err(ApiError::field("response_format", message));
        }
        Ok(())
    }

    /// Whether the answer goes on with the last message.
    fn continues(&self) -> bool {
        self.messages.last().is_some_and(|message| message.partial == Some(true))
    }

    /// Submits it, for an API that has one answer to a request. What the engine refuses is wrong with `messages`,
    /// under whatever name.
    pub(crate) fn answer(self, served: &Arc<Served>) -> Result<Answer, ApiError> {
        if self.options.n > 1 {
            return Err(ApiError::unsupported(
                "n",
                "`n` is for chat completions; here a request has one answer",
            ));
        }
        let mut answers = self.answers(served)?;
        answers.pop().ok_or_else(|| ApiError::failed("no answer was asked for"))
    }

    /// Submits it as often as answers are wanted. The first is the one that would come alone.
    pub(crate) fn answers(mut self, served: &Arc<Served>) -> Result<Vec<Answer>, ApiError> {
        let prompt = self.prompt(served)?;
        let mut request = self.options.request(served, prompt, usize::MAX);
        request.logprobs = self.logprobs;
        request.grammar = self.grammar(served)?;
        if !self.may_call() {
            request.masked_ids = [&served.masked_ids[..], &served.grammars.marker_ids()].concat().into();
        }
        let submit = |index: usize| {
            let sampling = request.sampling.of_answer(index as u64);
            let one = Request { sampling, ..request.clone() };
            let events = served.engine.submit(one).map_err(|error| ApiError::submit(&error, "messages"))?;
            let answer = Answer::new(Arc::clone(served), events, Reader::Chat(Box::new(self.parser(served))));
            Ok(answer.remembered_after(&request.prompt))
        };
        (0..self.options.n).map(submit).collect()
    }

    fn may_call(&self) -> bool {
        self.choice != ToolChoice::None && !self.tools.is_empty()
    }

    /// The ids of the prompt. Tools are declared even if they may not be called: the beginning of a conversation
    /// stays the same from turn to turn.
    pub(crate) fn prompt(&mut self, served: &Served) -> Result<Vec<u32>, ApiError> {
        normalize(&mut self.messages);
        let options = RenderOptions { add_generation_prompt: true, thinking: self.thinking };
        let rendered = render(served.template, &self.messages, &self.tools, options)
            .map_err(|error| ApiError::field("messages", error.to_string()))?;
        Ok(served.turns.ids(&served.tokenizer, &rendered))
    }

    /// What the answer has to follow; none where everything is free.
    fn grammar(&self, served: &Served) -> Result<Option<Arc<dyn Grammar>>, ApiError> {
        let form = served.template.form();
        let calls = self.may_call().then(|| Calls {
            tools: &self.tools,
            only: if let ToolChoice::Function(place) = self.choice { Some(place) } else { None },
            parallel: self.parallel,
            sorted: form.tools == Style::CompactSorted,
        });
        let content = match (&self.format, &self.choice) {
            (_, ToolChoice::Required | ToolChoice::Function(_)) => ContentForm::Nothing,
            (ResponseFormat::Json { schema, strict }, _) => ContentForm::Json { schema, strict: *strict },
            (ResponseFormat::Text, _) => ContentForm::Free,
        };
        let wanted = Wanted { calls, content, reasoning: Reasoning::of(form, self.thinking) };
        grammar::compile(served, wanted)
    }

    fn parser(&self, served: &Served) -> ToolCallParser {
        let form = served.template.form();
        // The reasoning of a message that is continued is over.
        let thinking = form.thinking && !self.continues();
        let parser = ParserOptions {
            calls: self.may_call(),
            history_calls: count_calls(&self.messages),
            thinking,
            think_prefilled: thinking && form.prompts_thinking && self.thinking,
            stop: self.options.stop.clone(),
            ..ParserOptions::with_tools(&self.tools)
        };
        ToolCallParser::new(parser, Markers::of(&served.tokenizer))
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
    match &mut message.content {
        Some(Content::Parts(parts)) => parts.iter_mut().try_for_each(only_text).map_err(wrong)?,
        Some(Content::Text(_)) | None => {}
    }
    Ok(message)
}

/// A part that is no text would be missing from what the model reads. What it refused with is what it said.
fn only_text(part: &mut Part) -> Result<(), String> {
    if part.kind.as_deref() == Some("refusal") {
        part.text = part.extra.get("refusal").and_then(Value::as_str).map(str::to_owned);
    }
    match part.kind.as_deref() {
        _ if part.is_image() => Err("this model reads text only; images are not supported".into()),
        None | Some("text" | "input_text" | "output_text" | "refusal") => match part.text {
            Some(_) => Ok(()),
            None => Err("a part of `content` has no text".into()),
        },
        Some(kind) => Err(format!("this model reads text only; content of type {kind:?} is not supported")),
    }
}

fn tools(body: &mut Body, served: &Served) -> Result<Vec<Tool>, ApiError> {
    let (most, schema_bytes) = (served.limits.tools, served.limits.schema_bytes);
    let tools: Vec<Tool> = body.optional("tools")?.unwrap_or_default();
    if tools.len() > most {
        return Err(ApiError::field("tools", format!("{} tools; at most {most} are accepted", tools.len())));
    }
    for (index, parameters) in tools.iter().enumerate().filter_map(|(i, tool)| Some((i, tool.parameters()?)))
    {
        let bytes = parameters.to_value().to_string().len();
        if bytes > schema_bytes {
            let param = format!("tools[{index}].function.parameters");
            let message = format!("{param} has {bytes} bytes; at most {schema_bytes} are accepted");
            return Err(ApiError::field(param, message));
        }
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

fn logprobs(body: &mut Body, most: usize) -> Result<Option<usize>, ApiError> {
    let wanted = body.optional::<bool>("logprobs")?.unwrap_or(false);
    match (wanted, body.optional::<usize>("top_logprobs")?) {
        (_, Some(top)) if top > most => {
            Err(ApiError::field("top_logprobs", format!("`top_logprobs` is {top}, expected 0 to {most}")))
        }
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(ApiError::field("top_logprobs", "`top_logprobs` is for requests with `logprobs: true`"))
        }
    }
}

/// Whether the model is to reason, where it has the choice. A model that never does takes either.
fn thinking(body: &mut Body, served: &Served) -> Result<bool, ApiError> {
    let form = served.template.form();
    let kwargs = body.optional::<TemplateKwargs>("chat_template_kwargs")?;
    let kwargs = kwargs.and_then(|kwargs| kwargs.thinking.or(kwargs.enable_thinking));
    let wanted = match body.optional::<Thinking>("thinking")?.map(|thinking| thinking.kind) {
        None => kwargs.unwrap_or(true),
        Some(kind) if kind == "enabled" => true,
        Some(kind) if kind == "disabled" => false,
        Some(kind) => {
            let message = format!("`thinking.type` is {kind:?}, expected enabled or disabled");
            return Err(ApiError::field("thinking", message));
        }
    };
    if !wanted && form.thinking && !form.prompts_thinking && served.params == Params::Open {
        let message = format!("the turn format {} has no choice of thinking", served.template.name());
        return Err(ApiError::unsupported("thinking", message));
    }
    Ok(wanted)
}
