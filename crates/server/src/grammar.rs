//! Where grammars of `chat` meet the engine, which knows ids only.

use std::sync::{Arc, Once};
use std::time::Instant;

use k2_chat::grammar::{Progress, Wanted};
use k2_chat::{AnswerGrammar, GrammarError};
use k2_engine::{Constraint, Grammar};

use crate::error::ApiError;
use crate::metrics::GrammarOutcome;
use crate::record::Record;
use crate::served::Served;

/// A grammar for the engine.
#[derive(Debug)]
pub struct Followed(pub AnswerGrammar);

#[derive(Debug)]
struct Following(Progress);

/// Makes a grammar of what a request wants, if it wants one, and counts it for the request.
pub(crate) fn compile(served: &Served, wanted: Wanted<'_>) -> Result<Option<Arc<dyn Grammar>>, ApiError> {
    let began = Instant::now();
    let compiled = served.grammars.compile(wanted);
    let outcome = match &compiled {
        Ok(None) => None,
        Ok(Some(grammar)) if grammar.was_cached() => Some(GrammarOutcome::Cached),
        Ok(Some(_)) => Some(GrammarOutcome::Compiled(began.elapsed())),
        Err(_) => Some(GrammarOutcome::Refused(began.elapsed())),
    };
    if let (Some(outcome), Some(record)) = (outcome, Record::current()) {
        record.grammar(outcome);
    }
    if let Ok(Some(grammar)) = &compiled
        && grammar.leaves_out_patterns()
    {
        tell_of_patterns();
    }
    let refused =
        |error: GrammarError| ApiError::refused(error.param().map(str::to_owned), error.to_string());
    Ok(compiled.map_err(refused)?.map(|grammar| Arc::new(Followed(grammar)) as Arc<dyn Grammar>))
}

/// Once: clients send the same tools again and again.
fn tell_of_patterns() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "a schema has a pattern that cannot be enforced, such as one with look-around; in requests with such a \
             one, patterns of schemas without `strict: true` are passed over"
        );
    });
}

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
