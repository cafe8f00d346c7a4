//! The model's answer, parsed as it comes: reasoning, content and tool calls.
//!
//! K2 calls tools like this (docs/tool_call_guidance.md of MoonshotAI/Kimi-K2):
//!
//! ```text
//! TEXT<|tool_calls_section_begin|>
//!   <|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>{…}<|tool_call_end|> …
//! <|tool_calls_section_end|>
//! ```
//!
//! Four stages, each with its own file, each independent of how the input was cut into chunks:
//! [`lexer`] finds the markers (by token id, or in the text where there are no ids), [`reasoning`]
//! splits off the thoughts, [`calls`] is the state machine over sections and calls (with
//! [`call_id`] and [`arguments`]), and [`reply`] puts the pieces together again. Streaming and
//! whole answers go the same way, so they cannot disagree.
//!
//! Stop strings are for what people read: they are looked for between markers, in reasoning and
//! content, and not inside a call, which is data for a program and no use in part. A call in which
//! the answer ends all the same is told apart ([`Finished::cut_call`]).
//!
//! Text that spells a marker is data as long as token ids are known. Text alone cannot tell, which
//! is why matching text is only the fallback.

pub mod arguments;
pub mod call_id;
pub mod calls;
pub mod lexer;
pub mod reasoning;
pub mod reply;

pub use call_id::DeclaredTool;
pub use lexer::{Marker, Markers};
pub use reply::{Delta, FinishReason, Reply, ReplyCall};

use crate::{
    detokenizer::Detokenizer,
    message::Tool,
    stop::StopMatcher,
    tokenizer::{Tokenizer, UnknownToken},
};
use calls::CallMachine;
use lexer::{Lexer, Piece};
use reasoning::ReasoningSplit;

/// What the parser has to know about the request.
#[derive(Clone, Debug, Default)]
pub struct ParserOptions {
    /// False if no tools are declared or they are forbidden: then tool markers are text.
    pub calls: bool,
    /// The declared tools, to understand call ids that are not in K2's form.
    pub tools: Vec<DeclaredTool>,
    /// Calls made earlier in the conversation ([`crate::normalize::count_calls`]).
    pub history_calls: u64,
    /// True for a model that thinks: `<think>` at the start opens reasoning.
    pub thinking: bool,
    /// True if the prompt ended in `<think>`, so the answer begins inside it.
    pub think_prefilled: bool,
    /// Stop strings.
    pub stop: StopMatcher,
}

impl ParserOptions {
    /// Options for a request with these tools.
    pub fn with_tools(tools: &[Tool]) -> Self {
        Self { calls: true, tools: tools.iter().map(DeclaredTool::from).collect(), ..Self::default() }
    }
}

/// Why the model stopped writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It ended its turn (a stop token or a stop string).
    EndOfTurn,
    /// It was cut off by the token limit.
    Length,
}

/// Parses one answer. Feed it with [`push_token`](Self::push_token) or
/// [`push_text`](Self::push_text), then call [`finish`](Self::finish).
pub struct ToolCallParser {
    markers: Markers,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    lexer: Lexer,
    reasoning: ReasoningSplit,
    calls: CallMachine,
}

/// The end of an answer.
#[derive(Debug)]
pub struct Finished {
    /// The last pieces.
    pub deltas: Vec<Delta>,
    /// Why the answer ended, in OpenAI's words.
    pub finish_reason: FinishReason,
    /// The call, by its place, in which the answer ended: its arguments are no object.
    pub cut_call: Option<usize>,
    /// The stop string that ended it.
    pub stop: Option<String>,
    /// Ids of calls from which no tool could be read; they are not part of the answer. For the log.
    pub dropped: Vec<String>,
}

impl ToolCallParser {
    /// A parser at the start of an answer.
    pub fn new(options: ParserOptions, markers: Markers) -> Self {
        Self {
            lexer: Lexer::new(&markers, options.calls, options.thinking),
            detokenizer: Detokenizer::new(),
            stop: options.stop,
            reasoning: ReasoningSplit::new(options.thinking, options.think_prefilled),
            calls: CallMachine::new(options.tools, options.history_calls),
            markers,
        }
    }

