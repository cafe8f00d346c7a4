//! From an opened checkpoint (or from random numbers, for benchmarks) to a model, by the official tensor names.
//!
//! Nothing is copied but norms and biases: matrices stay where the checkpoint mapped them, in the format
//! that it has. A layer behind the last one (the multi-token prediction of DeepSeek-V3) is left alone.

use k2_kernels::{Matrix, Pool, Precision};
use k2_weights::{Checkpoint, WeightsError};

use crate::config::{Config, ConfigError};
use crate::kimi_k2::KimiK2;
use crate::layer::{FeedForward, Layer};
use crate::mla::{KeyValueProjection, Mla, QueryProjection};
use crate::mlp::Mlp;
use crate::moe::Moe;
use crate::rope::Rope;
use crate::router::Router;
use crate::synthetic::Synthetic;

/// Why a checkpoint is not a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its config is not one this engine computes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor is missing, or not what the config says.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl KimiK2 {
    /// Finds and checks every tensor of the config's architecture. `progress` hears, layer by layer, how
    /// many of how many are there.
    pub fn load(
        checkpoint: &Checkpoint,
        pool: Pool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<KimiK2, LoadError> {
        let config = Config::from_json(checkpoint.config())?;
        Ok(KimiK2::from_source(Source::Checkpoint(checkpoint), config, pool, progress)?)
    }

    /// A model of random weights, made in memory: what benchmarks compute where no checkpoint is at hand.
    pub fn synthetic(
        synthetic: &Synthetic,
        pool: Pool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<KimiK2, WeightsError> {
        let config = synthetic.config();
        KimiK2::from_source(Source::Synthetic(synthetic), config, pool, progress)
    }

    fn from_source(
        source: Source<'_>,
        config: Config,
        pool: Pool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<KimiK2, WeightsError> {
        let tensors = Tensors { source, config: &config };
        let embed_tokens = tensors.vocabulary("model.embed_tokens.weight")?;
        let lm_head = match config.tie_word_embeddings {
            true => tensors.vocabulary("model.embed_tokens.weight")?,
            false => tensors.vocabulary("lm_head.weight")?,
        };
        let norm = tensors.source.vector("model.norm.weight", config.hidden_size)?;
        let layers = (0..config.num_hidden_layers)
            .map(|number| {
                progress(number, config.num_hidden_layers);
                tensors.layer(number)
            })
            .collect::<Result<Vec<Layer>, WeightsError>>()?;
        progress(config.num_hidden_layers, config.num_hidden_layers);
        let rope = Rope::new(&config);
        let precision = Precision::default();
        Ok(KimiK2 { rope, embed_tokens, layers, norm, lm_head, precision, pool, config })
    }
}

/// Where tensors come from.
enum Source<'a> {
    Checkpoint(&'a Checkpoint),
    Synthetic(&'a Synthetic),
}

impl Source<'_> {
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, WeightsError> {
        match self {
            Source::Checkpoint(checkpoint) => checkpoint.matrix(name, rows, cols),
            Source::Synthetic(synthetic) => synthetic.matrix(name, rows, cols),
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        match self {
            Source::Checkpoint(checkpoint) => checkpoint.vector(name, len),
            Source::Synthetic(synthetic) => Ok(synthetic.vector(name, len)),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Source::Checkpoint(checkpoint) => checkpoint.has(name),
            Source::Synthetic(synthetic) => synthetic.has(name),
        }
    }
}

/// The tensors of a source with the shapes of its config.
struct Tensors<'a> {
    source: Source<'a>,
    config: &'a Config,
}

impl Tensors<'_> {
    fn vocabulary(&self, name: &str) -> Result<Matrix, WeightsError> {
        self.source.matrix(name, self.config.vocab_size, self.config.hidden_size)
    }

    fn layer(&self, number: usize) -> Result<Layer, WeightsError> {
        let prefix = format!("model.layers.{number}");
        let hidden = self.config.hidden_size;
        let mlp = format!("{prefix}.mlp");
        Ok(Layer {
            input_layernorm: self.source.vector(&format!("{prefix}.input_layernorm.weight"), hidden)?,
            self_attn: self.mla(&format!("{prefix}.self_attn"))?,
            post_attention_layernorm: self
                .source
                .vector(&format!("{prefix}.post_attention_layernorm.weight"), hidden)?,
            mlp: match self.config.is_moe(number) {
                true => FeedForward::Moe(Box::new(self.moe(&mlp)?)),
                false => FeedForward::Dense(Box::new(self.mlp(&mlp, self.config.intermediate_size)?)),
            },
        })
    }

    fn mla(&self, prefix: &str) -> Result<Mla, WeightsError> {
        let c = self.config;
        let matrix =
            |name: &str, rows, cols| self.source.matrix(&format!("{prefix}.{name}.weight"), rows, cols);
        let vector = |name: &str, len| self.source.vector(&format!("{prefix}.{name}.weight"), len);
        let queries = c.num_attention_heads * c.qk_head_dim();
        Ok(Mla {
            q: match c.q_lora_rank {
                None => QueryProjection::Direct { q_proj: matrix("q_proj", queries, c.hidden_size)? },
                Some(rank) => QueryProjection::LowRank {
                    q_a_proj: matrix("q_a_proj", rank, c.hidden_size)?,
                    q_a_layernorm: vector("q_a_layernorm", rank)?,
                    q_b_proj: matrix("q_b_proj", queries, rank)?,
                },
            },
            kv_a_proj_with_mqa: matrix("kv_a_proj_with_mqa", c.latent_width(), c.hidden_size)?,
            kv_a_layernorm: vector("kv_a_layernorm", c.kv_lora_rank)?,
            kv_b: self.kv_b(prefix)?,
            o_proj: matrix("o_proj", c.hidden_size, c.num_attention_heads * c.v_head_dim)?,
        })
    }

    /// `kv_b_proj`, or the two halves that newer GGUF files have in its place.
    fn kv_b(&self, prefix: &str) -> Result<KeyValueProjection, WeightsError> {
        let c = self.config;
        let (heads, latent) = (c.num_attention_heads, c.kv_lora_rank);
        let matrix =
            |name: &str, rows, cols| self.source.matrix(&format!("{prefix}.{name}.weight"), rows, cols);
        Ok(match self.source.has(&format!("{prefix}.k_b_proj.weight")) {
            false => KeyValueProjection::Joint {
                kv_b_proj: matrix("kv_b_proj", heads * (c.qk_nope_head_dim + c.v_head_dim), latent)?,
            },
            true => KeyValueProjection::Split {
                k_b_proj: matrix("k_b_proj", heads * latent, c.qk_nope_head_dim)?,
                v_b_proj: matrix("v_b_proj", heads * c.v_head_dim, latent)?,
            },
        })
    }

    fn moe(&self, prefix: &str) -> Result<Moe, WeightsError> {
        let c = self.config;
        let experts = c.n_routed_experts;
        let gate = self.source.matrix(&format!("{prefix}.gate.weight"), experts, c.hidden_size)?;
        let bias = self.source.vector(&format!("{prefix}.gate.e_score_correction_bias"), experts)?;
        let expert = |number| self.mlp(&format!("{prefix}.experts.{number}"), c.moe_intermediate_size);
        let shared = || self.mlp(&format!("{prefix}.shared_experts"), c.shared_intermediate_size());
        Ok(Moe {
            gate: Router::new(c, gate, bias),
            experts: (0..experts).map(expert).collect::<Result<_, _>>()?,
            shared_experts: (c.n_shared_experts > 0).then(shared).transpose()?,
        })
    }

    fn mlp(&self, prefix: &str, width: usize) -> Result<Mlp, WeightsError> {
        let hidden = self.config.hidden_size;
        let matrix =
            |name: &str, rows, cols| self.source.matrix(&format!("{prefix}.{name}.weight"), rows, cols);
        Ok(Mlp {
            gate_proj: matrix("gate_proj", width, hidden)?,
            up_proj: matrix("up_proj", width, hidden)?,
            down_proj: matrix("down_proj", hidden, width)?,
        })
    }
}
