//! What an answer has to follow, as sets of ids: the engine knows no text, so whoever knows the grammar says
//! before each token which ids may come.
//!
//! A request carries a [`Grammar`], which many requests may share; each answer has a [`Constraint`] of its own.

use std::fmt::Debug;

/// Something that answers can be made to follow.
pub trait Grammar: Debug + Send + Sync {
    /// The state at the start of an answer.
    fn start(&self) -> Box<dyn Constraint>;
}

/// How far one answer has come.
pub trait Constraint: Debug + Send {
    /// The ids that may come next: id `i` is bit `i % 32` of word `i / 32`, and ids beyond the last word may
    /// not come. None: any id may.
    fn allowed(&mut self) -> Result<Option<&[u32]>, String>;

    /// Takes note of the next token. Stop ids that end the answer are not told.
    fn accept(&mut self, id: u32) -> Result<(), String>;
}
