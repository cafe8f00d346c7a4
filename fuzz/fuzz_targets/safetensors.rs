//! A safetensors file: its header; and, if that is sound, a checkpoint made of it under each scheme.
#![no_main]

mod checkpoint;

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

const CONFIGS: [&str; 3] = [
    "{}",
    r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
    r#"{"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
        "ignore": ["lm_head", "re:.*self_attn.*"], "config_groups": {"g": {"targets": ["Linear"], "weights":
        {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}}}}}"#,
];

static FOLDERS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let make = |(i, config): (usize, &&str)| {
        let folder = checkpoint::scratch(&format!("safetensors-{i}"));
        std::fs::write(folder.join("config.json"), config).expect("a config");
        folder
    };
    CONFIGS.iter().enumerate().map(make).collect()
});

fuzz_target!(|data: &[u8]| {
    let Ok(header) = k2_weights::safetensors::parse(data) else { return };
    if header.tensors.iter().any(|(name, _)| name.starts_with("model.")) {
        for folder in FOLDERS.iter() {
            std::fs::write(folder.join("model.safetensors"), data).expect("a file");
            checkpoint::open_and_touch(folder);
        }
    }
});
