//! A folder as published on a model hub: `config.json` and safetensors, in one file or in shards.

use bytes::Bytes;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::catalog::{Catalog, Encoding, Part};
use crate::checkpoint::Progress;
use crate::error::WeightsError;
use crate::files;
use crate::mmap::map;
use crate::quantization::Scheme;
use crate::safetensors::{self, Header, TensorInfo};
use crate::shards::{self, INDEX_FILE, INDEX_LIMIT};

/// The file name of a checkpoint without shards.
const SINGLE_FILE: &str = "model.safetensors";

/// What a folder holds.
pub(crate) struct Opened {
    pub(crate) config: Value,
    pub(crate) generation_config: Option<Value>,
    pub(crate) catalog: Catalog,
}

/// Whether there are weights in this form.
pub(crate) fn has_weights(folder: &Path) -> bool {
    folder.join(INDEX_FILE).exists() || folder.join(SINGLE_FILE).exists()
}

/// The text model's part of a `config.json`.
pub(crate) fn read_config(path: &Path) -> Result<Value, WeightsError> {
    let (config, _) = text_config(path, files::read_json(path)?)?;
    Ok(config)
}

pub(crate) fn open(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Opened, WeightsError> {
    let config_path = folder.join("config.json");
    let (config, scheme) = text_config(&config_path, files::read_json(&config_path)?)?;
    let generation_path = folder.join("generation_config.json");
    let generation_config = match generation_path.exists() {
        true => Some(files::read_json(&generation_path)?),
        false => None,
    };
    let (files, tensors) = if folder.join(INDEX_FILE).exists() {
        open_shards(folder, progress)?
    } else if folder.join(SINGLE_FILE).exists() {
        open_files(vec![folder.join(SINGLE_FILE)], &|_, _| Ok(()), progress)?
    } else {
        return Err(WeightsError::NoCheckpoint { path: folder.to_owned() });
    };
    let catalog = Catalog::join(files, tensors.into_iter().flatten(), &scheme, &config_path)?;
    Ok(Opened { config, generation_config, catalog })
}

/// The two files of a checkpoint without shards, from memory; `folder` is where messages say they are.
pub(crate) fn from_bytes(folder: &Path, config: &[u8], weights: &Bytes) -> Result<Opened, WeightsError> {
    let config_path = folder.join("config.json");
    let config = serde_json::from_slice(config)
        .map_err(|error| WeightsError::Json { path: config_path.clone(), error })?;
    let (config, scheme) = text_config(&config_path, config)?;
    let path = folder.join(SINGLE_FILE);
    let tensors = parts(0, &path, weights)?;
    let catalog = Catalog::join(vec![path], tensors.into_iter(), &scheme, &config_path)?;
    Ok(Opened { config, generation_config: None, catalog })
}

/// The text model's part of a config, and the quantization scheme that the whole announces.
fn text_config(path: &Path, config: Value) -> Result<(Value, Scheme), WeightsError> {
    let not_an_object = |within| WeightsError::NotAnObject { path: path.to_owned(), within };
    let wrapper = config.as_object().ok_or_else(|| not_an_object(None))?;
    let text = match wrapper.get("text_config") {
        None => &config,
        Some(text) if text.is_object() => text,
        Some(_) => return Err(not_an_object(Some("text_config"))),
    };
    let refuse = |error| WeightsError::Quantization { path: path.to_owned(), error };
    let scheme = Scheme::from_config(text, &config).map_err(refuse)?;
    Ok((text.clone(), scheme))
}

/// Files and, for each, the tensors in it.
type Files = (Vec<PathBuf>, Vec<Vec<(String, Part)>>);

fn open_shards(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Files, WeightsError> {
    let path = folder.join(INDEX_FILE);
    let wrong = |error| WeightsError::Index { path: path.clone(), error };
    let index = shards::parse(&files::read(&path, INDEX_LIMIT)?).map_err(wrong)?;
    let paths: Result<Vec<_>, _> = index.files.iter().map(|file| files::inside(folder, file)).collect();
    let listed = |file: usize, tensors: &[(String, Part)]| {
        tensors.iter().try_for_each(|(name, _)| index.check_tensor(file, name)).map_err(wrong)
    };
    let (paths, tensors) = open_files(paths?, &listed, progress)?;
    let by_file = tensors.iter().enumerate();
    let found: Vec<(usize, &str)> = by_file
        .flat_map(|(file, tensors)| tensors.iter().map(move |(name, _)| (file, name.as_str())))
        .collect();
    index.check(&found).map_err(wrong)?;
    Ok((paths, tensors))
}

/// Whether the tensors that are in a file should be there.
type Listed<'a> = &'a (dyn Fn(usize, &[(String, Part)]) -> Result<(), WeightsError> + Sync);

/// Maps the files and reads their headers on all processors, this thread included. A header of K2 has some
/// 3,000 tensors.
fn open_files(
    paths: Vec<PathBuf>,
    listed: Listed<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Files, WeightsError> {
    let (next, (sender, receiver)) = (AtomicUsize::new(0), mpsc::channel());
    let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&file| file < paths.len());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(paths.len());
    let mut opened: Vec<Option<Result<_, WeightsError>>> = paths.iter().map(|_| None).collect();
    let mut done = 0;
    let mut keep = |(file, result): (usize, _)| {
        opened[file] = Some(result);
        done += 1;
        progress(Progress { files: done, of: paths.len() });
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let (sender, claim, paths) = (sender.clone(), &claim, &paths);
            scope.spawn(move || {
                while let Some(file) = claim() {
                    // The receiver outlives the threads: sending cannot fail.
                    let _ = sender.send((file, open_file(file, &paths[file], listed)));
                }
            });
        }
        drop(sender);
        while let Some(file) = claim() {
            keep((file, open_file(file, &paths[file], listed)));
            receiver.try_iter().for_each(&mut keep);
        }
        receiver.iter().for_each(&mut keep);
    });
    let tensors = opened.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    Ok((paths, tensors))
}

fn open_file(file: usize, path: &Path, listed: Listed<'_>) -> Result<Vec<(String, Part)>, WeightsError> {
    let tensors = parts(file, path, &map(path)?)?;
    listed(file, &tensors)?;
    Ok(tensors)
}

/// The tensors of a file's bytes.
fn parts(file: usize, path: &Path, bytes: &Bytes) -> Result<Vec<(String, Part)>, WeightsError> {
    let wrong = |error| WeightsError::Safetensors { path: path.to_owned(), error };
    let Header { tensors } = safetensors::parse(bytes).map_err(wrong)?;
    let part = |TensorInfo { dtype, shape, range }| Part {
        file,
        encoding: Encoding::Dtype(dtype),
        shape,
        bytes: bytes.slice(range),
    };
    Ok(tensors.into_iter().map(|(name, info)| (name, part(info))).collect())
}
