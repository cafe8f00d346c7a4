//! The generations of Kimi K2's turn format, and which of them a checkpoint wants.
//!
//! Checkpoints ship the format as a Jinja program (`chat_template.jinja`, or `chat_template` in
//! tokenizer_config.json). Programs from model folders are not run here; the published ones differ
//! in the few points that [`Form`] lists, and are told apart by words only they contain.

use std::{io::ErrorKind, path::Path};

use serde_json::Value;

use crate::python_json::Style;
use crate::tokenizer::{CONFIG_FILE, TokenizerError, read};

/// File of a checkpoint's own template, where it is not in `tokenizer_config.json`.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";

/// A published generation of the turn format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// K2-Instruct and K2-Instruct-0905 as fixed in 2025.
    K2Instruct,
    /// K2-Thinking.
    K2Thinking,
    /// K2-Instruct's first template of July 2025 (also Moonlight's turns): no tool calls.
    K2Instruct0711,
    /// The template that K2-Instruct-0905 first came with.
    K2Instruct0905Initial,
    /// K2.5: K2-Thinking's turns with the think marker in the generation prompt. Its own template
    /// prefers tools in TypeScript and falls back to JSON; here they are JSON.
    K25,
}

/// What a generation prints where they differ.
#[derive(Debug)]
pub struct Form {
    /// The system message put first when the conversation has none.
    pub default_system: &'static str,
    /// Plain text after the automatic system message.
    pub after_default_system: &'static str,
    /// True if a conversation without any message gets the automatic system message too.
    pub default_system_when_empty: bool,
    /// Plain text before the tools.
    pub before_tools: &'static str,
    /// How tools are written.
    pub tools: Style,
    /// True if `name` stands in for the role, unknown roles speak as system, and tool calls and the
    /// ids of results are printed.
    pub names_and_calls: bool,
    /// Plain text between the line that names the call and its result.
    pub before_result: &'static str,
    /// Plain text after an image placeholder.
    pub after_image: &'static str,
    /// True if assistant turns begin with their reasoning.
    pub thinking: bool,
    /// True if the generation prompt opens (or, without thinking, closes) the reasoning.
    pub prompts_thinking: bool,
}

const KIMI: &str = "You are Kimi, an AI assistant created by Moonshot AI.";

const K2_INSTRUCT: Form = Form {
    default_system: KIMI,
    after_default_system: "\n",
    default_system_when_empty: false,
    before_tools: "",
    tools: Style::CompactSorted,
    names_and_calls: true,
    before_result: "\n",
    after_image: "\n",
    thinking: false,
    prompts_thinking: false,
};

const K2_THINKING: Form =
    Form { after_default_system: "", default_system_when_empty: true, thinking: true, ..K2_INSTRUCT };

const K2_INSTRUCT_0711: Form = Form {
    default_system: "You are a helpful assistant",
    after_default_system: "",
    tools: Style::Default,
    names_and_calls: false,
    after_image: "",
    ..K2_INSTRUCT
};

const K2_INSTRUCT_0905_INITIAL: Form = Form {
    after_default_system: "",
    before_tools: "\n  # Tools\n  ",
    tools: Style::Default,
    before_result: "\n    ",
    ..K2_INSTRUCT
};

const K25: Form = Form { prompts_thinking: true, ..K2_THINKING };

/// Why no template was chosen.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file of the folder that is no file, too long, or unreadable.
    #[error(transparent)]
    File(Box<TokenizerError>),
    /// No template has this name.
    #[error("no template is called {name:?}; there are {}", names())]
    Name {
        /// The name.
        name: String,
    },
    /// The checkpoint's template is none of the published ones.
    #[error(
        "the checkpoint's chat template is none of Kimi K2's (it begins {head:?}); choose one by name: {}",
        names()
    )]
    Unknown {
        /// Beginning of its text.
        head: String,
    },
}

fn names() -> String {
    Template::ALL.map(Template::name).join(", ")
}

