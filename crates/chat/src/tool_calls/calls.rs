//! The state machine over sections and calls.
//!
//! What an honest state machine needs to survive is listed by the failures others have met: ends
//! that are missing, sections without begin, begins without an id, text between the calls. So every
//! state answers every marker, what makes no sense is dropped, and no marker ever leaks into text.

use std::collections::{BTreeSet, HashMap};

use super::{
    arguments::Arguments,
    call_id::{self, CallId, DeclaredTool},
    lexer::{Marker, Piece},
    reply::{Delta, emit},
};

/// Turns pieces into content and calls.
#[derive(Clone, Debug)]
pub struct CallMachine {
    tools: Vec<DeclaredTool>,
    history_calls: u64,
    state: State,
    /// Calls given out so far.
    n_calls: usize,
    /// Counters used in this answer, by tool.
    used: HashMap<String, BTreeSet<u64>>,
    dropped: Vec<String>,
    content: ContentGate,
}

#[derive(Clone, Debug)]
enum State {
    /// Before any section or call: text is content.
    Content,
    /// Between calls and after them: text is dropped.
    Between,
    /// Inside a call's id.
    Id(String),
    /// Inside the arguments of a call that has been announced.
    Arguments(usize, Arguments),
    /// Inside the arguments of a call whose tool they have to tell.
    Anonymous { id: String, text: String },
}

impl CallMachine {
    /// A machine at the start of an answer.
    pub fn new(tools: Vec<DeclaredTool>, history_calls: u64) -> Self {
        Self {
            tools,
            history_calls: history_calls.min(call_id::MAX_COUNTER),
            state: State::Content,
            n_calls: 0,
            used: HashMap::new(),
            dropped: Vec::new(),
            content: ContentGate::default(),
        }
    }

    /// Takes a piece.
    pub fn push(&mut self, piece: Piece<'_>, deltas: &mut Vec<Delta>) {
        match piece {
            Piece::Text(text) => self.text(text, deltas),
            Piece::Marker(Marker::SpelledSectionBegin, spelling) => match self.state {
                State::Content => self.content.spelled(spelling, deltas),
                _ => self.text(spelling, deltas),
            },
            Piece::Marker(Marker::SectionBegin, _) => {
                if let State::Content = self.state {
                    self.content.drop_spelled();
                    self.state = State::Between;
                }
            }
            Piece::Marker(Marker::CallBegin, _) => {
                self.content.drop_spelled();
                let _ = self.close(true, deltas);
                self.state = State::Id(String::new());
            }
            Piece::Marker(Marker::ArgumentBegin, _) => {
                if let State::Id(id) = &mut self.state {
                    let id = std::mem::take(id);
                    self.state = self.open(&id, deltas);
                }
            }
            Piece::Marker(Marker::CallEnd | Marker::SectionEnd, _) => {
                let _ = self.close(true, deltas);
            }
            // The reasoning split leaves none.
            Piece::Marker(Marker::ThinkBegin | Marker::ThinkEnd, _) => {}
        }
    }

    /// The end of the answer. Gives the call, by its place, that it leaves unfinished.
    pub fn finish(&mut self, deltas: &mut Vec<Delta>) -> Option<usize> {
        let cut_call = self.close(false, deltas).err();
        if self.n_calls == 0 {
            self.content.finish(deltas);
        }
        cut_call
    }

    /// Whether what comes belongs to a call.
    pub fn is_in_call(&self) -> bool {
        matches!(self.state, State::Id(_) | State::Arguments(..) | State::Anonymous { .. })
    }

    /// Calls given out so far.
    pub fn n_calls(&self) -> usize {
        self.n_calls
    }

    /// Ids of the calls that could not be understood.
    pub fn into_dropped(self) -> Vec<String> {
        self.dropped
    }

    fn text(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        match &mut self.state {
            State::Content => self.content.push(text, deltas),
            State::Between => {}
            State::Id(id) => id.push_str(text),
            State::Arguments(index, arguments) => emit_arguments(*index, arguments.push(text), deltas),
            State::Anonymous { text: arguments, .. } => arguments.push_str(text),
        }
    }

