//! A checkpoint as the rest of the program sees it: a config and weights by official name.

use bytes::Bytes;
use k2_kernels::Matrix;
use serde_json::Value;
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, Skipped, Weight};
use crate::convert;
use crate::error::WeightsError;
use crate::folder;
use crate::gguf::{self, GgufVocabulary};

/// An opened checkpoint: headers read and checked, data mapped and untouched.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Value,
    generation_config: Option<Value>,
    vocabulary: Option<GgufVocabulary>,
    catalog: Catalog,
}

/// How far [`Checkpoint::open`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Files whose header has been read.
    pub files: usize,
    /// Files there are.
    pub of: usize,
}

/// One weight, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry<'a> {
    /// Official name, without a wrapper's prefix.
    pub name: &'a str,
    /// `BF16`, `FP8`, `INT4`, `Q4_K`...
    pub format: &'static str,
    /// Shape of the numbers.
    pub shape: Vec<usize>,
    /// Bytes in the file, scales included.
    pub bytes: u64,
    /// The file that holds it.
    pub file: &'a Path,
}

/// The text model's config alone: of a `config.json`, of a folder that has one (with weights or not), or
/// of a GGUF file.
pub fn read_config(path: &Path) -> Result<Value, WeightsError> {
    match locate(path)? {
        Location::Folder => folder::read_config(&path.join("config.json")),
        Location::File => folder::read_config(path),
        Location::Gguf(file) => {
            let set = gguf::open_set(&file, &mut |_| ())?;
            set.config()
        }
    }
}

impl Checkpoint {
    /// Opens a folder of safetensors, a GGUF file (any file of a split), or a folder that holds one of these.
    pub fn open(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Checkpoint, WeightsError> {
        match locate(path)? {
            Location::Folder => Checkpoint::open_folder(path, progress),
            Location::Gguf(file) => Checkpoint::open_gguf(&file, progress),
            Location::File => Err(WeightsError::NoCheckpoint { path: path.to_owned() }),
        }
    }

    /// Opens a checkpoint that lies in memory: a `config.json` and a `model.safetensors`. `name` stands where
    /// messages show a path.
    pub fn from_bytes(
        name: &str,
        config: &[u8],
        weights: impl Into<Bytes>,
    ) -> Result<Checkpoint, WeightsError> {
        let folder::Opened { config, generation_config, catalog } =
            folder::from_bytes(Path::new(name), config, &weights.into())?;
        Ok(Checkpoint { path: name.into(), config, generation_config, vocabulary: None, catalog })
    }

    fn open_folder(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Checkpoint, WeightsError> {
        let folder::Opened { config, generation_config, catalog } = folder::open(path, progress)?;
        Ok(Checkpoint { path: path.to_owned(), config, generation_config, vocabulary: None, catalog })
    }

    fn open_gguf(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Checkpoint, WeightsError> {
        let set = gguf::open_set(path, progress)?;
        let (config, vocabulary) = (set.config()?, set.vocabulary()?);
        let catalog = set.catalog()?;
        Ok(Checkpoint { path: path.to_owned(), config, generation_config: None, vocabulary, catalog })
    }

    /// The text model's config under the official field names.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// `generation_config.json`, if the folder has one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// The tokenizer of a GGUF file.
    pub fn gguf_vocabulary(&self) -> Option<&GgufVocabulary> {
        self.vocabulary.as_ref()
    }

    /// What was left out because it is not part of the text model.
    pub fn skipped(&self) -> Skipped {
        self.catalog.skipped
    }

    /// Whether a weight of this official name exists.
    pub fn has(&self, name: &str) -> bool {
        self.catalog.weights.contains_key(name)
    }

    /// Every weight of the text model, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = TensorEntry<'_>> {
        self.sorted_weights().into_iter().map(|(name, weight)| TensorEntry {
            name,
            format: weight.format(),
            shape: weight.shape(),
            bytes: weight.stored_bytes(),
            file: self.catalog.path(weight.main().file),
        })
    }

    /// A weight matrix `[rows, cols]` by official name, in the format it is stored in.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, WeightsError> {
        convert::matrix(&self.catalog, name, self.weight(name)?, rows, cols)
    }

    /// A vector (norm weight, router bias) of `len` numbers, widened to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        convert::vector(&self.catalog, name, self.weight(name)?, len)
    }

    pub(crate) fn sorted_weights(&self) -> Vec<(&str, &Weight)> {
        let mut weights: Vec<_> = self.catalog.weights.iter().map(|(name, w)| (name.as_str(), w)).collect();
        weights.sort_unstable_by_key(|(name, _)| *name);
        weights
    }

    fn weight(&self, name: &str) -> Result<&Weight, WeightsError> {
        let missing = || WeightsError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() };
        self.catalog.weights.get(name).ok_or_else(missing)
    }
}

/// What a path given by the user is.
enum Location {
    /// A folder with a `config.json`.
    Folder,
    /// A file that is not GGUF.
    File,
    /// A GGUF file.
    Gguf(PathBuf),
}

fn locate(path: &Path) -> Result<Location, WeightsError> {
    let is_folder =
        path.metadata().map_err(|error| WeightsError::Io { path: path.to_owned(), error })?.is_dir();
    if !is_folder {
        let gguf = path.extension().is_some_and(|extension| extension == "gguf");
        return Ok(if gguf { Location::Gguf(path.to_owned()) } else { Location::File });
    }
    if folder::has_weights(path) {
        return Ok(Location::Folder);
    }
    match gguf::find_set(path)? {
        Some(file) => Ok(Location::Gguf(file)),
        None if path.join("config.json").exists() => Ok(Location::Folder),
        None => Err(WeightsError::NoCheckpoint { path: path.to_owned() }),
    }
}
