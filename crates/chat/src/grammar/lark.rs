//! The turn format as a grammar in llguidance's dialect of Lark (its docs/syntax.md): `<[id]>` is one token,
//! `%json` a schema.
//!
//! ```text
//! start: section | call | content
//! section: <[section_begin]> call+ <[section_end]>
//! call: <[call_begin]> (tool_0 | …) <[call_end]>
//! tool_0: "functions.NAME:" COUNTER <[argument_begin]> json_0
//! ```

use std::fmt::Write as _;

use serde_json::json;

use super::schema::Schema;
use super::{ContentForm, GrammarError, Wanted};
use crate::tokenizer::Tokenizer;

/// The ids of the markers of calls.
#[derive(Clone, Copy, Debug)]
pub struct MarkerIds {
    /// `<|tool_calls_section_begin|>`
    pub section_begin: u32,
    /// `<|tool_calls_section_end|>`
    pub section_end: u32,
    /// `<|tool_call_begin|>`
    pub call_begin: u32,
    /// `<|tool_call_argument_begin|>`
    pub argument_begin: u32,
    /// `<|tool_call_end|>`
    pub call_end: u32,
}

impl MarkerIds {
    /// Those of a tokenizer, or the first that it does not have.
    pub fn of(tokenizer: &Tokenizer) -> Result<MarkerIds, &'static str> {
        let id = |marker| tokenizer.specials().id(marker).ok_or(marker);
        Ok(MarkerIds {
            section_begin: id("<|tool_calls_section_begin|>")?,
            section_end: id("<|tool_calls_section_end|>")?,
            call_begin: id("<|tool_call_begin|>")?,
            argument_begin: id("<|tool_call_argument_begin|>")?,
            call_end: id("<|tool_call_end|>")?,
        })
    }

    /// All of them.
    pub fn all(&self) -> [u32; 5] {
        let MarkerIds { section_begin, section_end, call_begin, argument_begin, call_end } = *self;
        [section_begin, section_end, call_begin, argument_begin, call_end]
    }
}

/// The text of a grammar with these schemas, all of what is wanted; none where everything is free.
pub fn grammar(
    wanted: Wanted<'_>,
    schemas: &[Schema],
    markers: &Result<MarkerIds, &'static str>,
) -> Result<Option<String>, GrammarError> {
    let calls = wanted.calls.filter(|calls| !calls.tools.is_empty());
    let mut alternatives = Vec::new();
    let mut text = String::new();
    if let Some(calls) = calls {
        let markers = markers.map_err(|marker| GrammarError::NoMarker { marker })?;
        alternatives.push("section");
        if let ContentForm::Free = wanted.content {
            alternatives.push("call"); // some models forget the section
        }
        let several = if calls.parallel { "+" } else { "" };
        let of_tools: Vec<&Schema> = schemas.iter().filter(|schema| schema.name.is_some()).collect();
        text += &section(&of_tools, &markers, several);
    }
    if let ContentForm::Json { .. } = wanted.content {
        alternatives.push("content");
        text += &json_rule("content", schemas.last());
    }
    let start = || format!("start: {}\n", alternatives.join(" | "));
    Ok((!alternatives.is_empty()).then(|| start() + &text))
}

/// A grammar of one schema alone.
pub fn json(schema: &Schema) -> String {
    json_rule("start", Some(schema))
}

fn section(schemas: &[&Schema], markers: &MarkerIds, several: &str) -> String {
    let MarkerIds { section_begin, section_end, call_begin, argument_begin, call_end } = markers;
    let tools: Vec<String> = (0..schemas.len()).map(|index| format!("tool_{index}")).collect();
    let mut text = format!("section: <[{section_begin}]> call{several} <[{section_end}]>\n");
    let _ = writeln!(text, "call: <[{call_begin}]> ({}) <[{call_end}]>", tools.join(" | "));
    text += "COUNTER: /0|[1-9][0-9]{0,3}/\n";
    for (index, schema) in schemas.iter().enumerate() {
        let head = json!(format!("functions.{}:", schema.name.as_deref().unwrap_or_default()));
        let _ = writeln!(text, "tool_{index}: {head} COUNTER <[{argument_begin}]> json_{index}");
        text += &json_rule(&format!("json_{index}"), Some(schema));
    }
    text
}

/// Compact JSON: at most one blank after `,` and `:`, as the model was trained.
fn json_rule(name: &str, schema: Option<&Schema>) -> String {
    let mut value = schema.map(|schema| schema.value.clone()).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        let options = json!({ "whitespace_flexible": false, "item_separator": ", ?", "key_separator": ": ?", "lenient": true });
        members.insert("x-guidance".to_owned(), options);
    }
    format!("{name}: %json {value}\n")
}
