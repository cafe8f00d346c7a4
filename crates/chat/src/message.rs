//! Messages and tools in OpenAI's shape (platform.openai.com, "Create chat completion"), with
//! Moonshot's additions `reasoning_content` and `partial`.
//!
//! Reading is generous (content may be null or a list of parts, arguments a string or an object,
//! unknown fields are kept), because a server's history comes from many clients.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use crate::json::Json;

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; null and absent are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The speaker's name, printed instead of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls an assistant message makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// What an assistant message thought before it spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Moonshot's prefill: true on a last assistant message that the model is to continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
    /// Fields this type does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: Some(Content::Text(content.into())), ..Self::default() }
    }

    /// The calls made; empty for most messages.
    pub fn calls(&self) -> &[ToolCall] {
        self.tool_calls.as_deref().unwrap_or_default()
    }
}

/// The speaker of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The person.
    #[default]
    User,
    /// The model.
    Assistant,
    /// The result of a call.
    Tool,
    /// OpenAI's newer name for instructions.
    Developer,
    /// Any other; the turn format prints it as it is.
    Other(String),
}

impl Role {
    /// The role as written in messages and turns.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Developer => "developer",
            Self::Other(role) => role,
        }
    }
}

impl From<String> for Role {
    fn from(role: String) -> Self {
        [Self::System, Self::User, Self::Assistant, Self::Tool, Self::Developer]
            .into_iter()
            .find(|known| known.as_str() == role)
            .unwrap_or(Self::Other(role))
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// A plain string.
    Text(String),
    /// A list of parts, read as if written one after the other.
    Parts(Vec<Part>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Text(text)),
            parts @ Value::Array(_) => {
                serde_json::from_value(parts).map(Self::Parts).map_err(D::Error::custom)
            }
            _ => Err(D::Error::custom(
                "content must be a string, null or a list of parts like {\"type\": \"text\", \"text\": \"...\"}",
            )),
        }
    }
}

/// One part of a content list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// "text", "image_url", ...
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The text of a text part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The rest: `image_url` and the like.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Part {
    /// True if the turn format puts an image placeholder here.
    pub fn is_image(&self) -> bool {
        self.kind.as_deref() == Some("image")
            || self.extra.contains_key("image")
            || self.extra.contains_key("image_url")
    }
}

/// A call in an assistant message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that the result will name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// "function".
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is called.
    pub function: FunctionCall,
    /// Fields this type does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Name and arguments of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The tool.
    pub name: String,
    /// The arguments: by OpenAI's definition a string of JSON; some clients send the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Json>,
}

/// A declared tool: `{"type": "function", "function": {"name", "description", "parameters"}}`, kept
/// whole because every key of it is shown to the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tool(pub Json);

impl Tool {
    /// The name calls use; a server refuses a tool without one.
    pub fn name(&self) -> Option<&str> {
        self.function()?.get("name")?.as_str()
    }

    /// The JSON schema of the arguments.
    pub fn parameters(&self) -> Option<&Json> {
        self.function()?.get("parameters")
    }

    /// Whether calls have to fit the schema, as far as the client says so.
    pub fn strict(&self) -> Option<&Json> {
        self.function()?.get("strict")
    }

    fn function(&self) -> Option<&Json> {
        self.0.get("function")
    }
}
