//! A task with no files: repeat what was just said.

use k2_train::recipe::Overrides;
use k2_train::rng::Rng;
use k2_train::{Batch, Recipe, Source, TrainError};
use serde_json::{Value, json};
use std::path::Path;

/// Each document is some random tokens and then the same ones again; only the second half counts.
pub(crate) struct CopyTask {
    pub(crate) next: u64,
    pub(crate) sequences: usize,
    pub(crate) length: usize,
    pub(crate) vocab_size: usize,
}

/// Tokens that are to be repeated.
const SPAN: usize = 8;

impl Source for CopyTask {
    fn next_batch(&mut self) -> Result<Batch, TrainError> {
        let mut rng = Rng::new(1000 + self.next);
        self.next += 1;
        let positions = self.sequences * self.length;
        let mut batch = Batch { sequences: self.sequences, length: self.length, ..Batch::default() };
        let mut document = Vec::new();
        for position in 0..positions {
            let place = position % self.length % (2 * SPAN);
            if place == 0 {
                let half: Vec<u32> = (0..SPAN).map(|_| rng.below(self.vocab_size) as u32).collect();
                document = [half.clone(), half, vec![0]].concat();
            }
            batch.tokens.push(document[place]);
            batch.targets.push(document[place + 1]);
            let counts = place + 1 >= SPAN && place + 1 < 2 * SPAN;
            batch.loss_mask.push(if counts { 1.0 } else { 0.0 });
            batch.document_ids.push((position / (2 * SPAN)) as u32);
        }
        Ok(batch)
    }

    fn cursor(&self) -> Value {
        json!(self.next)
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), TrainError> {
        self.next = cursor.as_u64().unwrap();
        Ok(())
    }
}

pub(crate) fn copy_task() -> CopyTask {
    CopyTask { next: 0, sequences: 6, length: 64, vocab_size: 24 }
}

/// A recipe for it; `changes` is put behind it.
pub(crate) fn recipe(run: &Path, steps: u64, changes: &str) -> Recipe {
    let _ = std::fs::remove_dir_all(run);
    let text = format!(
        r#"
run = "{}"
seed = 3
threads = 2
[model]
vocab_size = 24
hidden_size = 64
intermediate_size = 96
moe_intermediate_size = 32
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 4
q_lora_rank = 32
kv_lora_rank = 32
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 8
n_shared_experts = 1
num_experts_per_tok = 2
routed_scaling_factor = 1.4
rms_norm_eps = 1e-6
rope_theta = 10000.0
max_position_embeddings = 256
[data]
tokenizer = "tokenizer"
sources = [{{ kind = "lines" }}]
[batch]
length = 64
sequences = 6
[schedule]
shape = "wsd"
steps = {steps}
peak_lr = 5e-3
final_lr = 5e-4
warmup_steps = 5
decay_steps = 5
[optimizer]
matrices = "muon"
qk_clip_tau = 100.0
[balance]
bias_rate = 0.01
sequence_loss = 1e-4
{changes}
"#,
        run.display()
    );
    Recipe::parse(&text, Path::new("test.toml"), Overrides::default()).unwrap()
}