    /// The arguments begin: is the tool known?
    fn open(&mut self, id: &str, deltas: &mut Vec<Delta>) -> State {
        match call_id::read(id, &self.tools) {
            CallId::Named(name, counter) => {
                State::Arguments(self.announce(&name, counter, deltas), Arguments::default())
            }
            CallId::Opaque => State::Anonymous { id: id.to_owned(), text: String::new() },
            CallId::Unknown => {
                self.dropped.push(id.to_owned());
                State::Between
            }
        }
    }

    /// Whatever call is open ends here. An error is its place, if its arguments are no object.
    fn close(&mut self, complete: bool, deltas: &mut Vec<Delta>) -> Result<(), usize> {
        if let State::Content = self.state {
            return Ok(()); // a stray end
        }
        match std::mem::replace(&mut self.state, State::Between) {
            State::Arguments(index, arguments) => {
                let (rest, is_object) = arguments.finish(complete);
                emit_arguments(index, rest, deltas);
                if is_object { Ok(()) } else { Err(index) }
            }
            State::Anonymous { id, text } => self.close_anonymous(id, &text, complete, deltas),
            // An id whose arguments never came is no call.
            State::Id(id) if !id.trim().is_empty() => {
                self.dropped.push(id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close_anonymous(
        &mut self,
        id: String,
        text: &str,
        complete: bool,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), usize> {
        let mut arguments = Arguments::default();
        let text = arguments.push(text);
        let (rest, is_object) = arguments.finish(complete);
        let text = text + &rest;
        let Some(name) = call_id::infer(&text, &self.tools).map(str::to_owned) else {
            self.dropped.push(id);
            return Ok(());
        };
        let index = self.announce(&name, None, deltas);
        emit_arguments(index, text, deltas);
        if is_object { Ok(()) } else { Err(index) }
    }

    /// Gives a call its id: the model's counter or the next one of the conversation, unless this
    /// answer has used that already.
    fn announce(&mut self, name: &str, counter: Option<u64>, deltas: &mut Vec<Delta>) -> usize {
        let index = self.n_calls;
        let mut counter = counter.unwrap_or(self.history_calls + index as u64);
        let used = self.used.entry(name.to_owned()).or_default();
        for &taken in used.range(counter..) {
            if taken != counter {
                break;
            }
            counter += 1; // `read` gives no counter near the end of u64
        }
        used.insert(counter);
        self.n_calls += 1;
        let id = format!("functions.{name}:{counter}");
        emit(deltas, Delta::Call { index, id, name: name.to_owned() });
        index
    }
}

fn emit_arguments(index: usize, text: String, deltas: &mut Vec<Delta>) {
    if !text.is_empty() {
        emit(deltas, Delta::Arguments { index, text });
    }
}

/// Content, holding back what a call that follows would make disappear: blanks when there is
/// nothing else, and a section begin that is only spelled.
#[derive(Clone, Debug, Default)]
struct ContentGate {
    /// Something has been given out.
    started: bool,
    held: String,
    /// Where in `held` the spelled marker begins.
    spelled_at: Option<usize>,
}

impl ContentGate {
    fn push(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        self.held.push_str(text);
        let may_vanish = !self.started || self.spelled_at.is_some();
        if !(may_vanish && text.trim_start().is_empty()) {
            self.finish(deltas);
        }
    }

    fn spelled(&mut self, spelling: &str, deltas: &mut Vec<Delta>) {
        if self.spelled_at.is_some() {
            self.finish(deltas);
        }
        self.spelled_at = Some(self.held.len());
        self.held.push_str(spelling);
    }

    /// A call follows, so the spelled marker was meant as one.
    fn drop_spelled(&mut self) {
        if let Some(at) = self.spelled_at.take() {
            self.held.truncate(at);
        }
    }

    fn finish(&mut self, deltas: &mut Vec<Delta>) {
        if !self.held.is_empty() {
            self.started = true;
            self.spelled_at = None;
            emit(deltas, Delta::Content(std::mem::take(&mut self.held)));
        }
    }
}
