//! A GGUF file: parsed; and, if that is sound, opened as a checkpoint with config, vocabulary and tensors.
#![no_main]

mod checkpoint;

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| checkpoint::scratch("gguf").join("model.gguf"));

fuzz_target!(|data: &[u8]| {
    let Ok(file) = k2_weights::gguf::parse(&data.to_vec().into()) else { return };
    let _ = k2_weights::gguf::vocabulary(&file.metadata);
    if k2_weights::gguf::config(&[file]).is_ok() {
        std::fs::write(&*FILE, data).expect("a file");
        checkpoint::open_and_touch(&FILE);
    }
});
