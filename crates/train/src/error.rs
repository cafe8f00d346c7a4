//! Everything that can stop a run, one variant per cause.

use k2_model::ConfigError;
use k2_weights::WeightsError;
use std::path::PathBuf;

use crate::batch::BatchError;
use crate::params::LoadError;

/// Why training cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum TrainError {
    /// The recipe is not TOML, or has a key that nobody knows.
    #[error("{}: {error}", path.display())]
    Recipe { path: PathBuf, error: Box<toml::de::Error> },
    /// A line that should change the recipe is not TOML.
    #[error("{line:?} is not KEY=VALUE in TOML, where a text needs quotes: {error}")]
    Set { line: String, error: Box<toml::de::Error> },
    /// A value of the recipe makes no sense.
    #[error("recipe: `{field}` is {found}, expected {expected}")]
    Value { field: &'static str, found: String, expected: String },
    /// A field of the model that no `config.json` of the family has.
    #[error("recipe: [model]: unknown field `{field}`, expected those of a config.json, such as {expected}")]
    ModelField { field: String, expected: String },
    /// The operating system said no.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    /// A file that a checkpoint needs does not say what it should.
    #[error("{}: {problem}", path.display())]
    Checkpoint { path: PathBuf, problem: String },
    /// The run to be resumed was begun with another recipe.
    #[error(
        "{}: was begun with another `{section}` section; continue with the recipe it was begun with, or start a new run",
        path.display()
    )]
    OtherRecipe { path: PathBuf, section: &'static str },
    /// A run is already in the folder.
    #[error("{}: holds a run already; resume it, or give another folder", path.display())]
    Occupied { path: PathBuf },
    /// There is nothing to resume.
    #[error("{}: holds no checkpoint to resume from", path.display())]
    NoCheckpoint { path: PathBuf },
    /// The model's config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights to begin with.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Reading or writing weights.
    #[error(transparent)]
    Weights(Box<WeightsError>),
    /// A batch that does not fit the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The training data.
    #[error("{0}")]
    Data(Box<dyn std::error::Error + Send + Sync>),
    /// A step has computed something that is not a finite number.
    #[error(
        "step {step}: {what} is not finite; nothing of this step is saved; --resume goes on from the last checkpoint, if \
         there is one"
    )]
    NotFinite { step: u64, what: String },
    /// Weights that nobody could run.
    #[error("{tensor} has numbers that are not finite; such weights are neither saved nor published")]
    NotFiniteWeights { tensor: String },
    /// The run needs more memory than there is.
    #[error(
        "the run needs about {needed} MB, {available} MB are free; use fewer threads, smaller batches, less data or a smaller model"
    )]
    Memory { needed: u64, available: u64 },
    /// INT4 groups do not fit a matrix.
    #[error("{tensor} has {cols} inputs, INT4 needs a multiple of 32")]
    Int4 { tensor: String, cols: usize },
}

impl From<WeightsError> for TrainError {
    fn from(error: WeightsError) -> TrainError {
        TrainError::Weights(Box::new(error))
    }
}