impl Template {
    /// All templates.
    pub const ALL: [Self; 5] =
        [Self::K2Instruct, Self::K2Thinking, Self::K2Instruct0711, Self::K2Instruct0905Initial, Self::K25];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::K2Instruct => "k2-instruct",
            Self::K2Thinking => "k2-thinking",
            Self::K2Instruct0711 => "k2-instruct-0711",
            Self::K2Instruct0905Initial => "k2-instruct-0905-initial",
            Self::K25 => "k2.5",
        }
    }

    /// The template with this name.
    pub fn from_name(name: &str) -> Result<Self, TemplateError> {
        let named = Self::ALL.into_iter().find(|template| template.name() == name);
        named.ok_or_else(|| TemplateError::Name { name: name.to_owned() })
    }

    /// What this generation prints.
    pub fn form(self) -> &'static Form {
        match self {
            Self::K2Instruct => &K2_INSTRUCT,
            Self::K2Thinking => &K2_THINKING,
            Self::K2Instruct0711 => &K2_INSTRUCT_0711,
            Self::K2Instruct0905Initial => &K2_INSTRUCT_0905_INITIAL,
            Self::K25 => &K25,
        }
    }

    /// The template of a checkpoint folder; see [`Template::detect`].
    pub fn from_dir(dir: &Path) -> Result<Self, TemplateError> {
        Self::of_tokenizer(dir, json(&dir.join("config.json"))?["model_type"].as_str())
    }

    /// The template of a model of this `model_type` with the tokenizer in a folder; see [`Template::detect`].
    pub fn of_tokenizer(dir: &Path, model_type: Option<&str>) -> Result<Self, TemplateError> {
        let tokenizer_config = json(&dir.join(CONFIG_FILE))?;
        let in_config = tokenizer_config["chat_template"].as_str().map(str::to_owned);
        let own_file = bytes(&dir.join(TEMPLATE_FILE))?;
        let text = own_file.and_then(|file| String::from_utf8(file).ok()).or(in_config);
        let thinks = tokenizer_config["added_tokens_decoder"]
            .as_object()
            .is_some_and(|tokens| tokens.values().any(|token| token["content"] == "<think>"));
        Self::detect(text.as_deref(), model_type, thinks)
    }

    /// The template that goes with a checkpoint's own template text, or where it has none with its
    /// `model_type` and whether its vocabulary has thinking markers.
    pub fn detect(text: Option<&str>, model_type: Option<&str>, thinks: bool) -> Result<Self, TemplateError> {
        let Some(text) = text else {
            return Ok(match model_type {
                Some("kimi_k25") => Self::K25,
                _ if thinks => Self::K2Thinking,
                _ => Self::K2Instruct,
            });
        };
        let has = |words: &str| text.contains(words);
        match () {
            // Every generation has this; other families do not.
            () if !has("<|im_middle|>") => {
                Err(TemplateError::Unknown { head: text.chars().take(60).collect() })
            }
            () if has("tools_ts_str") || (has("<think>") && model_type == Some("kimi_k25")) => Ok(Self::K25),
            () if has("<think>") => Ok(Self::K2Thinking),
            () if has(K2_INSTRUCT_0711.default_system) => Ok(Self::K2Instruct0711),
            () if has("# Tools") => Ok(Self::K2Instruct0905Initial),
            () => Ok(Self::K2Instruct),
        }
    }
}

/// A JSON file of the folder, or null: which file must be there and whole is the tokenizer's and
/// the config's business.
fn json(path: &Path) -> Result<Value, TemplateError> {
    Ok(bytes(path)?.and_then(|file| serde_json::from_slice(&file).ok()).unwrap_or_default())
}

/// A file of the folder, if it is there.
fn bytes(path: &Path) -> Result<Option<Vec<u8>>, TemplateError> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TokenizerError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TemplateError::File(Box::new(error))),
    }
}
