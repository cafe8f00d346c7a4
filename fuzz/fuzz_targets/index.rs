//! `model.safetensors.index.json`: parsed, and compared with shards that hold part of what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};

fuzz_target!(|data: &[u8]| {
    let Ok(index) = k2_weights::shards::parse(data) else { return };
    for file in &index.files {
        let down = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        assert!(down, "{file:?} leads out of the folder");
    }
    let mut found: Vec<(usize, &str)> =
        index.tensors.iter().map(|(name, &file)| (file, name.as_str())).collect();
    assert!(index.check(&found).is_ok());
    if found.pop().is_some() {
        assert!(index.check(&found).is_err());
    }
});
