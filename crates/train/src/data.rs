//! Training data: from records and generators to packed batches.
//!
//! ```text
//! [data] of a recipe ─▶ sources (dialogues, lines, JSONL, text) ─▶ documents ─▶ packing ─▶ Batch
//! ```
//!
//! Everything is a function of the seed and of how far one has come, so a [`Stream`] can say where it is
//! ([`crate::Source::cursor`]) and go on from there to the same batches.

mod document;
mod messages;
mod packing;
mod records;
mod settings;
mod stream;

pub use document::Document;
pub use packing::Packer;
pub use records::{Records, Skipped};
pub use settings::{DataSettings, SourceKind, SourceSettings};
pub use stream::{Cursor, Stream};

use std::path::PathBuf;

use crate::dialogues::CatalogueError;

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum DataError {
    /// The `[data]` section of a recipe is wrong.
    #[error("recipe: [data]: {0}")]
    Settings(serde_json::Error),
    /// A setting makes no sense.
    #[error("recipe: data.{field} is {found}, expected {expected}")]
    Value { field: &'static str, found: String, expected: &'static str },
    /// A file could not be read.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    /// A record that is not what it should be.
    #[error("{}:{line}: {problem}; set data.skip_bad_records to leave such records out", path.display())]
    Record { path: PathBuf, line: usize, problem: String },
    /// A file without a record to train on.
    #[error("{}: no record is left to train on ({held_out} held out, {skipped} skipped)", path.display())]
    Empty { path: PathBuf, held_out: usize, skipped: usize },
    /// The tokenizer does not load.
    #[error(transparent)]
    Tokenizer(#[from] k2_chat::TokenizerError),
    /// No turn format has this name.
    #[error("recipe: data.template: {0}")]
    Template(#[from] k2_chat::template::TemplateError),
    /// The model would be trained on one turn format and served with another.
    #[error(
        "recipe: data.template is {named}, but what is published with the tokenizer of {} is served with {served}; leave \
         data.template out, or name a folder with the {} of {named}",
        tokenizer.display(),
        k2_chat::template::TEMPLATE_FILE
    )]
    OtherTemplate { named: &'static str, served: &'static str, tokenizer: PathBuf },
    /// The tokenizer lacks a token that turns are made of.
    #[error("the tokenizer has no token {name:?}, which Kimi K2's turns are made of")]
    NoSpecial { name: &'static str },
    /// The tables of the dialogues.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A synthetic dialogue that cannot be rendered.
    #[error("dialogue {index}: {problem}")]
    Dialogue { index: u64, problem: String },
    /// A cursor that was not taken here.
    #[error("the data cursor does not fit: {problem}")]
    Cursor { problem: String },
}

impl From<DataError> for crate::TrainError {
    fn from(error: DataError) -> Self {
        crate::TrainError::Data(Box::new(error))
    }
}
