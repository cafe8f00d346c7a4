//! Every line of the tool-call golden files: whole, by single tokens and characters, in many
//! random chunkings.

use k2_chat::{
    EndReason, ParserOptions, Reply, StopMatcher, Tokenizer, Tool, ToolCallParser,
    tool_calls::{DeclaredTool, Markers, parse_text, parse_tokens},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixtures;

/// Random chunkings tried per case.
const CHUNKINGS: u64 = 150;

#[derive(Deserialize)]
struct Case {
    id: String,
    model_output: String,
    ids: Vec<u32>,
    expected: Value,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    history_calls: u64,
    stop_reason: Option<String>,
    #[serde(default)]
    thinking: bool,
    #[serde(default)]
    think_prefilled: bool,
    markers: Option<String>,
}

impl Case {
    fn options(&self) -> ParserOptions {
        ParserOptions {
            calls: true,
            tools: self.tools.iter().map(DeclaredTool::from).collect(),
            history_calls: self.history_calls,
            thinking: self.thinking,
            think_prefilled: self.think_prefilled,
            stop: StopMatcher::default(),
        }
    }

    fn end(&self) -> EndReason {
        match self.stop_reason.as_deref() {
            Some("length") => EndReason::Length,
            _ => EndReason::EndOfTurn,
        }
    }

    fn compare(&self, reply: &Reply, how: &str) {
        let mut got = serde_json::to_value(reply).unwrap();
        if self.thinking && reply.reasoning_content.is_none() {
            got["reasoning_content"] = Value::Null;
        }
        assert_eq!(got, self.expected, "{} {how}", self.id);
    }
}

/// A parser fed piece by piece.
fn stream<T>(
    case: &Case,
    markers: Markers,
    chunks: &[T],
    feed: impl Fn(&mut ToolCallParser, &T) -> Vec<k2_chat::Delta>,
) -> Reply {
    let mut parser = ToolCallParser::new(case.options(), markers);
    let mut reply = Reply::default();
    for chunk in chunks {
        reply.extend(feed(&mut parser, chunk));
    }
    reply.end(parser.finish(case.end()));
    reply
}

fn check(tokenizer: &Tokenizer, case: &Case) {
    let by_token = |parser: &mut ToolCallParser, id: &u32| parser.push_token(tokenizer, *id).unwrap();
    case.compare(&parse_tokens(case.options(), tokenizer, &case.ids, case.end()).unwrap(), "tokens, by id");
    if case.markers.as_deref() == Some("ids") {
        return;
    }
    let text = &case.model_output;
    case.compare(&parse_text(case.options(), text, case.end()), "text");
    case.compare(&stream(case, Markers::Text, &case.ids, by_token), "tokens, by text");
    let feed = |parser: &mut ToolCallParser, chunk: &&str| parser.push_text(chunk);
    let characters: Vec<&str> = text.split_inclusive(|_| true).collect();
    case.compare(&stream(case, Markers::Text, &characters, feed), "characters");
    for seed in 0..CHUNKINGS {
        case.compare(&stream(case, Markers::Text, &cut(text, seed), feed), &format!("chunking {seed}"));
    }
}

/// Cuts a text at random places, seldom or often depending on the seed.
fn cut(text: &str, seed: u64) -> Vec<&str> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let often = 1 + random() % 40;
    text.split_inclusive(move |_: char| random() % often == 0).collect()
}

#[test]
fn every_line() {
    let lines = fixtures::lines("toolcalls");
    let Some(tokenizer) = fixtures::kimi() else { return };
    for line in &lines {
        check(tokenizer, &serde_json::from_str(line).unwrap());
    }
    println!("{} lines", lines.len());
}

#[test]
fn whole_reply_is_json_of_the_fixtures_shape() {
    let options = ParserOptions { calls: true, ..ParserOptions::default() };
    let reply =
        parse_text(options, "<|tool_call_begin|>f:0<|tool_call_argument_begin|>{}", EndReason::EndOfTurn);
    let expected = json!({"content": null, "tool_calls": [{"id": "functions.f:0", "name": "f", "arguments": "{}"}], "finish_reason": "tool_calls"});
    assert_eq!(serde_json::to_value(reply).unwrap(), expected);
}
