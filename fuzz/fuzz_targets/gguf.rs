//! A GGUF file: parsed; and, if that is sound, its tokenizer made and the whole opened as a checkpoint.
#![no_main]

mod checkpoint;

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| checkpoint::scratch("gguf").join("model.gguf"));

fuzz_target!(|data: &[u8]| {
    let Ok(file) = k2_weights::gguf::parse(&data.to_vec().into()) else { return };
    if let Ok(Some(vocabulary)) = k2_weights::gguf::vocabulary(&file.metadata) {
        let _ = k2_chat::Tokenizer::from_gguf(k2_chat::GgufTokens {
            model: &vocabulary.model,
            pre: vocabulary.pre.as_deref().unwrap_or_default(),
            tokens: &vocabulary.tokens,
            token_types: &vocabulary.token_types,
            merges: &vocabulary.merges,
        });
    }
    if k2_weights::gguf::config(&[file]).is_ok() {
        std::fs::write(&*FILE, data).expect("a file");
        checkpoint::open_and_touch(&FILE);
    }
});
