//! Every model folder of the golden fixtures opens, and all of its weights widen to sane numbers.

use std::path::{Path, PathBuf};

use crate::{numbers, open};

/// The folders under `K2_FIXTURES/model` that hold a config; none if there are no fixtures here.
pub(crate) fn model_folders() -> Vec<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let root = std::env::var_os("K2_FIXTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let Ok(folders) = std::fs::read_dir(root.join("model")) else {
        println!("skipped: no fixtures at {}", root.display());
        return Vec::new();
    };
    let mut folders: Vec<_> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
    folders.retain(|folder| folder.join("config.json").exists());
    folders.sort();
    folders
}

#[test]
fn every_folder_opens_and_every_weight_is_sane() {
    check(&crate::data("tiny"));
    for folder in model_folders() {
        check(&folder);
    }
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
