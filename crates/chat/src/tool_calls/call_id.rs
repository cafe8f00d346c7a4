//! Which tool does the model call?
//!
//! The id between `<|tool_call_begin|>` and `<|tool_call_argument_begin|>` is the only place that
//! names the tool. It should read `functions.NAME:IDX`; seen in the wild are ids without prefix or
//! index, with underscores for both (clients that sanitise ids), bare counters, and ids of other
//! servers copied from the history. Names may contain dots, hyphens and letters of any script. What
//! is not understood is not guessed: then the call is dropped.

use crate::{json::Json, message::Tool};

/// The part of a tool's declaration that helps to understand calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredTool {
    name: String,
    properties: Vec<String>,
    required: Vec<String>,
}

impl From<&Tool> for DeclaredTool {
    fn from(tool: &Tool) -> Self {
        let parameters = tool.parameters();
        let keys = |json: &Json| match json {
            Json::Object(members) => members.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let strings = |json: &Json| match json {
            Json::Array(items) => items.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Self {
            name: tool.name().unwrap_or_default().to_owned(),
            properties: parameters.and_then(|schema| schema.get("properties")).map(keys).unwrap_or_default(),
            required: parameters.and_then(|schema| schema.get("required")).map(strings).unwrap_or_default(),
        }
    }
}

/// What a call's id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallId {
    /// The tool, and the model's counter if it wrote one.
    Named(String, Option<u64>),
    /// No tool, but the form of an id: the arguments may tell.
    Opaque,
    /// Nothing that can be understood.
    Unknown,
}

/// Reads an id.
pub fn read(id: &str, tools: &[DeclaredTool]) -> CallId {
    let id = id.trim();
    if let Some((name, counter)) = id.rsplit_once(':')
        && is_digits(counter)
    {
        return read_name(name, tools)
            .map_or(CallId::Unknown, |name| CallId::Named(name, parse_counter(counter)));
    }
    let declared = |name: &str| tools.iter().any(|tool| tool.name == name);
    if let Some(name) = read_name(id, tools).filter(|name| declared(name)) {
        return CallId::Named(name, None);
    }
    if let Some((name, counter)) = id.strip_prefix("functions_").and_then(|rest| rest.rsplit_once('_'))
        && declared(name)
        && is_digits(counter)
    {
        return CallId::Named(name.to_owned(), parse_counter(counter));
    }
    match is_opaque(id) {
        true if tools.len() == 1 => CallId::Named(tools[0].name.clone(), None),
        true => CallId::Opaque,
        false => CallId::Unknown,
    }
}

/// The name in an id without its counter. The prefix may be missing or sanitised, and names may
/// begin like it, so the reading that is a declared tool wins.
fn read_name(text: &str, tools: &[DeclaredTool]) -> Option<String> {
    let readings = [text.strip_prefix("functions."), Some(text), text.strip_prefix("functions_")];
    let mut names = readings.into_iter().flatten().filter(|name| is_name(name));
    let first = names.clone().next()?;
    let declared = names.find(|name| tools.iter().any(|tool| tool.name == *name));
    Some(declared.unwrap_or(first).to_owned())
}

/// A counter beyond this is no counter; the next one of the conversation is taken instead.
pub const MAX_COUNTER: u64 = u64::MAX / 2;

fn parse_counter(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|&counter| counter <= MAX_COUNTER)
}

/// The only tool that takes these arguments: it has all their keys, and they have all it requires.
pub fn infer<'t>(arguments: &str, tools: &'t [DeclaredTool]) -> Option<&'t str> {
    let arguments = Json::parse(arguments).ok()?;
    let Json::Object(arguments) = arguments else { return None };
    let mut fitting = tools.iter().filter(|tool| {
        arguments.keys().all(|key| tool.properties.contains(key))
            && tool.required.iter().all(|key| arguments.contains_key(key))
    });
    let only = fitting.next()?;
    fitting.next().is_none().then_some(only.name.as_str())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "<>|:".contains(c))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A bare counter, an id of OpenAI's or Anthropic's servers, or a UUID.
fn is_opaque(id: &str) -> bool {
    is_digits(id) || ["call_", "toolu_", "fc_"].iter().any(|prefix| id.starts_with(prefix)) || is_uuid(id)
}

/// 8-4-4-4-12 hexadecimal digits, the hyphens may be missing.
fn is_uuid(id: &str) -> bool {
    let hyphens = id.len() == 36 && [8, 13, 18, 23].iter().all(|&at| id.as_bytes()[at] == b'-');
    let digits: usize = id.bytes().filter(u8::is_ascii_hexdigit).count();
    digits == 32 && (id.len() == 32 || (hyphens && id.len() == 36))
}
