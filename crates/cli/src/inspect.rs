//! `k2 inspect`: the model card's table for a checkpoint, and what it costs to run.
//!
//! Needs no weights: a `config.json` is enough. Then formats and sizes are what the config announces.

mod classes;
mod numbers;
mod storage;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use k2_model::{CacheDtype, Config, KvCache};
use k2_weights::{Checkpoint, Skipped, WeightsError, read_config};
use serde_json::{Value, json};

use crate::json_lines;
use crate::loading_bar::LoadingBar;
use numbers::{bytes, grouped, kibi, short};
use storage::Storage;

/// Show what a checkpoint is and what it costs: the card's table, formats, bytes per token.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A checkpoint's folder, a GGUF file, or a config.json alone.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<(), Box<dyn Error>> {
    let report = Report::of(&args.model)?;
    let mut output = io::stdout().lock();
    match args.json {
        true => json_lines::print(&mut output, &report.json()),
        false => {
            Ok(report.rows().iter().try_for_each(|(name, value)| writeln!(output, "{name:30} {value}"))?)
        }
    }
}

/// Everything that is shown.
struct Report {
    config: Config,
    storage: Storage,
    /// Whether sizes are those of files.
    has_weights: bool,
    skipped: Skipped,
}

impl Report {
    fn of(path: &Path) -> Result<Report, Box<dyn Error>> {
        let json = read_config(path)?;
        let config = Config::from_json(&json)?;
        let Some(checkpoint) = open(path)? else {
            let storage = Storage::announced(&config, &json)?;
            return Ok(Report { config, storage, has_weights: false, skipped: Skipped::default() });
        };
        let storage = Storage::stored(&config, &checkpoint);
        Ok(Report { config, storage, has_weights: true, skipped: checkpoint.skipped() })
    }

    /// The card's rows, then what it costs.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let c = &self.config;
        let (total, activated) = classes::parameters(c);
        let (bf16, f32) = kv_bytes(c);
        let mut rows = vec![
            ("Architecture", format!("Mixture-of-Experts (MoE), {}", c.model_type)),
            ("Total Parameters", format!("{} ({})", short(total), grouped(total))),
            ("Activated Parameters", format!("{} ({})", short(activated), grouped(activated))),
            ("Number of Layers", format!("{} (dense layers included)", c.num_hidden_layers)),
            ("Number of Dense Layers", dense_layers(c).to_string()),
            ("Hidden Dimension", c.hidden_size.to_string()),
            ("MoE Hidden Dimension", format!("{} (per expert)", c.moe_intermediate_size)),
            ("Number of Attention Heads", c.num_attention_heads.to_string()),
            ("Number of Experts", c.n_routed_experts.to_string()),
            ("Selected Experts per Token", c.num_experts_per_tok.to_string()),
            ("Number of Shared Experts", c.n_shared_experts.to_string()),
            ("Vocabulary Size", kibi(c.vocab_size)),
            ("Context Length", kibi(c.max_position_embeddings)),
            ("Attention Mechanism", "MLA".into()),
            ("Activation Function", "SwiGLU".into()),
            ("KV Cache per Token", format!("{} bytes in BF16, {} in F32", grouped(bf16), grouped(f32))),
            (self.disk_label(), bytes(self.storage.bytes())),
            ("Read per Token", bytes(self.storage.bytes_per_token(c))),
        ];
        if self.skipped.tensors > 0 {
            let Skipped { tensors, bytes: size } = self.skipped;
            rows.push(("Passed over", format!("{tensors} vision tensors, {}", bytes(size))));
        }
        rows.extend(self.storage.rows());
        rows
    }

    fn json(&self) -> Value {
        let c = &self.config;
        let (total, activated) = classes::parameters(c);
        let (bf16, f32) = kv_bytes(c);
        json!({
            "architecture": "Mixture-of-Experts (MoE)",
            "model_type": c.model_type,
            "total_parameters": total,
            "activated_parameters": activated,
            "num_hidden_layers": c.num_hidden_layers,
            "num_dense_layers": dense_layers(c),
            "hidden_size": c.hidden_size,
            "intermediate_size": c.intermediate_size,
            "moe_intermediate_size": c.moe_intermediate_size,
            "num_attention_heads": c.num_attention_heads,
            "n_routed_experts": c.n_routed_experts,
            "num_experts_per_tok": c.num_experts_per_tok,
            "n_shared_experts": c.n_shared_experts,
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.max_position_embeddings,
            "attention": "MLA",
            "activation": "SwiGLU",
            "kv_bytes_per_token": bf16,
            "kv_bytes_per_token_f32": f32,
            "weights": self.has_weights,
            "bytes_on_disk": self.storage.bytes(),
            "bytes_read_per_token": self.storage.bytes_per_token(c),
            "skipped": { "tensors": self.skipped.tensors, "bytes": self.skipped.bytes },
            "formats": self.storage.json(),
        })
    }

    fn disk_label(&self) -> &'static str {
        if self.has_weights { "Bytes on Disk" } else { "Bytes on Disk, announced" }
    }
}

/// The checkpoint, or nothing if there is a config only.
fn open(path: &Path) -> Result<Option<Checkpoint>, WeightsError> {
    let bar = LoadingBar::new();
    match Checkpoint::open(path, &mut |progress| bar.files(progress)) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(WeightsError::NoCheckpoint { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn dense_layers(config: &Config) -> usize {
    (0..config.num_hidden_layers).filter(|layer| !config.is_moe(*layer)).count()
}

/// Bytes of one token's latents in all layers: in BF16, and as computed.
fn kv_bytes(config: &Config) -> (u64, u64) {
    let bytes = |dtype| KvCache::bytes_per_token(config, dtype) as u64;
    (bytes(CacheDtype::Bf16), bytes(CacheDtype::F32))
}
