//! Golden files: the repository's own, and those that `K2_FIXTURES` names (default: `shared/fixtures` beside
//! the repository), with the real tokenizer in `kimi-tokenizer` beside that directory.

use std::path::{Path, PathBuf};

use k2_weights::safetensors;
use serde_json::Value;

/// The directory that `K2_FIXTURES` names.
fn given() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A checkpoint of the repository's own.
pub(crate) fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model").join(name)
}

/// Folder of the real tokenizer.
pub(crate) fn kimi_tokenizer() -> Option<PathBuf> {
    let folder = given().join("../kimi-tokenizer");
    if !folder.exists() {
        println!("skipped: no {}", folder.display());
    }
    folder.exists().then_some(folder)
}

/// All lines of all `*.jsonl` files in a folder of golden files.
pub(crate) fn lines(folder: &str) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(given().join(folder)) else {
        println!("skipped: no {}", given().join(folder).display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let texts = paths.iter().map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Every folder that holds a model with expected outputs.
pub(crate) fn models() -> Vec<PathBuf> {
    let inside = |root: PathBuf| {
        let folders = std::fs::read_dir(&root).into_iter().flatten();
        let mut folders: Vec<_> = folders.map(|folder| folder.unwrap().path()).collect();
        folders.retain(|folder| folder.join("expected.safetensors").exists());
        folders.sort();
        folders
    };
    let mut folders = inside(own(""));
    assert!(!folders.is_empty(), "the repository's own fixtures are gone");
    folders.extend(inside(given().join("model")));
    folders
}

/// A tensor of a safetensors file: its shape and its bytes.
pub(crate) fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<u8>) {
    let file = std::fs::read(path).unwrap();
    let header = safetensors::parse(&file).unwrap();
    let (_, info) = header.tensors.iter().find(|(found, _)| found == name).unwrap();
    (info.shape.clone(), file[info.range.clone()].to_vec())
}

/// Token ids, stored as I64.
pub(crate) fn ids(path: &Path, name: &str) -> Vec<u32> {
    tensor(path, name).1.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32).collect()
}

/// F32 numbers and their shape.
pub(crate) fn numbers(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let (shape, bytes) = tensor(path, name);
    (shape, bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
