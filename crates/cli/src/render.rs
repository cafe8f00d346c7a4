//! `k2 render`: messages to prompts, as JSON lines with the field names of the golden files.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use k2_chat::{Message, RenderOptions, Template, Tool, normalize, render};
use serde::{Deserialize, Serialize};

use crate::{json_lines, tokenizer};

/// Messages to a prompt: {"template", "messages", "tools", "add_generation_prompt", "thinking"} per line gives
/// {"rendered", "ids"}.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Folder with tiktoken.model and tokenizer_config.json, or a GGUF file.
    #[arg(value_name = "DIR", required_unless_present = "normalize", conflicts_with = "normalize")]
    tokenizer: Option<PathBuf>,
    /// History as the model expects it, before rendering: {"messages_in"} per line gives {"messages_out"}.
    #[arg(long)]
    normalize: bool,
    /// Turn format of lines that name none [default: the one that DIR asks for].
    #[arg(long, value_name = "NAME", value_parser = Template::from_name, conflicts_with = "normalize")]
    template: Option<Template>,
}

#[derive(Deserialize)]
struct Conversation {
    template: Option<String>,
    messages: Vec<Message>,
    tools: Option<Vec<Tool>>,
    add_generation_prompt: Option<bool>,
    /// K2.5 only: false asks for an answer without reasoning.
    thinking: Option<bool>,
}

#[derive(Serialize)]
struct Prompt {
    rendered: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Before {
    messages_in: Vec<Message>,
}

#[derive(Serialize)]
struct After {
    messages_out: Vec<Message>,
}

/// Runs the command.
pub(crate) fn run(args: &RenderArgs) -> Result<(), Box<dyn Error>> {
    let Some(folder) = &args.tokenizer else {
        return json_lines::answer_each(|Before { messages_in: mut messages }| {
            normalize(&mut messages);
            Ok(After { messages_out: messages })
        });
    };
    let tokenizer = tokenizer::open(folder)?;
    let mut found = None;
    let mut of_folder = || match found {
        Some(template) => Ok(template),
        None => tokenizer::template(folder).inspect(|template| found = Some(*template)),
    };
    json_lines::answer_each(|conversation: Conversation| {
        let template = match (&conversation.template, args.template) {
            (Some(name), _) => Template::from_name(name)?,
            (None, Some(template)) => template,
            (None, None) => of_folder()?,
        };
        let tools = conversation.tools.unwrap_or_default();
        let default = RenderOptions::default();
        let options = RenderOptions {
            add_generation_prompt: conversation
                .add_generation_prompt
                .unwrap_or(default.add_generation_prompt),
            thinking: conversation.thinking.unwrap_or(default.thinking),
        };
        let rendered = render(template, &conversation.messages, &tools, options)?;
        Ok(Prompt { ids: rendered.ids(&tokenizer), rendered: rendered.text })
    })
}
