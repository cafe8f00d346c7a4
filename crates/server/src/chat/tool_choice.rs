//! `tool_choice` and `parallel_tool_calls`: which tools an answer may or must call.

use k2_chat::Tool;
use serde_json::Value;

use crate::body::Body;
use crate::error::ApiError;

/// What the model may do with the tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// Call them or not.
    Auto,
    /// No calls.
    None,
    /// At least one call.
    Required,
    /// A call of the tool at this place.
    Function(usize),
}

impl ToolChoice {
    /// Reads it. Without tools only what needs none is accepted.
    pub(super) fn take(body: &mut Body, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
        let choice = match body.optional::<Value>("tool_choice")? {
            None => ToolChoice::Auto,
            Some(Value::String(choice)) => match choice.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                _ => return Err(unknown(&choice.into())),
            },
            Some(choice) => ToolChoice::Function(named(&choice, tools)?),
        };
        match choice {
            ToolChoice::Required if tools.is_empty() => {
                let message = "`tool_choice` is \"required\", but `tools` declares none";
                Err(ApiError::field("tool_choice", message))
            }
            choice => Ok(choice),
        }
    }
}

/// `{"type": "function", "function": {"name": …}}`, or the name beside the type as in the Responses API.
fn named(choice: &Value, tools: &[Tool]) -> Result<usize, ApiError> {
    let name = choice["function"]["name"].as_str().or(choice["name"].as_str());
    let Some(name) = name.filter(|_| choice["type"] == "function") else { return Err(unknown(choice)) };
    let place = tools.iter().position(|tool| tool.name() == Some(name));
    place.ok_or_else(|| {
        let message = format!("`tool_choice` names the tool {name:?}, which `tools` does not declare");
        ApiError::field("tool_choice", message)
    })
}

fn unknown(choice: &Value) -> ApiError {
    let expected = r#""auto", "none", "required" or {"type": "function", "function": {"name": ...}}"#;
    ApiError::field("tool_choice", format!("`tool_choice` is {choice}, expected {expected}"))
}
