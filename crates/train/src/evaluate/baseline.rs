//! A program to compare with: keywords choose the tool, patterns find the arguments.
//!
//! It takes the tool whose name and description share most words with the request, numbers for parameters that
//! are numbers, and for texts what stands in quotes, or behind a preposition, or in capitals. This is what
//! somebody would write in an hour. It knows nothing of the catalogue.

use k2_chat::python_json::{Style, dumps};
use k2_chat::tool_calls::ReplyCall;
use k2_chat::{Content, FinishReason, Json, Message, Reply, Role, Tool};
use std::collections::HashSet;

use super::EvaluateError;

/// Words that say nothing about a tool.
const COMMON: &str = " a an the of in for to on at is are what how me my you it and or do does can could please with this that get \
    returns return tool use call when user asks about given current i need want ";

/// Words that a value often follows.
const PREPOSITIONS: [&str; 8] = ["in", "of", "for", "to", "at", "about", "is", "from"];

/// Answers like a model would, at once.
#[allow(clippy::unnecessary_wraps)] // the type of an answerer
pub fn answer(messages: &[Message], tools: &[Tool]) -> Result<Reply, EvaluateError> {
    let content = |message: &Message| match &message.content {
        Some(Content::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let Some(last) = messages.last() else { return Ok(said("Hello!".to_owned())) };
    if last.role == Role::Tool {
        let results = messages.iter().rev().take_while(|message| message.role == Role::Tool);
        return Ok(said(format!("The result is {}.", results.map(content).collect::<Vec<_>>().join(", "))));
    }
    let request = content(last);
    match best(&request, tools) {
        Some(tool) => Ok(call(tool, &request)),
        None => Ok(said("Sorry, I can't do that: none of my tools can do it.".to_owned())),
    }
}

fn said(content: String) -> Reply {
    Reply { content: Some(content), ..Reply::default() }
}

/// The tool that shares most words with the request; none if that is no word.
fn best<'t>(request: &str, tools: &'t [Tool]) -> Option<&'t Tool> {
    let asked = words(request);
    let score = |tool: &&Tool| {
        let description =
            tool.0.get("function").and_then(|function| function.get("description")).and_then(Json::as_str);
        let told = words(&format!("{} {}", tool.name().unwrap_or_default(), description.unwrap_or_default()));
        told.intersection(&asked).count()
    };
    tools.iter().max_by_key(score).filter(|tool| score(tool) > 0)
}

fn words(text: &str) -> HashSet<String> {
    let split = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    split.filter(|word| word.len() > 1 && !COMMON.contains(&format!(" {word} "))).collect()
}

fn call(tool: &Tool, request: &str) -> Reply {
    let name = tool.name().unwrap_or_default();
    let (mut numbers, mut texts) = (numbers(request).into_iter(), texts(request).into_iter());
    let mut arguments = indexmap::IndexMap::new();
    if let Some(Json::Object(properties)) = tool.parameters().and_then(|schema| schema.get("properties")) {
        for (key, schema) in properties {
            let value = match schema.get("type").and_then(Json::as_str) {
                Some("number" | "integer") => numbers.next().map(Json::Number),
                _ => texts.next().map(Json::String),
            };
            arguments.extend(value.map(|value| (key.clone(), value)));
        }
    }
    let arguments = dumps(&Json::Object(arguments), Style::Default);
    let call = ReplyCall { id: format!("functions.{name}:0"), name: name.to_owned(), arguments };
    Reply { tool_calls: vec![call], finish_reason: FinishReason::ToolCalls, ..Reply::default() }
}

fn numbers(request: &str) -> Vec<String> {
    let split = request.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    split.map(|number| number.trim_matches('.').to_owned()).filter(|number| !number.is_empty()).collect()
}

/// Candidates for texts: quoted ones; an expression; what follows prepositions.
fn texts(request: &str) -> Vec<String> {
    let quoted: Vec<String> = request.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    if !quoted.is_empty() {
        return quoted;
    }
    let bare = request.trim_end_matches(['?', '.', '!']);
    if bare.contains(['*', '/', '+']) {
        let expression: String =
            bare.chars().filter(|c| c.is_ascii_digit() || "+-*/().^".contains(*c)).collect();
        return vec![expression];
    }
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for word in bare.split(' ') {
        let word = word.trim_matches([',', '?']);
        match (PREPOSITIONS.contains(&word.to_lowercase().as_str()), open) {
            (true, _) => {
                open = true;
                found.push(String::new());
            }
            (false, true) => {
                let value = found.last_mut().map(|value| {
                    value.push_str(if value.is_empty() { "" } else { " " });
                    value.push_str(word);
                });
                open = value.is_some();
            }
            _ => {}
        }
    }
    found.reverse();
    found.into_iter().filter(|value| !value.is_empty()).collect()
}