    /// Takes the next token of the answer. Stop tokens are not part of it, and special tokens that
    /// are no markers leave no text.
    pub fn push_token(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<Vec<Delta>, UnknownToken> {
        let mut deltas = Vec::new();
        match self.markers.get(id).filter(|&marker| self.lexer.knows(marker)) {
            Some(marker) => {
                self.end_of_run(&mut deltas);
                self.lexed(Piece::Marker(marker, marker.spelling()), &mut deltas);
            }
            None if tokenizer.specials().get(id).is_some_and(|special| special.skipped) => {}
            None => {
                let text = self.detokenizer.push(tokenizer, id)?;
                self.text(&text, &mut deltas);
            }
        }
        Ok(deltas)
    }

    /// Takes more of the answer as text.
    pub fn push_text(&mut self, text: &str) -> Vec<Delta> {
        let mut deltas = Vec::new();
        self.text(text, &mut deltas);
        deltas
    }

    /// True once a stop string has been seen; what is pushed after it is ignored.
    pub fn stopped(&self) -> bool {
        self.stop.stopped()
    }

    /// True while what comes is reasoning.
    pub fn is_reasoning(&self) -> bool {
        self.reasoning.is_open()
    }

    /// Ends the answer.
    pub fn finish(mut self, reason: EndReason) -> Finished {
        let mut deltas = Vec::new();
        self.end_of_run(&mut deltas);
        if let Some(piece) = self.reasoning.finish() {
            self.calls.push(piece.as_piece(), &mut deltas);
        }
        let cut_off = reason == EndReason::Length && !self.stop.stopped();
        let cut_call = self.calls.finish(&mut deltas);
        let finish_reason = match self.calls.n_calls() {
            _ if cut_off => FinishReason::Length,
            0 => FinishReason::Stop,
            _ => FinishReason::ToolCalls,
        };
        let stop = self.stop.found().map(str::to_owned);
        Finished { deltas, finish_reason, cut_call, stop, dropped: self.calls.into_dropped() }
    }

    /// Text goes through the lexer, which only holds back what the next text decides.
    fn text(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        for piece in self.lexer.push(text) {
            self.lexed(piece.as_piece(), deltas);
        }
    }

    /// A run of text is over: nothing that is held back can become more.
    fn end_of_run(&mut self, deltas: &mut Vec<Delta>) {
        let tail = self.detokenizer.finish();
        self.text(&tail, deltas);
        if let Some(piece) = self.lexer.finish() {
            self.lexed(piece.as_piece(), deltas);
        }
        self.end_of_text(deltas);
    }

    /// What may be the head of a stop string is none.
    fn end_of_text(&mut self, deltas: &mut Vec<Delta>) {
        let held = self.stop.finish();
        self.passed(Piece::Text(&held), deltas);
    }

    /// Stop strings end what is no call.
    fn lexed(&mut self, piece: Piece<'_>, deltas: &mut Vec<Delta>) {
        match piece {
            _ if self.stop.stopped() => {}
            Piece::Text(text) if !self.calls.is_in_call() => {
                let text = self.stop.push(text);
                self.passed(Piece::Text(&text), deltas);
            }
            Piece::Text(_) => self.passed(piece, deltas),
            Piece::Marker(..) => {
                self.end_of_text(deltas);
                self.passed(piece, deltas);
            }
        }
    }

    fn passed(&mut self, piece: Piece<'_>, deltas: &mut Vec<Delta>) {
        if piece == Piece::Text("") {
            return;
        }
        for piece in self.reasoning.push(piece, deltas) {
            self.calls.push(piece.as_piece(), deltas);
        }
    }
}

/// Parses a whole answer given as text.
pub fn parse_text(options: ParserOptions, text: &str, reason: EndReason) -> Reply {
    let mut parser = ToolCallParser::new(options, Markers::Text);
    let mut reply = Reply::default();
    reply.extend(parser.push_text(text));
    reply.end(parser.finish(reason));
    reply
}

/// Parses a whole answer given as tokens.
pub fn parse_tokens(
    options: ParserOptions,
    tokenizer: &Tokenizer,
    ids: &[u32],
    reason: EndReason,
) -> Result<Reply, UnknownToken> {
    let mut parser = ToolCallParser::new(options, Markers::of(tokenizer));
    let mut reply = Reply::default();
    for &id in ids {
        reply.extend(parser.push_token(tokenizer, id)?);
    }
    reply.end(parser.finish(reason));
    Ok(reply)
}
