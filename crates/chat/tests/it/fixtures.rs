//! Where golden files lie and how they are read.
//!
//! `K2_FIXTURES` names the directory (default: `shared/fixtures` beside the repository), the real
//! tokenizer lies in `kimi-tokenizer` beside it. Files are found by folder and lines recognised by
//! their fields, so any other set of the same form can be tried. Without the directory the golden
//! tests say that they were skipped.

use std::{fs, path::PathBuf, sync::OnceLock};

use k2_chat::Tokenizer;

fn directory() -> PathBuf {
    match std::env::var_os("K2_FIXTURES") {
        Some(directory) => directory.into(),
        None => concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures").into(),
    }
}

/// All lines of all `*.jsonl` files in a folder of golden files.
pub(crate) fn lines(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory().join(folder)) else {
        println!("skipped: no {} (set K2_FIXTURES)", directory().join(folder).display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
    paths.iter().map(read).flat_map(|file| file.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Folder of the real tokenizer.
pub(crate) fn kimi_dir() -> PathBuf {
    directory().join("../kimi-tokenizer")
}

/// The real tokenizer, read once.
pub(crate) fn kimi() -> Option<&'static Tokenizer> {
    static KIMI: OnceLock<Option<Tokenizer>> = OnceLock::new();
    let read = || kimi_dir().exists().then(|| Tokenizer::from_dir(&kimi_dir()).unwrap());
    KIMI.get_or_init(read).as_ref()
}
