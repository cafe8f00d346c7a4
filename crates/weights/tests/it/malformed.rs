//! Every file of `tests/malformed` is refused with the error, and the words, that `expected.tsv` says.
//!
//! `reference/malformed.py` made the files and the table. Errors that no small file can provoke are tested
//! in [`crate::situations`]; together the two provoke every variant there is.

use k2_weights::{Checkpoint, WeightsError, gguf, read_config, safetensors, shards};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::situations;

#[test]
fn every_malformed_file_is_refused_in_its_own_way() {
    let table = std::fs::read_to_string(root().join("expected.tsv")).unwrap();
    for line in table.lines() {
        check(line);
    }
}

/// One line: path, variant, words of the message.
fn check(line: &str) {
    let mut fields = line.split('\t');
    let (path, variant) = (fields.next().unwrap(), fields.next().unwrap());
    let error = open(&root().join(path)).expect_err(path);
    assert_eq!(name_of(&error), variant, "{path}: {error}");
    let message = error.to_string();
    for word in fields {
        assert!(message.contains(word), "{path}: expected {word:?} in: {message}");
    }
    assert!(message.len() < 2000, "{path}: a message of {} bytes", message.len());
}

/// Opens by the kind of the file and touches every tensor.
fn open(path: &Path) -> Result<(), WeightsError> {
    let name = path.to_str().unwrap();
    let owned = || path.to_owned();
    if name.ends_with(".safetensors") {
        let parsed = safetensors::parse(&std::fs::read(path).unwrap());
        return parsed.map(drop).map_err(|error| WeightsError::Safetensors { path: owned(), error });
    }
    if name.ends_with(".index.json") {
        let parsed = shards::parse(&std::fs::read(path).unwrap());
        return parsed.map(drop).map_err(|error| WeightsError::Index { path: owned(), error });
    }
    if name.ends_with(".json") {
        return read_config(path).map(drop);
    }
    if name.ends_with(".gguf") {
        let bytes = std::fs::read(path).unwrap().into();
        gguf::parse(&bytes).map_err(|error| WeightsError::Gguf { path: owned(), error })?;
    }
    let checkpoint = Checkpoint::open(path, &mut |_| ())?;
    for entry in checkpoint.tensors() {
        match entry.shape[..] {
            [rows, cols] => drop(checkpoint.matrix(entry.name, rows, cols)?),
            _ => drop(checkpoint.vector(entry.name, entry.shape[0])?),
        }
    }
    Ok(())
}

/// `Gguf/Magic` for `Gguf { error: Magic { .. }, .. }`, and so on.
pub(crate) fn name_of(error: &WeightsError) -> String {
    let word = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("").to_owned();
    let inner = match error {
        WeightsError::Safetensors { error, .. } => format!("{error:?}"),
        WeightsError::Index { error, .. } => format!("{error:?}"),
        WeightsError::Gguf { error, .. } => format!("{error:?}"),
        WeightsError::Quantization { error, .. } => format!("{error:?}"),
        _ => return word(format!("{error:?}")),
    };
    format!("{}/{}", word(format!("{error:?}")), word(inner))
}

#[test]
fn every_variant_is_provoked_by_some_test() {
    let table = std::fs::read_to_string(root().join("expected.tsv")).unwrap();
    let mut provoked: BTreeSet<String> =
        table.lines().map(|line| line.split('\t').nth(1).unwrap().to_owned()).collect();
    provoked.extend(situations::all().into_iter().map(|(variant, _)| variant.to_owned()));
    let sources = [
        ("", "error.rs"),
        ("Safetensors/", "safetensors.rs"),
        ("Index/", "shards.rs"),
        ("Gguf/", "gguf.rs"),
        ("Quantization/", "quantization.rs"),
    ];
    for (prefix, file) in sources {
        for variant in variants(file) {
            let name = format!("{prefix}{variant}");
            let wraps = provoked.iter().any(|other| other.starts_with(&format!("{name}/")));
            assert!(wraps || provoked.contains(&name), "no test provokes {name}");
        }
    }
}

/// The variants of a file's error enum: what follows the `#[error(…)]` attributes.
fn variants(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let source = std::fs::read_to_string(path).unwrap();
    let body = source.split_once("thiserror::Error").unwrap().1.split_once("\n}\n").unwrap().0;
    let is_variant = |line: &&str| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase);
    let name = |line: &str| line[4..].split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
    let found: Vec<String> = body.lines().filter(is_variant).map(name).collect();
    assert!(found.len() > 3, "{file}: {found:?}");
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed")
}
