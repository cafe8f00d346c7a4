//! Every model folder of the golden fixtures opens, and all of its weights widen to sane numbers.

use k2_weights::safetensors;
use std::path::{Path, PathBuf};

use crate::{numbers, open};

/// The folders under `K2_FIXTURES/model` that hold a config; none if there are no fixtures here.
pub(crate) fn model_folders() -> Vec<PathBuf> {
    let root = shared("model");
    let Ok(folders) = std::fs::read_dir(&root) else {
        println!("skipped: no fixtures at {}", root.display());
        return Vec::new();
    };
    let mut folders: Vec<_> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
    folders.retain(|folder| folder.join("config.json").exists());
    folders.sort();
    folders
}

/// The folder `name` beside the fixtures, or of them.
fn shared(name: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let root = std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    root.join(name)
}

#[test]
fn the_real_config_is_read_without_weights() {
    let path = shared("../kimi-tokenizer/config.k2.5.json");
    if !path.exists() {
        return println!("skipped: no {}", path.display());
    }
    let config = k2_weights::read_config(&path).unwrap();
    assert_eq!((&config["model_type"], &config["n_routed_experts"]), (&"kimi_k2".into(), &384.into()));
}

#[test]
fn every_folder_opens_and_every_weight_is_sane() {
    check(&crate::data("tiny"));
    for folder in model_folders() {
        check(&folder);
        check_embeddings(&folder);
    }
}

/// The first hidden states of the golden outputs are rows of the embedding, by their bits.
fn check_embeddings(folder: &Path) {
    let checkpoint = open(folder);
    let size = |field: &str| checkpoint.config()[field].as_u64().unwrap() as usize;
    let (vocab, hidden) = (size("vocab_size"), size("hidden_size"));
    let embedding = numbers(&checkpoint, "model.embed_tokens.weight", &[vocab, hidden]);
    let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let header = safetensors::parse(&file).unwrap();
    let bytes_of = |name: &str| {
        let (_, info) = header.tensors.iter().find(|(found, _)| found == name).unwrap();
        &file[info.range.clone()]
    };
    let ids = bytes_of("input_ids").as_chunks().0.iter().map(|id| i64::from_le_bytes(*id) as usize);
    let states = bytes_of("hidden_states").as_chunks().0.iter().map(|x| f32::from_le_bytes(*x));
    let rows = ids.flat_map(|id| &embedding[id * hidden..(id + 1) * hidden]);
    assert!(rows.zip(states).all(|(found, want)| *found == want), "{}: embeddings", folder.display());
}

fn check(folder: &Path) {
    let checkpoint = open(folder);
    let layers = checkpoint.config()["num_hidden_layers"].as_u64().unwrap();
    assert!(checkpoint.has(&format!("model.layers.{}.self_attn.o_proj.weight", layers - 1)));
    for entry in checkpoint.tensors() {
        let numbers = numbers(&checkpoint, entry.name, &entry.shape);
        assert_eq!(numbers.len(), entry.shape.iter().product::<usize>());
        let mean_square = numbers.iter().map(|x| f64::from(x * x)).sum::<f64>() / numbers.len() as f64;
        let (folder, name) = (folder.display(), entry.name);
        assert!(mean_square > 1e-6 && mean_square < 10.0, "{folder}: {name}: mean square {mean_square}");
    }
}
