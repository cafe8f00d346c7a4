//! One GGUF file, or the files of a split (`NAME-00001-of-00003.gguf`), as one checkpoint.
//!
//! `split.count` in the metadata says that there are siblings; each says which it is (`split.no`, from 0)
//! and how many tensors all have together. Only the first has the model's metadata.

use bytes::Bytes;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Gguf, GgufError, GgufVocabulary, Tensor, config, limit, parse, vocabulary};
use crate::catalog::{Catalog, Part, Weight};
use crate::checkpoint::Progress;
use crate::error::WeightsError;
use crate::mmap::map;
use crate::names::{Official, official};
use crate::text::cut;

/// Most experts of a layer accepted; K2 has 384.
const EXPERT_LIMIT: usize = 4096;

/// Most weights accepted, stacked experts counted one by one; K2 has about 70,000.
const WEIGHT_LIMIT: u64 = 1 << 18;

/// The parsed files of a checkpoint.
pub(crate) struct GgufSet {
    files: Vec<PathBuf>,
    bytes: Vec<Bytes>,
    parsed: Vec<Gguf>,
}

/// The one GGUF checkpoint of a folder: its only file, or the first of its only split. Projectors of
/// vision models (`mmproj*`) do not count.
pub(crate) fn find_set(folder: &Path) -> Result<Option<PathBuf>, WeightsError> {
    let io = |error| WeightsError::Io { path: folder.to_owned(), error };
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        let first = split_name(&name).is_none_or(|(_, number, _)| number == 1);
        if name.ends_with(".gguf") && !name.starts_with("mmproj") && first {
            firsts.push(name);
        }
    }
    firsts.sort_unstable();
    match firsts.len() {
        0 | 1 => Ok(firsts.first().map(|name| folder.join(name))),
        _ => Err(WeightsError::SeveralGguf { path: folder.to_owned(), names: cut(&firsts.join(", ")) }),
    }
}

/// Opens a file and, if it is one of a split, its siblings.
pub(crate) fn open_set(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<GgufSet, WeightsError> {
    let first = open_one(path)?;
    let count = first.1.metadata.optional_uint("split.count").map_err(wrap(path))?.unwrap_or(1);
    if count <= 1 {
        progress(Progress { files: 1, of: 1 });
        return Ok(GgufSet { files: vec![path.to_owned()], bytes: vec![first.0], parsed: vec![first.1] });
    }
    let files = siblings(path, count).map_err(wrap(path))?;
    let mut set = GgufSet { files: Vec::new(), bytes: Vec::new(), parsed: Vec::new() };
    for (number, file) in files.iter().enumerate() {
        let (bytes, parsed) = open_one(file)?;
        check_split(&parsed, "split.no", number as u64).map_err(wrap(file))?;
        check_split(&parsed, "split.count", count).map_err(wrap(file))?;
        set.files.push(file.clone());
        set.bytes.push(bytes);
        set.parsed.push(parsed);
        progress(Progress { files: number + 1, of: files.len() });
    }
    let tensors = set.parsed.iter().map(|file| file.tensors.len() as u64).sum();
    for (file, parsed) in set.files.iter().zip(&set.parsed) {
        check_split(parsed, "split.tensors.count", tensors).map_err(wrap(file))?;
    }
    Ok(set)
}

impl GgufSet {
    pub(crate) fn config(&self) -> Result<Value, WeightsError> {
        config(&self.parsed).map_err(wrap(&self.files[0]))
    }

    pub(crate) fn vocabulary(&self) -> Result<Option<GgufVocabulary>, WeightsError> {
        vocabulary(&self.parsed[0].metadata).map_err(wrap(&self.files[0]))
    }

    /// All tensors under their official names, stacked experts one by one.
    pub(crate) fn catalog(self) -> Result<Catalog, WeightsError> {
        let mut catalog = Catalog { files: self.files, ..Catalog::default() };
        for (file, (parsed, bytes)) in self.parsed.into_iter().zip(&self.bytes).enumerate() {
            for tensor in parsed.tensors {
                let path = catalog.path(file).to_owned();
                for (name, part) in parts(file, tensor, bytes).map_err(wrap(&path))? {
                    catalog.insert(name, Weight::Plain(part))?;
                }
                let weights = catalog.weights.len() as u64;
                limit(format_args!("the weight count"), weights, WEIGHT_LIMIT).map_err(wrap(&path))?;
            }
        }
        Ok(catalog)
    }
}

/// The official weights that a tensor holds.
fn parts(file: usize, tensor: Tensor, bytes: &Bytes) -> Result<Vec<(String, Part)>, GgufError> {
    let Some(official) = official(&tensor.name) else {
        return Err(GgufError::UnknownTensor { tensor: tensor.name });
    };
    let Tensor { name: tensor, shape, encoding, range } = tensor;
    let bytes = bytes.slice(range);
    let part = |shape: Vec<usize>, bytes| Part { file, encoding, shape, bytes };
    match official {
        Official::One(name) => Ok(vec![(name, part(shape, bytes))]),
        Official::Joined(name) => {
            let (cols, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
            Ok(vec![(name, part(vec![rows, cols], bytes))])
        }
        Official::Stacked { before, after } => {
            let [experts @ 1..=EXPERT_LIMIT, rows, cols] = shape[..] else {
                return Err(GgufError::Stack { tensor, found: shape, limit: EXPERT_LIMIT });
            };
            let size = bytes.len() / experts;
            let expert = |e: usize| bytes.slice(e * size..(e + 1) * size);
            let named = |e| (format!("{before}{e}{after}"), part(vec![rows, cols], expert(e)));
            Ok((0..experts).map(named).collect())
        }
    }
}

fn open_one(path: &Path) -> Result<(Bytes, Gguf), WeightsError> {
    let bytes = map(path)?;
    let parsed = parse(&bytes).map_err(wrap(path))?;
    Ok((bytes, parsed))
}

fn wrap(path: &Path) -> impl Fn(GgufError) -> WeightsError {
    |error| WeightsError::Gguf { path: path.to_owned(), error }
}

fn check_split(file: &Gguf, key: &'static str, expected: u64) -> Result<(), GgufError> {
    match file.metadata.optional_uint(key)? {
        None => Err(GgufError::MissingKey { key: key.to_owned() }),
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(GgufError::Split { key, found, expected }),
    }
}

/// The paths of all files of the split that `path` belongs to.
fn siblings(path: &Path, count: u64) -> Result<Vec<PathBuf>, GgufError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match split_name(&name) {
        Some((stem, _, of)) if of == count => Ok((1..=count)
            .map(|n| path.with_file_name(format!("{stem}-{n:05}-of-{count:05}.gguf")))
            .collect()),
        _ => Err(GgufError::SplitName { count }),
    }
}

/// Takes `STEM-00002-of-00003.gguf` apart.
fn split_name(name: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five_digits = |text: &str| match text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    };
    Some((stem, five_digits(number)?, five_digits(count)?))
}
