//! A GGUF made from a folder holds the folder's config and, within the format's step, its numbers.
//!
//! `reference/make_gguf.py --committed` made the files beside this test. With `K2_GGUF` set to what
//! `make_gguf.py --every` wrote from `K2_FIXTURES/model`, each `NAME.FORM.gguf` there is compared with the
//! folder NAME as well.

use k2_kernels::GgmlType;
use k2_weights::Checkpoint;
use serde_json::Value;
use std::path::{Path, PathBuf};

use crate::fixtures::model_folders;
use crate::{data, numbers, open};

#[test]
fn committed_files_hold_what_the_folder_holds() {
    check(&data("tiny"), &data("gguf/tiny.q8_0.gguf"));
    check(&data("tiny"), &data("gguf/tiny.f16-joined-00001-of-00002.gguf"));
    check(&data("tiny"), &data("gguf/tiny.f16-joined-00002-of-00002.gguf"));
}

#[test]
fn converted_fixtures_hold_what_the_folders_hold() {
    let Some(made) = std::env::var_os("K2_GGUF").map(PathBuf::from) else {
        return println!("skipped: K2_GGUF is not set");
    };
    let files: Vec<PathBuf> = std::fs::read_dir(made).unwrap().map(|entry| entry.unwrap().path()).collect();
    for folder in model_folders() {
        let prefix = format!("{}.", folder.file_name().unwrap().to_str().unwrap());
        for file in
            files.iter().filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(&prefix))
        {
            check(&folder, file);
        }
    }
}

#[test]
fn every_block_format_is_read() {
    let checkpoint = open(&data("gguf/types.gguf"));
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/data/ggml");
    let mut kinds: Vec<GgmlType> = GgmlType::all().collect();
    kinds.sort_by_key(|kind| kind.name());
    for (layer, kind) in kinds.iter().enumerate() {
        let name = format!("model.layers.{layer}.mlp.up_proj.weight");
        let found = numbers(&checkpoint, &name, &[2, kind.block_len()]);
        let bytes = std::fs::read(expected.join(format!("{}.f32", kind.name()))).unwrap();
        let want = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        assert!(found.iter().map(|number| number.to_bits()).eq(want.take(found.len())), "{}", kind.name());
        assert_eq!(checkpoint.matrix(&name, 2, kind.block_len()).unwrap().format(), kind.name());
    }
}

#[test]
fn the_vocabulary_is_read() {
    let checkpoint = open(&data("gguf/tiny.q8_0.gguf"));
    let vocabulary = checkpoint.gguf_vocabulary().unwrap();
    assert_eq!((vocabulary.model.as_str(), vocabulary.pre.as_deref()), ("gpt2", Some("kimi-k2")));
    assert_eq!((vocabulary.tokens.len(), vocabulary.token_types.len()), (64, 64));
    assert_eq!(vocabulary.tokens[62], "<|im_end|>");
    assert_eq!(vocabulary.token_types[62], 3);
    assert_eq!((vocabulary.bos_token_id, vocabulary.eot_token_id), (Some(60), Some(62)));
    assert_eq!(vocabulary.add_bos_token, Some(false));
    assert_eq!(vocabulary.chat_template.as_deref(), Some("{{ messages }}"));
    assert_eq!(checkpoint.config()["eos_token_id"], serde_json::json!([61, 62]));
}

#[test]
fn version_2_is_read_like_version_3() {
    let mut file = std::fs::read(data("gguf/tiny.q8_0.gguf")).unwrap();
    let parse = |file: &[u8]| k2_weights::gguf::parse(&file.to_vec().into()).unwrap().tensors;
    let version_3 = parse(&file);
    assert_eq!(file[4..8], 3u32.to_le_bytes());
    file[4] = 2;
    assert_eq!(parse(&file), version_3);
}

fn check(folder: &Path, file: &Path) {
    let (official, gguf) = (open(folder), open(file));
    check_config(file, official.config(), gguf.config());
    assert_eq!(k2_weights::read_config(file).unwrap(), *gguf.config());
    for entry in official.tensors() {
        let want = numbers(&official, entry.name, &entry.shape);
        let name = match gguf.has(entry.name) {
            true => entry.name.to_owned(),
            false => {
                check_kv_b(file, &official, &gguf, entry.name, &want);
                continue;
            }
        };
        let found = numbers(&gguf, &name, &entry.shape);
        close(file, &gguf, &name, &found, &want);
    }
}

/// Every field that the GGUF gives is the official one. It cannot know the model's own name; its
/// `eos_token_id` is a list, and the token ids are those of the synthetic vocabulary.
fn check_config(file: &Path, official: &Value, gguf: &Value) {
    for (field, found) in gguf.as_object().unwrap() {
        if !["model_type", "bos_token_id", "eos_token_id", "pad_token_id"].contains(&field.as_str()) {
            same(&format!("{}: {field}", file.display()), found, &official[field]);
        }
    }
}

fn same(what: &str, found: &Value, want: &Value) {
    match found.as_object() {
        Some(fields) => fields.iter().for_each(|(field, found)| same(what, found, &want[field])),
        None if found.is_number() => assert_eq!(found.as_f64(), want.as_f64(), "{what}"),
        None => assert_eq!(found, want, "{what}"),
    }
}

/// `kv_b_proj` taken apart: per head the key rows transposed, and the value rows.
fn check_kv_b(file: &Path, official: &Checkpoint, gguf: &Checkpoint, name: &str, kv_b: &[f32]) {
    let layer = name.strip_suffix("kv_b_proj.weight").unwrap_or_else(|| panic!("{name} is missing"));
    let size = |field: &str| official.config()[field].as_u64().unwrap() as usize;
    let (heads, latent) = (size("num_attention_heads"), size("kv_lora_rank"));
    let (nope, v) = (size("qk_nope_head_dim"), size("v_head_dim"));
    let at = |head: usize, row: usize, col: usize| kv_b[(head * (nope + v) + row) * latent + col];
    let (mut k_b, mut v_b) = (Vec::new(), Vec::new());
    for head in 0..heads {
        k_b.extend((0..latent).flat_map(|col| (0..nope).map(move |row| at(head, row, col))));
        v_b.extend((0..v).flat_map(|row| (0..latent).map(move |col| at(head, nope + row, col))));
    }
    for (name, shape, want) in [("k_b", [heads * latent, nope], k_b), ("v_b", [heads * v, latent], v_b)] {
        let name = format!("{layer}{name}_proj.weight");
        close(file, gguf, &name, &numbers(gguf, &name, &shape), &want);
    }
}

/// Compares by the step of the stored format, relative to the largest number.
fn close(file: &Path, gguf: &Checkpoint, name: &str, found: &[f32], want: &[f32]) {
    let format = gguf.tensors().find(|entry| entry.name == name).unwrap().format;
    let step = match format {
        "F32" => 0.0,
        "F16" => 1.0 / 2048.0,
        "BF16" => 1.0 / 256.0,
        "Q8_0" => 1.0 / 127.0,
        "Q5_0" | "Q5_1" => 1.0 / 15.0,
        "Q4_0" | "Q4_1" => 1.0 / 7.0,
        "MXFP4" => 1.0 / 3.0,
        other => panic!("no step for {other}"),
    };
    let largest = want.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    assert_eq!(found.len(), want.len());
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        let allowed = step * largest;
        let file = file.display();
        assert!(
            (found - want).abs() <= allowed,
            "{file}: {name}[{i}] is {found} in {format}, expected {want}"
        );
    }
}
