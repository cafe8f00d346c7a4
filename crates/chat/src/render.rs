//! Messages to a prompt in Kimi K2's turn format, natively.
//!
//! ```text
//! <|im_user|>NAME<|im_middle|>CONTENT<|im_end|>      likewise <|im_assistant|>, <|im_system|>
//! ```
//!
//! The official road prints one text and then turns every special token spelled in it into a
//! control token, so a user can end their own turn. Here the control tokens the format itself
//! writes are remembered by their place in the text ([`Rendered::markers`]) and everything else,
//! whatever it spells, is ordinary text. For harmless texts the ids are the same.

use std::ops::Range;

use crate::{
    json::Json,
    message::{Content, Message, Role, Tool},
    python_json::{Style, dumps},
    template::{Form, Template},
    tokenizer::Tokenizer,
};

/// What to put at the end.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    /// Open an assistant turn for the model to write. Not done after a message with
    /// `partial: true`, which stays open itself.
    pub add_generation_prompt: bool,
    /// K2.5 only: false asks for an answer without reasoning.
    pub thinking: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, thinking: true }
    }
}

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt as text.
    pub text: String,
    /// Byte ranges of `text` that are control tokens, in order.
    pub markers: Vec<Range<usize>>,
    /// Byte ranges of `text` that are the finished turns of the assistant: what it wrote, without head and end.
    pub turns: Vec<Range<usize>>,
}

/// Why messages cannot be rendered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// `partial` where nothing can be continued.
    #[error(
        "messages[{index}] has `partial: true`; only a last message with role \"assistant\" can be continued"
    )]
    Partial {
        /// Position of the message.
        index: usize,
    },
}

/// Renders a conversation. `tools` are declared first; an empty list declares nothing.
pub fn render(
    template: Template,
    messages: &[Message],
    tools: &[Tool],
    options: RenderOptions,
) -> Result<Rendered, RenderError> {
    let form = template.form();
    let continued = continued(messages)?;
    let mut out = Rendered::default();
    if !tools.is_empty() {
        out.tools(form, tools);
    }
    if needs_system(form, messages) {
        out.turn_head("<|im_system|>", "system");
        out.plain(form.default_system);
        out.marker("<|im_end|>");
        out.plain(form.after_default_system);
    }
    // Reasoning is shown for the calls after the last finished answer and dropped before.
    let finished = |message: &Message| message.role == Role::Assistant && message.calls().is_empty();
    let history = messages.iter().rposition(finished).map_or(0, |last| last + 1);
    for (i, message) in messages.iter().enumerate() {
        let shows_reasoning = i >= history && (options.thinking || !form.prompts_thinking);
        let body = out.message(form, message, shows_reasoning);
        if !(continued && i + 1 == messages.len()) {
            if message.role == Role::Assistant {
                out.turns.push(body..out.text.len());
            }
            out.marker("<|im_end|>");
        }
    }
    if options.add_generation_prompt && !continued {
        out.generation_prompt(form, options.thinking);
    }
    Ok(out)
}

