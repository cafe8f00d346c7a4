//! `usage.prompt_tokens` against our own tokenizer and turn format: a count that is off by one means that the model
//! reads something else than it was trained on.
//!
//! The conversations (`data/conversations.jsonl`) are chosen for the places where deployments differ: the automatic
//! system message, names, tools, ids of calls, null contents, lists of parts, control tokens spelled out.

use k2_chat::{Message, RenderOptions, Template, Tokenizer, Tool, normalize, render};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Group;
use super::run::Planned;
use super::target::{Target, Transport};
use crate::answer::Finding;

const CONVERSATIONS: &str = include_str!("../../data/conversations.jsonl");

/// Our own way from messages to tokens.
#[derive(Clone, Copy)]
pub struct Renderer<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Messages to text.
    pub template: Template,
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    messages: Value,
    #[serde(default)]
    tools: Option<Value>,
}

impl Renderer<'_> {
    /// How many tokens the prompt of a conversation has.
    ///
    /// # Errors
    ///
    /// It cannot be read or rendered.
    pub fn prompt_tokens(&self, messages: &Value, tools: Option<&Value>) -> Result<u64, Finding> {
        let unreadable =
            |error: serde_json::Error| Finding(format!("the conversation cannot be read: {error}"));
        let mut messages: Vec<Message> = serde_json::from_value(messages.clone()).map_err(unreadable)?;
        let tools: Vec<Tool> = match tools {
            Some(tools) => serde_json::from_value(tools.clone()).map_err(unreadable)?,
            None => Vec::new(),
        };
        normalize(&mut messages);
        let rendered = render(self.template, &messages, &tools, RenderOptions::default())
            .map_err(|error| Finding(format!("the conversation cannot be rendered: {error}")))?;
        Ok(rendered.ids(self.tokenizer).len() as u64)
    }
}

pub(super) fn plan<'a>(renderer: Option<&'a Renderer<'_>>) -> Vec<Planned<'a>> {
    let group = Group::PromptTokens;
    let Some(renderer) = renderer else {
        return vec![Planned::skipped(group, "prompts of known length", "no tokenizer was given")];
    };
    let each = |line: &str| {
        let conversation: Conversation = match serde_json::from_str(line) {
            Ok(conversation) => conversation,
            Err(error) => {
                let error = error.to_string();
                return vec![Planned::new(group, "conversations", move |_| Err(Finding(error.clone())))];
            }
        };
        let mut body = json!({ "messages": conversation.messages, "max_tokens": 1 });
        if let Some(tools) = conversation.tools {
            body["tools"] = tools;
        }
        let planned = Transport::BOTH.map(|transport| {
            let (name, body) = (format!("{}, {}", conversation.name, transport.name()), body.clone());
            Planned::new(group, name, move |target| counted(target, renderer, &body, transport))
        });
        planned.into()
    };
    CONVERSATIONS.lines().flat_map(each).collect()
}

fn counted(
    target: &Target<'_>,
    renderer: &Renderer<'_>,
    body: &Value,
    transport: Transport,
) -> Result<(), Finding> {
    let expected = renderer.prompt_tokens(&body["messages"], body.get("tools"))?;
    let usage = target.answer(body, transport)?.usage;
    match usage.map(|usage| usage.prompt_tokens) {
        Some(counted) if counted == expected => Ok(()),
        Some(counted) => Err(Finding(format!("the prompt has {counted} tokens; expected {expected}"))),
        None => Err(Finding("there is no `usage`".into())),
    }
}
