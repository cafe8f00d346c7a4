//! Everything that can be wrong with a checkpoint, one variant per cause.
//!
//! A message names the file, the tensor or field, what was found and what would be right.

use k2_kernels::MatrixError;
use std::path::PathBuf;

use crate::gguf::GgufError;
use crate::quantization::QuantizationError;
use crate::safetensors::SafetensorsError;
use crate::shards::IndexError;
use crate::text::why;

/// Why a checkpoint, or one of its tensors, cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum WeightsError {
    /// The operating system said no.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    /// A folder, a pipe or a device where a file should be.
    #[error("{}: not a regular file", path.display())]
    NotAFile { path: PathBuf },
    /// A small file that is not small.
    #[error("{}: more than {limit} bytes, too many for such a file", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    /// A link that leads out of the checkpoint folder.
    #[error("{}: leads outside the checkpoint folder, to {}", path.display(), target.display())]
    Outside { path: PathBuf, target: PathBuf },
    /// The folder holds no weights in a known form.
    #[error(
        "{}: no checkpoint here: expected a folder with model.safetensors or model.safetensors.index.json, or a .gguf file",
        path.display()
    )]
    NoCheckpoint { path: PathBuf },
    /// Not JSON.
    #[error("{}: not valid JSON: {}", path.display(), why(error))]
    Json { path: PathBuf, error: serde_json::Error },
    /// JSON, but not a config.
    #[error("{}: expected a JSON object{}", path.display(), within.map(|f| format!(" in `{f}`")).unwrap_or_default())]
    NotAnObject { path: PathBuf, within: Option<&'static str> },
    /// A safetensors file is malformed.
    #[error("{}: {error}", path.display())]
    Safetensors { path: PathBuf, error: SafetensorsError },
    /// `model.safetensors.index.json` is malformed, or disagrees with the shards.
    #[error("{}: {error}", path.display())]
    Index { path: PathBuf, error: IndexError },
    /// A GGUF file is malformed or not of a supported kind.
    #[error("{}: {error}", path.display())]
    Gguf { path: PathBuf, error: GgufError },
    /// A folder with several GGUF checkpoints.
    #[error("{}: several GGUF checkpoints ({names}); name one of them", path.display())]
    SeveralGguf { path: PathBuf, names: String },
    /// The quantization scheme is unsupported, or disagrees with the tensors.
    #[error("{}: {error}", path.display())]
    Quantization { path: PathBuf, error: QuantizationError },
    /// Two tensors have the same official name.
    #[error("tensor `{tensor}` is in {} and again in {}", first.display(), second.display())]
    DuplicateTensor { tensor: String, first: PathBuf, second: PathBuf },
    /// The checkpoint does not have this tensor.
    #[error("{}: tensor `{tensor}` is missing", path.display())]
    MissingTensor { path: PathBuf, tensor: String },
    /// A tensor has another shape than the config implies.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected:?}", path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, expected: Vec<usize> },
    /// A tensor has a number format it cannot have here.
    #[error("{}: tensor `{tensor}` is {found}, expected {expected}", path.display())]
    Format { path: PathBuf, tensor: String, found: &'static str, expected: &'static str },
    /// `weight_shape` says something else than the packed tensor.
    #[error("{}: tensor `{tensor}` says the weight is {found:?}, expected {expected:?}", path.display())]
    WeightShape { path: PathBuf, tensor: String, found: Vec<i64>, expected: Vec<usize> },
    /// The bytes do not make a matrix of that format.
    #[error("{}: tensor `{tensor}`: {error}", path.display())]
    Matrix { path: PathBuf, tensor: String, error: MatrixError },
}
