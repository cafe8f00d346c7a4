//! GGUF files made from the fixtures by the `gguf` Python package give the same greedy tokens.

use std::path::{Path, PathBuf};

use crate::fixtures::{Expected, folders, load};
use crate::sequences::Sequences;

/// Whether a form holds the folder's numbers; in the others tokens need not be equal.
fn is_exact(form: &str, folder: &Path) -> bool {
    let quantised =
        std::fs::read_to_string(folder.join("config.json")).unwrap().contains("quantization_config");
    form.starts_with("f32") || !quantised && (form.starts_with("bf16") || form.starts_with("f16"))
}

/// `K2_GGUF` is what `reference/make_gguf.py --every K2_FIXTURES/model` wrote: `NAME.FORM.gguf`.
#[test]
fn gguf_files_continue_like_their_folders() {
    let Some(made) = std::env::var_os("K2_GGUF").map(PathBuf::from) else {
        return println!("skipped: K2_GGUF is not set");
    };
    let mut checked = 0;
    for entry in std::fs::read_dir(made).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        for folder in folders() {
            let prefix = format!("{}.", folder.file_name().unwrap().to_str().unwrap());
            let Some(form) = name.strip_prefix(&prefix) else { continue };
            if is_exact(form, &folder) {
                check(&folder, &file);
                checked += 1;
            }
        }
    }
    assert!(checked > 0, "K2_GGUF holds no file of an exact form");
}

fn check(folder: &Path, file: &Path) {
    let (model, expected) = (load(file, 2), Expected::of(folder));
    let (prompt, greedy) = (expected.ids("input_ids"), expected.ids("greedy_tokens"));
    let mut sequences = Sequences::new(&model, 1, prompt.len() + greedy.len());
    let logits = sequences.step(&[(0, &prompt)], None);
    let last = logits[logits.len() - model.config.vocab_size..].to_vec();
    let (tokens, _) = sequences.greedy(0, last, greedy.len());
    assert_eq!(tokens, greedy, "{}", file.display());
}
