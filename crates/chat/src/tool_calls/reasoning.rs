//! Splitting off the reasoning.
//!
//! `<think>` opens reasoning at the very start of an answer (blanks before it are dropped), or the
//! prompt has opened it already; `</think>` closes it, and so does the beginning of a tool call,
//! because K2-Thinking sometimes forgets. Later think markers are text like any other: an answer,
//! or the arguments of a call, may speak about them.

use super::{
    lexer::{Marker, OwnedPiece, Piece},
    reply::{Delta, emit},
};

/// Where in the answer we are.
#[derive(Clone, Debug)]
enum State {
    /// Nothing but blanks so far.
    Start(String),
    /// Inside the reasoning.
    Open,
    /// After it, or there is none.
    Closed,
}

/// Takes reasoning out of a stream of pieces and passes the rest on.
#[derive(Clone, Debug)]
pub struct ReasoningSplit {
    state: State,
    /// True until the reasoning of a prefilled prompt has been announced.
    announce: bool,
}

impl ReasoningSplit {
    /// For an answer of a model that thinks or does not; `prefilled` if it begins inside reasoning.
    pub fn new(thinking: bool, prefilled: bool) -> Self {
        let state = match (thinking, prefilled) {
            (true, true) => State::Open,
            (true, false) => State::Start(String::new()),
            (false, _) => State::Closed,
        };
        Self { announce: matches!(state, State::Open), state }
    }

    /// True inside the reasoning.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Takes a piece; emits reasoning, returns what is not reasoning.
    pub fn push(&mut self, piece: Piece<'_>, deltas: &mut Vec<Delta>) -> Vec<OwnedPiece> {
        if std::mem::take(&mut self.announce) {
            emit(deltas, Delta::Reasoning(String::new()));
        }
        match (&mut self.state, piece) {
            (State::Start(blanks), Piece::Text(text)) if text.trim_start().is_empty() => {
                blanks.push_str(text);
                Vec::new()
            }
            (State::Start(_), Piece::Marker(Marker::ThinkBegin, _)) => {
                self.state = State::Open;
                emit(deltas, Delta::Reasoning(String::new()));
                Vec::new()
            }
            (State::Start(blanks), piece) => {
                let blanks = std::mem::take(blanks);
                self.state = State::Closed;
                let before = (!blanks.is_empty()).then_some(OwnedPiece::Text(blanks));
                before.into_iter().chain([outside(piece)]).collect()
            }
            (State::Open, Piece::Marker(Marker::ThinkEnd, _)) => {
                self.state = State::Closed;
                Vec::new()
            }
            (State::Open, Piece::Marker(Marker::SectionBegin | Marker::CallBegin, _)) => {
                self.state = State::Closed;
                vec![outside(piece)]
            }
            (State::Open, Piece::Text(text)) => {
                emit(deltas, Delta::Reasoning(text.to_owned()));
                Vec::new()
            }
            (State::Open, Piece::Marker(Marker::ThinkBegin | Marker::SpelledSectionBegin, spelling)) => {
                emit(deltas, Delta::Reasoning(spelling.to_owned()));
                Vec::new()
            }
            // Stray closing markers are swallowed here as everywhere.
            (State::Open, Piece::Marker(..)) => Vec::new(),
            (State::Closed, piece) => vec![outside(piece)],
        }
    }

    /// The end of the answer; blanks that no reasoning followed are content.
    pub fn finish(&mut self) -> Option<OwnedPiece> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Start(blanks) if !blanks.is_empty() => Some(OwnedPiece::Text(blanks)),
            _ => None,
        }
    }
}

/// A piece outside the reasoning, where think markers are text.
fn outside(piece: Piece<'_>) -> OwnedPiece {
    match piece {
        Piece::Marker(marker, spelling) if marker.is_think() => OwnedPiece::Text(spelling.to_owned()),
        Piece::Marker(marker, spelling) => OwnedPiece::Marker(marker, spelling),
        Piece::Text(text) => OwnedPiece::Text(text.to_owned()),
    }
}
