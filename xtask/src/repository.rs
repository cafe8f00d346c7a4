//! What the checks look at: the repository's text files and what cargo knows of its packages.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

/// Text files by path from the root, and the output of `cargo metadata`.
#[derive(Default)]
pub(crate) struct Repository {
    /// Every file that is tracked, or new and not ignored, and that is text.
    pub(crate) files: BTreeMap<String, String>,
    /// `cargo metadata --format-version 1`.
    pub(crate) metadata: Value,
}

impl Repository {
    /// The repository that this program was built from.
    pub(crate) fn here() -> Result<Self, String> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let listed = output(root, "git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let paths = String::from_utf8_lossy(&listed).into_owned();
        let text = |path: &str| Some((path.to_owned(), as_text(std::fs::read(root.join(path)).ok()?)?));
        let files = paths.split_terminator('\0').filter_map(text).collect();
        let metadata = output(root, "cargo", &["metadata", "--format-version", "1", "--locked"])?;
        let metadata =
            serde_json::from_slice(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
        Ok(Self { files, metadata })
    }

    /// A repository in memory, for tests of the checks.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self { files, metadata: Value::Null }
    }

    /// Path and text of each Rust file.
    pub(crate) fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(|(path, _)| path.ends_with(".rs"))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The folders `crates/NAME`, by name.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|path| path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
    }
}

/// The standard output of a command.
fn output(root: &Path, program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let command = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).current_dir(root).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}

/// A file's text, or nothing if it is binary.
fn as_text(bytes: Vec<u8>) -> Option<String> {
    if bytes.contains(&0) { None } else { String::from_utf8(bytes).ok() }
}
