//! Opening the files of a checkpoint folder: regular ones, of bounded size, inside the folder.

use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::WeightsError;

/// Largest `config.json` read; the real ones have 5 KB.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Reads a file that must be no longer than `limit`.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, WeightsError> {
    require_file(path)?;
    let io = |error| WeightsError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    // Not by the file's length: some files grow, some give more than they say.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    match bytes.len() as u64 <= limit {
        true => Ok(bytes),
        false => Err(WeightsError::TooLarge { path: path.to_owned(), limit }),
    }
}

/// Reads a JSON file of a config's size.
pub(crate) fn read_json(path: &Path) -> Result<Value, WeightsError> {
    let bytes = read(path, CONFIG_LIMIT)?;
    serde_json::from_slice(&bytes).map_err(|error| WeightsError::Json { path: path.to_owned(), error })
}

/// Refuses what is not a regular file before it is opened: opening a pipe would wait for ever.
pub(crate) fn require_file(path: &Path) -> Result<(), WeightsError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(WeightsError::NotAFile { path: path.to_owned() }),
        Err(error) => Err(WeightsError::Io { path: path.to_owned(), error }),
    }
}

/// The file `name` of `folder`, if following its links ends inside. A Hugging Face cache is a folder of
/// links from `snapshots/REVISION` to `blobs`; that one way out is known and allowed.
pub(crate) fn inside(folder: &Path, name: &str) -> Result<PathBuf, WeightsError> {
    let path = folder.join(name);
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|error| WeightsError::Io { path: path.to_owned(), error })
    };
    let (target, root) = (real(&path)?, real(folder)?);
    let blobs = root.parent().filter(|up| up.ends_with("snapshots")).and_then(Path::parent);
    let in_blobs = blobs.is_some_and(|cache| target.starts_with(cache.join("blobs")));
    match target.starts_with(&root) || in_blobs {
        true => Ok(path),
        false => Err(WeightsError::Outside { path, target }),
    }
}
