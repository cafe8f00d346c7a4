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

/// A case of Moonshot's schema validator.
pub(crate) struct Walle {
    /// Whether the schema is of the subset.
    pub(crate) valid: bool,
    pub(crate) schema: String,
    /// A part of the validator's message.
    pub(crate) expect: String,
}

/// The published cases.
pub(crate) fn walle() -> impl Iterator<Item = Walle> {
    let path = directory().join("walle/cases.tsv");
    let file = fs::read_to_string(&path).unwrap_or_else(|_| {
        println!("skipped: no {} (set K2_FIXTURES)", path.display());
        String::new()
    });
    let case = |line: &str| {
        let (suite, case) = line.split_once('\t').unwrap();
        let text = |case: &serde_json::Value, name: &str| case[name].as_str().unwrap().to_owned();
        match suite.ends_with("/valid.jsonl") {
            true => Walle { valid: true, schema: case.to_owned(), expect: String::new() },
            false => {
                let case = serde_json::from_str(case).unwrap();
                Walle { valid: false, schema: text(&case, "schema"), expect: text(&case, "expect") }
            }
        }
    };
    file.lines().map(case).collect::<Vec<_>>().into_iter()
}
