//! What a checkpoint lacks, and what a batch asks for too much of, is said by name and number.

use k2_kernels::Pool;
use k2_model::{AttentionForm, BatchError, CacheDtype, Chunk, KimiK2, KvCache, LogitRows, Scratch};
use k2_weights::Checkpoint;
use std::path::Path;

use crate::fixtures::{load, own};

/// Copies a fixture with `from` replaced by `to` in its config; the error must contain `wanted`.
fn check(from: &str, to: &str, wanted: &str) {
    let folder = std::env::temp_dir().join(format!("k2-model-load-{}-{}", std::process::id(), wanted.len()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(own("bf16").join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(own("bf16").join("config.json")).unwrap();
    assert!(config.contains(from), "the fixture's config has no {from}");
    std::fs::write(folder.join("config.json"), config.replace(from, to)).unwrap();
    let error = load_error(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(error.contains(wanted), "{from} -> {to}: {error}");
}

fn load_error(folder: &Path) -> String {
    let checkpoint = Checkpoint::open(folder, &mut |_| ()).unwrap();
    match KimiK2::load(&checkpoint, Pool::new(1), &mut |_, _| ()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{} loads", folder.display()),
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let layers = load(&own("bf16"), 1).layers.len();
    let field = |layers: usize| format!("\"num_hidden_layers\": {layers}");
    check(&field(layers), &field(layers + 1), &format!("model.layers.{layers}.input_layernorm.weight"));
    check("\"vocab_size\": ", "\"vocab_size\": 1", "model.embed_tokens.weight");
}

#[test]
fn impossible_batches_are_refused() {
    let model = load(&own("bf16"), 1);
    let mut cache = KvCache::new(&model.config, 2, CacheDtype::F32);
    let (vocab_size, max_position_embeddings) =
        (model.config.vocab_size, model.config.max_position_embeddings);
    let many = vec![1; 33];
    let too_long = BatchError::TooLong { tokens: usize::MAX, max_position_embeddings };
    for (tokens, start, block_table, wanted) in [
        (&[][..], 0, &[0][..], BatchError::Empty),
        (&[vocab_size as u32], 0, &[0], BatchError::TokenId { id: vocab_size as u32, vocab_size }),
        (&[1], usize::MAX, &[0], too_long),
        (&many, 0, &[0], BatchError::TooFewBlocks { blocks: 1, room: 32, tokens: 33 }),
        (&many, 0, &[0, 2], BatchError::Block { block: 2, blocks: 2 }),
    ] {
        let form = AttentionForm::Absorbed;
        let chunk = Chunk { tokens, start, block_table, logits: LogitRows::Last, form };
        let mut scratch = Scratch::default();
        let found = model.forward(&mut cache, &[chunk], &mut scratch, None);
        assert_eq!(found.err(), Some(wanted));
    }
}
