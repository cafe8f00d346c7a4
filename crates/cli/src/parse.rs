//! `k2 parse`: answers of the model to messages, as JSON lines with the field names of the golden files.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use k2_chat::tool_calls::{DeclaredTool, Markers};
use k2_chat::{EndReason, ParserOptions, Reply, StopMatcher, Tokenizer, Tool, ToolCallParser};
use serde::Deserialize;
use serde_json::Value;

use crate::{json_lines, tokenizer};

/// The model's answers to messages: {"model_output" or "ids", "tools", "history_calls", "stop_reason",
/// "thinking", "think_prefilled", "markers"} per line gives {"content", "tool_calls", "finish_reason",
/// "reasoning_content"}.
///
/// Where a line has ids, markers are found by them; text is the fallback.
#[derive(Debug, Args)]
pub(crate) struct ParseArgs {
    /// Folder with tiktoken.model and tokenizer_config.json, or a GGUF file.
    #[arg(value_name = "DIR")]
    tokenizer: PathBuf,
    /// Feed the parser as a stream would: the text in random chunks, cut by this seed, where markers may be
    /// found in the text; else token by token.
    #[arg(long, value_name = "SEED")]
    chunks: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    model_output: Option<String>,
    ids: Option<Vec<u32>>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    history_calls: u64,
    #[serde(default)]
    stop_reason: StopReason,
    #[serde(default)]
    thinking: bool,
    #[serde(default)]
    think_prefilled: bool,
    #[serde(default)]
    markers: MarkersBy,
}

/// Why the model stopped.
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum StopReason {
    #[default]
    Stop,
    Length,
}

/// How markers must be found.
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum MarkersBy {
    #[default]
    Any,
    Ids,
    Text,
}

/// What the parser is fed with.
enum Feed {
    Tokens(Vec<u32>),
    Text(String),
}

/// Runs the command.
pub(crate) fn run(args: &ParseArgs) -> Result<(), Box<dyn Error>> {
    let tokenizer = tokenizer::open(&args.tokenizer)?;
    json_lines::answer_each(|answer: Answer| {
        let thinking = answer.thinking;
        let reply = parse(&tokenizer, answer, args.chunks)?;
        let mut shown = serde_json::to_value(&reply)?;
        if thinking && reply.reasoning_content.is_none() {
            shown["reasoning_content"] = Value::Null;
        }
        Ok(shown)
    })
}

fn parse(tokenizer: &Tokenizer, answer: Answer, chunks: Option<u64>) -> Result<Reply, Box<dyn Error>> {
    let end = match answer.stop_reason {
        StopReason::Stop => EndReason::EndOfTurn,
        StopReason::Length => EndReason::Length,
    };
    let options = answer.options();
    let (mut parser, feed) = match answer.feed(chunks.is_some())? {
        Feed::Tokens(ids) => (ToolCallParser::new(options, Markers::of(tokenizer)), Feed::Tokens(ids)),
        Feed::Text(text) => (ToolCallParser::new(options, Markers::Text), Feed::Text(text)),
    };
    let mut reply = Reply::default();
    match feed {
        Feed::Tokens(ids) => {
            for id in ids {
                reply.extend(parser.push_token(tokenizer, id)?);
            }
        }
        Feed::Text(text) => cut(&text, chunks).for_each(|chunk| reply.extend(parser.push_text(chunk))),
    }
    reply.end(parser.finish(end));
    Ok(reply)
}

impl Answer {
    fn options(&self) -> ParserOptions {
        ParserOptions {
            calls: true,
            tools: self.tools.iter().flatten().map(DeclaredTool::from).collect(),
            history_calls: self.history_calls,
            thinking: self.thinking,
            think_prefilled: self.think_prefilled,
            stop: StopMatcher::default(),
        }
    }

    /// Ids if there are any, unless the text is asked for.
    fn feed(self, as_text: bool) -> Result<Feed, &'static str> {
        match (self.markers, self.ids, self.model_output) {
            (MarkersBy::Any, Some(_), Some(text)) if as_text => Ok(Feed::Text(text)),
            (MarkersBy::Any | MarkersBy::Ids, Some(ids), _) => Ok(Feed::Tokens(ids)),
            (MarkersBy::Any | MarkersBy::Text, _, Some(text)) => Ok(Feed::Text(text)),
            (MarkersBy::Ids, None, _) => Err("`markers` is \"ids\", but there is no field `ids`"),
            (MarkersBy::Text, _, None) => Err("`markers` is \"text\", but there is no field `model_output`"),
            (MarkersBy::Any, None, None) => Err("there is neither a field `model_output` nor `ids`"),
        }
    }
}

/// The text whole, or cut at random places: seldom or often, depending on the seed.
fn cut(text: &str, seed: Option<u64>) -> impl Iterator<Item = &str> {
    let mut state = seed.unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13; // xorshift64, Marsaglia 2003
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let rarity = 1 + random() % 40;
    text.split_inclusive(move |_: char| seed.is_some() && random().is_multiple_of(rarity))
}