impl Rendered {
    /// The token ids of the prompt.
    pub fn ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        tokenizer.encode_marked(&self.text, &self.markers)
    }

    /// A part that cuts no marker, with the markers inside.
    pub(crate) fn part(&self, range: Range<usize>) -> Rendered {
        let first = self.markers.partition_point(|marker| marker.start < range.start);
        let end = self.markers.partition_point(|marker| marker.end <= range.end);
        let shifted = |marker: &Range<usize>| marker.start - range.start..marker.end - range.start;
        let markers = self.markers.get(first..end).unwrap_or_default().iter().map(shifted).collect();
        let text = self.text.get(range.clone()).unwrap_or_default().to_owned();
        Rendered { text, markers, turns: Vec::new() }
    }

    fn marker(&mut self, marker: &str) {
        let start = self.text.len();
        self.text.push_str(marker);
        self.markers.push(start..self.text.len());
    }

    fn plain(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn turn_head(&mut self, marker: &str, name: &str) {
        self.marker(marker);
        self.plain(name);
        self.marker("<|im_middle|>");
    }

    fn tools(&mut self, form: &Form, tools: &[Tool]) {
        self.turn_head("<|im_system|>", "tool_declare");
        self.plain(form.before_tools);
        let list = Json::Array(tools.iter().map(|tool| tool.0.clone()).collect());
        self.plain(&dumps(&list, form.tools));
        self.marker("<|im_end|>");
    }

    /// A turn without its end; where what comes after its head begins.
    fn message(&mut self, form: &Form, message: &Message, shows_reasoning: bool) -> usize {
        let role = message.role.as_str();
        let name = message.name.as_deref().filter(|name| form.names_and_calls && !name.is_empty());
        match &message.role {
            Role::User => self.turn_head("<|im_user|>", name.unwrap_or(role)),
            Role::Assistant => self.turn_head("<|im_assistant|>", name.unwrap_or(role)),
            // The 0711 template has no head at all for roles it does not know.
            Role::Developer | Role::Other(_) if !form.names_and_calls => {}
            _ => self.turn_head("<|im_system|>", name.unwrap_or(role)),
        }
        let body = self.text.len();
        if form.thinking && message.role == Role::Assistant {
            self.marker("<think>");
            if shows_reasoning {
                self.plain(message.reasoning_content.as_deref().unwrap_or_default());
            }
            self.marker("</think>");
        }
        if form.names_and_calls && message.role == Role::Tool {
            self.plain("## Return of ");
            self.plain(message.tool_call_id.as_deref().unwrap_or_default());
            self.plain(form.before_result);
        }
        self.content(form, message.content.as_ref());
        if form.names_and_calls && message.role == Role::Assistant && !message.calls().is_empty() {
            self.calls(message);
        }
        body
    }

    fn content(&mut self, form: &Form, content: Option<&Content>) {
        match content {
            None => {}
            Some(Content::Text(text)) => self.plain(text),
            Some(Content::Parts(parts)) => {
                for part in parts {
                    if part.is_image() {
                        self.image(form);
                    } else {
                        self.plain(part.text.as_deref().unwrap_or_default());
                    }
                }
            }
        }
    }

    /// The placeholder of an image. `<|media_start|>` is no special token in any release and so
    /// becomes ordinary text.
    fn image(&mut self, form: &Form) {
        self.marker("<|media_start|>");
        self.plain("image");
        self.marker("<|media_content|>");
        self.marker("<|media_pad|>");
        self.marker("<|media_end|>");
        self.plain(form.after_image);
    }

    fn calls(&mut self, message: &Message) {
        self.marker("<|tool_calls_section_begin|>");
        for call in message.calls() {
            self.marker("<|tool_call_begin|>");
            self.plain(call.id.as_deref().unwrap_or_default());
            self.marker("<|tool_call_argument_begin|>");
            match &call.function.arguments {
                None => {}
                Some(Json::String(arguments)) => self.plain(arguments),
                Some(arguments) => self.plain(&dumps(arguments, Style::Default)),
            }
            self.marker("<|tool_call_end|>");
        }
        self.marker("<|tool_calls_section_end|>");
    }

    fn generation_prompt(&mut self, form: &Form, thinking: bool) {
        self.turn_head("<|im_assistant|>", "assistant");
        if form.prompts_thinking {
            self.marker("<think>");
            if !thinking {
                self.marker("</think>");
            }
        }
    }
}

/// True if the last message is to be continued by the model.
fn continued(messages: &[Message]) -> Result<bool, RenderError> {
    let Some(index) = messages.iter().position(|message| message.partial == Some(true)) else {
        return Ok(false);
    };
    let last = index + 1 == messages.len();
    if last && messages[index].role == Role::Assistant {
        Ok(true)
    } else {
        Err(RenderError::Partial { index })
    }
}

fn needs_system(form: &Form, messages: &[Message]) -> bool {
    messages.first().map_or(form.default_system_when_empty, |first| first.role != Role::System)
}
