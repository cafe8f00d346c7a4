//! Checkpoints with outputs of another implementation, and how they are read.
//!
//! The project's own lie in `fixtures/model`; more are taken from `K2_FIXTURES/model` (default:
//! `shared/fixtures` beside the repository), whatever folders of that form there are.

use k2_kernels::Pool;
use k2_model::{KimiK2, Precision};
use k2_weights::{Checkpoint, safetensors};
use std::path::{Path, PathBuf};

/// Every folder that holds a config and expected outputs.
pub(crate) fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model");
    let mut folders = inside(&own);
    assert!(!folders.is_empty(), "the repository's own fixtures are gone: {}", own.display());
    let given = given().join("model");
    if !given.exists() {
        println!("skipped: no fixtures at {}", given.display());
    }
    folders.extend(inside(&given));
    folders
}

/// A folder of the repository's own.
pub(crate) fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model").join(name)
}

/// The directory that `K2_FIXTURES` names.
pub(crate) fn given() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(default), PathBuf::from)
}

fn inside(root: &Path) -> Vec<PathBuf> {
    let Ok(folders) = std::fs::read_dir(root) else { return Vec::new() };
    let mut folders: Vec<_> = folders.map(|folder| folder.unwrap().path()).collect();
    folders
        .retain(|folder| folder.join("config.json").exists() && folder.join("expected.safetensors").exists());
    folders.sort();
    folders
}

/// On the exact path.
pub(crate) fn load(path: &Path, threads: usize) -> KimiK2 {
    let checkpoint = Checkpoint::open(path, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"));
    let model = KimiK2::load(&checkpoint, Pool::new(threads), &mut |_, _| ())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    KimiK2 { precision: Precision::Exact, ..model }
}

/// `expected.safetensors` of a folder.
pub(crate) struct Expected {
    file: Vec<u8>,
    header: safetensors::Header,
}

impl Expected {
    pub(crate) fn of(folder: &Path) -> Expected {
        let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let header = safetensors::parse(&file).unwrap();
        Expected { file, header }
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (_, info) = self.header.tensors.iter().find(|(found, _)| found == name)?;
        Some(&self.file[info.range.clone()])
    }

    /// An F32 tensor, if the folder has it.
    pub(crate) fn numbers(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.bytes(name)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// An I64 tensor of token ids or layer numbers.
    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        let bytes = self.bytes(name).unwrap_or_else(|| panic!("no tensor {name}"));
        bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32).collect()
    }

    /// An I32 tensor of expert numbers.
    pub(crate) fn experts(&self, name: &str) -> Vec<u32> {
        let bytes = self.bytes(name).unwrap_or_else(|| panic!("no tensor {name}"));
        bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as u32).collect()
    }
}
