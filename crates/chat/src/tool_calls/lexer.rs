//! Markers in the model's output.
//!
//! The tool-call and thinking markers are single tokens, so where token ids are known a marker is
//! an id and nothing else. Without ids they are found in the text, and text that may be the head of
//! a marker is held back. The singular `<|tool_call_section_begin|>`, which K2 writes now and then,
//! has no id: beside ids it is reported as spelled, for [`super::calls`] to judge by what follows.

use crate::tokenizer::Tokenizer;

/// What the markers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Tool calls follow.
    SectionBegin,
    /// No more tool calls.
    SectionEnd,
    /// A call's id follows.
    CallBegin,
    /// A call's arguments follow.
    ArgumentBegin,
    /// The call is complete.
    CallEnd,
    /// Reasoning follows.
    ThinkBegin,
    /// The reasoning is complete.
    ThinkEnd,
    /// The singular section begin, spelled with ordinary tokens.
    SpelledSectionBegin,
}

use Marker::*;

/// Spellings of the markers that are tokens.
const TOKENS: [(Marker, &str); 7] = [
    (SectionBegin, "<|tool_calls_section_begin|>"),
    (SectionEnd, "<|tool_calls_section_end|>"),
    (CallBegin, "<|tool_call_begin|>"),
    (ArgumentBegin, "<|tool_call_argument_begin|>"),
    (CallEnd, "<|tool_call_end|>"),
    (ThinkBegin, "<think>"),
    (ThinkEnd, "</think>"),
];

const SINGULAR_BEGIN: &str = "<|tool_call_section_begin|>";
const SINGULAR_END: &str = "<|tool_call_section_end|>";

impl Marker {
    /// True for the markers of reasoning.
    pub fn is_think(self) -> bool {
        matches!(self, ThinkBegin | ThinkEnd)
    }

    /// How the marker's token is spelled.
    pub fn spelling(self) -> &'static str {
        TOKENS.iter().find(|(marker, _)| *marker == self).map_or(SINGULAR_BEGIN, |(_, spelling)| spelling)
    }
}

/// How markers are recognised.
#[derive(Clone, Debug)]
pub enum Markers {
    /// By token id.
    Ids(Vec<(u32, Marker)>),
    /// By their spelling in the text.
    Text,
}

impl Markers {
    /// By id if the vocabulary has all tool-call markers, else by text.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let id = |(marker, spelling): (Marker, &str)| Some((tokenizer.specials().id(spelling)?, marker));
        let ids: Vec<_> = TOKENS.into_iter().filter_map(id).collect();
        let calls = ids.iter().filter(|(_, marker)| !marker.is_think()).count();
        if calls == TOKENS.iter().filter(|(marker, _)| !marker.is_think()).count() {
            Self::Ids(ids)
        } else {
            Self::Text
        }
    }

    /// The marker that is this token.
    pub fn get(&self, id: u32) -> Option<Marker> {
        match self {
            Self::Ids(ids) => ids.iter().find(|(known, _)| *known == id).map(|(_, marker)| *marker),
            Self::Text => None,
        }
    }
}

/// Output of the lexer: text, or a marker with its spelling (in the wrong place it is text).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Plain text, not empty.
    Text(&'t str),
    /// A marker.
    Marker(Marker, &'static str),
}

/// A [`Piece`] that owns its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedPiece {
    /// Plain text.
    Text(String),
    /// A marker.
    Marker(Marker, &'static str),
}

impl OwnedPiece {
    /// The piece.
    pub fn as_piece(&self) -> Piece<'_> {
        match self {
            Self::Text(text) => Piece::Text(text),
            Self::Marker(marker, spelling) => Piece::Marker(*marker, spelling),
        }
    }
}

/// Finds markers in a stream of text.
#[derive(Clone, Debug)]
pub struct Lexer {
    calls: bool,
    thinking: bool,
    /// Spellings to look for in text. All begin with '<', none begins another.
    spellings: Vec<(Marker, &'static str)>,
    /// Text that may be the head of a marker.
    held: String,
}

impl Lexer {
    /// A lexer that knows the markers of tool calls, of thinking, or both.
    pub fn new(markers: &Markers, calls: bool, thinking: bool) -> Self {
        let mut lexer = Self { calls, thinking, spellings: Vec::new(), held: String::new() };
        lexer.spellings = match markers {
            Markers::Ids(_) => vec![(SpelledSectionBegin, SINGULAR_BEGIN)],
            Markers::Text => {
                let singular = [(SectionBegin, SINGULAR_BEGIN), (SectionEnd, SINGULAR_END)];
                TOKENS.into_iter().chain(singular).collect()
            }
        };
        lexer.spellings =
            lexer.spellings.iter().copied().filter(|(marker, _)| lexer.knows(*marker)).collect();
        lexer
    }

    /// False for markers that this answer should not contain; they are text.
    pub fn knows(&self, marker: Marker) -> bool {
        if marker.is_think() { self.thinking } else { self.calls }
    }

    /// Takes more text; gives what is decided.
    pub fn push(&mut self, text: &str) -> Vec<OwnedPiece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        let mut done = 0; // before here everything is in `pieces`
        let mut at = 0;
        while let Some(found) = self.held[at..].find('<') {
            at += found;
            let rest = &self.held[at..];
            if let Some(&(marker, spelling)) =
                self.spellings.iter().find(|(_, spelling)| rest.starts_with(spelling))
            {
                push_text(&mut pieces, &self.held[done..at]);
                pieces.push(OwnedPiece::Marker(marker, spelling));
                at += spelling.len();
                done = at;
            } else if self.spellings.iter().any(|(_, spelling)| spelling.starts_with(rest)) {
                push_text(&mut pieces, &self.held[done..at]);
                self.held.drain(..at);
                return pieces;
            } else {
                at += 1;
            }
        }
        push_text(&mut pieces, &self.held[done..]);
        self.held.clear();
        pieces
    }

    /// The run of text is over: what was held back is text.
    pub fn finish(&mut self) -> Option<OwnedPiece> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then_some(OwnedPiece::Text(held))
    }
}

fn push_text(pieces: &mut Vec<OwnedPiece>, text: &str) {
    if !text.is_empty() {
        pieces.push(OwnedPiece::Text(text.to_owned()));
    }
}
