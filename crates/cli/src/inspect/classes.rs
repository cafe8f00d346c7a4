//! The kinds of tensors a model of this architecture has, with their numbers: one table, from which parameters
//! and announced sizes follow.

use k2_model::Config;

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Embedding,
    Attention,
    DenseMlp,
    Router,
    RoutedExperts,
    SharedExperts,
    Norms,
    Head,
    /// What the forward pass does not touch: layers of multi-token prediction.
    Unused,
}

use Class::*;

impl Class {
    /// As shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            Embedding => "embedding",
            Attention => "attention",
            DenseMlp => "dense_mlp",
            Router => "router",
            RoutedExperts => "routed_experts",
            SharedExperts => "shared_experts",
            Norms => "norms",
            Head => "lm_head",
            Unused => "unused",
        }
    }

    /// The class of a tensor, by its official name.
    pub(super) fn of(name: &str, config: &Config) -> Class {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        match name {
            _ if layer.is_some_and(|layer: usize| layer >= config.num_hidden_layers) => Unused,
            _ if name.contains("norm") => Norms,
            _ if name.starts_with("model.embed_tokens.") => Embedding,
            _ if name.starts_with("lm_head.") => Head,
            _ if name.contains(".self_attn.") => Attention,
            _ if name.contains(".mlp.experts.") => RoutedExperts,
            _ if name.contains(".mlp.shared_experts.") => SharedExperts,
            _ if name.contains(".mlp.gate.") => Router,
            _ if name.contains(".mlp.") => DenseMlp,
            _ => Unused,
        }
    }

    /// How much of the class one token's forward pass reads.
    pub(super) fn share_per_token(self, config: &Config) -> f64 {
        match self {
            Embedding if config.tie_word_embeddings => 1.0, // it is the head too
            Embedding => 1.0 / config.vocab_size as f64,
            RoutedExperts => config.num_experts_per_tok as f64 / config.n_routed_experts as f64,
            Unused => 0.0,
            _ => 1.0,
        }
    }
}

/// Matrices (or vectors, of one column) that are alike.
pub(super) struct Alike {
    pub(super) class: Class,
    /// The official name of one of them.
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) count: usize,
}

impl Alike {
    /// At most what a u64 holds: widths are a config's, and no file has to be there.
    pub(super) fn parameters(&self) -> u64 {
        (self.rows as u64).saturating_mul(self.cols as u64).saturating_mul(self.count as u64)
    }
}

/// Parameters in all, and those that compute one token (the embedding, a table, is not counted there).
pub(super) fn parameters(config: &Config) -> (u64, u64) {
    let table = tensors(config);
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
    let total = sum(&mut table.iter().map(Alike::parameters));
    let activated = |alike: &Alike| match alike.class {
        Embedding if !config.tie_word_embeddings => 0,
        RoutedExperts => (alike.parameters() / config.n_routed_experts as u64)
            .saturating_mul(config.num_experts_per_tok as u64),
        _ => alike.parameters(),
    };
    (total, sum(&mut table.iter().map(activated)))
}

/// Every tensor of the architecture.
pub(super) fn tensors(config: &Config) -> Vec<Alike> {
    let mut table = Vec::new();
    let mut add = |class, name: &str, rows, cols, count| {
        table.push(Alike { class, name: name.to_owned(), rows, cols, count });
    };
    let c = config;
    let hidden = c.hidden_size;
    add(Embedding, "model.embed_tokens.weight", c.vocab_size, hidden, 1);
    add(Norms, "model.norm.weight", hidden, 1, 1);
    if !c.tie_word_embeddings {
        add(Head, "lm_head.weight", c.vocab_size, hidden, 1);
    }
    for layer in 0..c.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        add(Norms, &name("input_layernorm"), hidden, 1, 2);
        for (part, rows, cols) in attention(c) {
            let class = if part.ends_with("norm") { Norms } else { Attention };
            add(class, &name(&format!("self_attn.{part}")), rows, cols, 1);
        }
        if !c.is_moe(layer) {
            add(DenseMlp, &name("mlp.gate_proj"), c.intermediate_size, hidden, 2);
            add(DenseMlp, &name("mlp.down_proj"), hidden, c.intermediate_size, 1);
            continue;
        }
        let (width, experts) = (c.moe_intermediate_size, c.n_routed_experts);
        add(Router, &name("mlp.gate"), experts, hidden, 1);
        add(Router, &format!("model.layers.{layer}.mlp.gate.e_score_correction_bias"), experts, 1, 1);
        add(RoutedExperts, &name("mlp.experts.0.gate_proj"), width, hidden, 2 * experts);
        add(RoutedExperts, &name("mlp.experts.0.down_proj"), hidden, width, experts);
        if c.n_shared_experts > 0 {
            let width = c.shared_intermediate_size();
            add(SharedExperts, &name("mlp.shared_experts.gate_proj"), width, hidden, 2);
            add(SharedExperts, &name("mlp.shared_experts.down_proj"), hidden, width, 1);
        }
    }
    table
}

/// Names and shapes under `self_attn`.
fn attention(c: &Config) -> Vec<(&'static str, usize, usize)> {
    let queries = c.num_attention_heads * c.qk_head_dim();
    let mut parts = match c.q_lora_rank {
        None => vec![("q_proj", queries, c.hidden_size)],
        Some(rank) => {
            vec![("q_a_proj", rank, c.hidden_size), ("q_a_layernorm", rank, 1), ("q_b_proj", queries, rank)]
        }
    };
    let keys_values = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
    parts.extend([
        ("kv_a_proj_with_mqa", c.latent_width(), c.hidden_size),
        ("kv_a_layernorm", c.kv_lora_rank, 1),
        ("kv_b_proj", keys_values, c.kv_lora_rank),
        ("o_proj", c.hidden_size, c.num_attention_heads * c.v_head_dim),
    ]);
    parts
}
