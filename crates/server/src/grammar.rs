//! Where grammars of `chat` meet the engine, which knows ids only.

use k2_chat::AnswerGrammar;
use k2_chat::grammar::Progress;
use k2_engine::{Constraint, Grammar};

/// A grammar for the engine.
#[derive(Debug)]
pub struct Followed(pub AnswerGrammar);

#[derive(Debug)]
struct Following(Progress);

impl Grammar for Followed {
    fn start(&self) -> Box<dyn Constraint> {
        Box::new(Following(self.0.start()))
    }
}

impl Constraint for Following {
    fn allowed(&mut self) -> Result<Option<&[u32]>, String> {
        self.0.allowed().map(Some)
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        self.0.accept(id)
    }
}
