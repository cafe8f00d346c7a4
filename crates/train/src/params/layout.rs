//! Which tensors a config asks for, in which shape, and where they lie.

use k2_model::Config;

use crate::gemm::{View, ViewMut};

/// The tensors of a model in the order of the vector that holds them.
pub struct Layout {
    config: Config,
    tensors: Vec<Tensor>,
    len: usize,
    pub(crate) embed_tokens: Slot,
    pub(crate) layers: Vec<LayerSlots>,
    pub(crate) norm: Slot,
    pub(crate) lm_head: Slot,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Official name.
    pub name: String,
    /// Where it lies.
    pub slot: Slot,
    /// How it is trained.
    pub rule: Rule,
}

/// A place in the vector. A norm is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the first number.
    pub start: usize,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

/// How a tensor is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A matrix inside a layer, the router's too: Muon's.
    Matrix,
    /// `embed_tokens` and `lm_head`: matrices, but AdamW's.
    Table,
    /// A norm's gain: AdamW's.
    Gain,
    /// `e_score_correction_bias`: no gradient, moved by the balance rule.
    SelectionBias,
}

/// One layer's tensors.
pub(crate) struct LayerSlots {
    pub input_layernorm: Slot,
    pub self_attn: MlaSlots,
    pub post_attention_layernorm: Slot,
    pub mlp: TransformSlots,
}

/// Attention.
pub(crate) struct MlaSlots {
    pub q: QuerySlots,
    pub kv_a_proj_with_mqa: Slot,
    pub kv_a_layernorm: Slot,
    pub kv_b_proj: Slot,
    pub o_proj: Slot,
}

/// Queries, with q LoRA or without.
pub(crate) enum QuerySlots {
    Direct { q_proj: Slot },
    LowRank { q_a_proj: Slot, q_a_layernorm: Slot, q_b_proj: Slot },
}

impl QuerySlots {
    /// The matrix whose rows are the heads' queries.
    pub(crate) fn heads(&self) -> Slot {
        match self {
            QuerySlots::Direct { q_proj } => *q_proj,
            QuerySlots::LowRank { q_b_proj, .. } => *q_b_proj,
        }
    }
}

/// A layer's feed-forward part.
pub(crate) enum TransformSlots {
    Dense(MlpSlots),
    Moe(MoeSlots),
}

/// SwiGLU. `gate_up_proj` is `gate_proj` and, right behind it, `up_proj`.
#[derive(Clone, Copy)]
pub(crate) struct MlpSlots {
    pub gate_up_proj: Slot,
    pub down_proj: Slot,
}

/// Mixture of experts.
pub(crate) struct MoeSlots {
    pub gate: Slot,
    pub e_score_correction_bias: Slot,
    pub experts: Vec<MlpSlots>,
    pub shared_experts: Option<MlpSlots>,
}

impl Layout {
    /// Lays out a model.
    pub fn new(config: &Config) -> Layout {
        let mut build = Builder::default();
        let embed_tokens =
            build.add("model.embed_tokens.weight", config.vocab_size, config.hidden_size, Rule::Table);
        let layers = (0..config.num_hidden_layers).map(|layer| build.layer(config, layer)).collect();
        let norm = build.gain("model.norm.weight", config.hidden_size);
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens,
            false => build.add("lm_head.weight", config.vocab_size, config.hidden_size, Rule::Table),
        };
        let Builder { tensors, len } = build;
        Layout { config: config.clone(), tensors, len, embed_tokens, layers, norm, lm_head }
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every tensor.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// A tensor by its official name.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// How many numbers there are in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; no config asks for that.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The layers that are mixtures of experts.
    pub(crate) fn moe_layers(&self) -> impl Iterator<Item = (usize, &MoeSlots)> {
        self.layers.iter().enumerate().filter_map(|(layer, slots)| match &slots.mlp {
            TransformSlots::Moe(moe) => Some((layer, moe)),
            TransformSlots::Dense(_) => None,
        })
    }
}

impl Tensor {
    /// As in the official files: gains and biases are vectors.
    pub fn shape(&self) -> Vec<usize> {
        match self.rule {
            Rule::Matrix | Rule::Table => vec![self.slot.rows, self.slot.cols],
            Rule::Gain | Rule::SelectionBias => vec![self.slot.cols],
        }
    }
}

impl Slot {
    /// Numbers in it.
    #[allow(clippy::len_without_is_empty)] // no tensor is empty
    pub fn len(self) -> usize {
        self.rows * self.cols
    }

    /// The tensor inside a vector of the layout.
    pub fn of(self, values: &[f32]) -> &[f32] {
        &values[self.start..self.start + self.len()]
    }

    /// The tensor inside a vector of the layout, to be changed.
    pub fn of_mut(self, values: &mut [f32]) -> &mut [f32] {
        &mut values[self.start..self.start + self.len()]
    }

    pub(crate) fn view(self, values: &[f32]) -> View<'_> {
        View::rows_of(self.of(values), self.cols)
    }

    pub(crate) fn view_mut(self, values: &mut [f32]) -> ViewMut<'_> {
        ViewMut::rows_of(self.of_mut(values), self.cols)
    }
}

#[derive(Default)]
struct Builder {
    tensors: Vec<Tensor>,
    len: usize,
}

impl Builder {
    fn add(&mut self, name: impl Into<String>, rows: usize, cols: usize, rule: Rule) -> Slot {
        let slot = Slot { start: self.len, rows, cols };
        self.len += slot.len();
        self.tensors.push(Tensor { name: name.into(), slot, rule });
        slot
    }

    fn matrix(&mut self, name: String, rows: usize, cols: usize) -> Slot {
        self.add(name, rows, cols, Rule::Matrix)
    }

    fn gain(&mut self, name: impl Into<String>, len: usize) -> Slot {
        self.add(name, 1, len, Rule::Gain)
    }

    fn layer(&mut self, config: &Config, layer: usize) -> LayerSlots {
        let prefix = format!("model.layers.{layer}");
        LayerSlots {
            input_layernorm: self.gain(format!("{prefix}.input_layernorm.weight"), config.hidden_size),
            self_attn: self.attention(config, &format!("{prefix}.self_attn")),
            post_attention_layernorm: self
                .gain(format!("{prefix}.post_attention_layernorm.weight"), config.hidden_size),
            mlp: match config.is_moe(layer) {
                true => TransformSlots::Moe(self.moe(config, &format!("{prefix}.mlp"))),
                false => TransformSlots::Dense(self.mlp(
                    &format!("{prefix}.mlp"),
                    config.hidden_size,
                    config.intermediate_size,
                )),
            },
        }
    }

    fn attention(&mut self, config: &Config, prefix: &str) -> MlaSlots {
        let (hidden, latent, heads) = (config.hidden_size, config.kv_lora_rank, config.num_attention_heads);
        let queries = heads * config.qk_head_dim();
        let q = match config.q_lora_rank {
            None => {
                QuerySlots::Direct { q_proj: self.matrix(format!("{prefix}.q_proj.weight"), queries, hidden) }
            }
            Some(rank) => QuerySlots::LowRank {
                q_a_proj: self.matrix(format!("{prefix}.q_a_proj.weight"), rank, hidden),
                q_a_layernorm: self.gain(format!("{prefix}.q_a_layernorm.weight"), rank),
                q_b_proj: self.matrix(format!("{prefix}.q_b_proj.weight"), queries, rank),
            },
        };
        let keys_and_values = heads * (config.qk_nope_head_dim + config.v_head_dim);
        MlaSlots {
            q,
            kv_a_proj_with_mqa: self.matrix(
                format!("{prefix}.kv_a_proj_with_mqa.weight"),
                config.latent_width(),
                hidden,
            ),
            kv_a_layernorm: self.gain(format!("{prefix}.kv_a_layernorm.weight"), latent),
            kv_b_proj: self.matrix(format!("{prefix}.kv_b_proj.weight"), keys_and_values, latent),
            o_proj: self.matrix(format!("{prefix}.o_proj.weight"), hidden, heads * config.v_head_dim),
        }
    }

    fn moe(&mut self, config: &Config, prefix: &str) -> MoeSlots {
        let (hidden, experts) = (config.hidden_size, config.n_routed_experts);
        MoeSlots {
            gate: self.matrix(format!("{prefix}.gate.weight"), experts, hidden),
            e_score_correction_bias: self.add(
                format!("{prefix}.gate.e_score_correction_bias"),
                1,
                experts,
                Rule::SelectionBias,
            ),
            experts: (0..experts)
                .map(|e| self.mlp(&format!("{prefix}.experts.{e}"), hidden, config.moe_intermediate_size))
                .collect(),
            shared_experts: (config.n_shared_experts > 0).then(|| {
                self.mlp(&format!("{prefix}.shared_experts"), hidden, config.shared_intermediate_size())
            }),
        }
    }

    fn mlp(&mut self, prefix: &str, hidden: usize, width: usize) -> MlpSlots {
        let gate_proj = self.matrix(format!("{prefix}.gate_proj.weight"), width, hidden);
        self.matrix(format!("{prefix}.up_proj.weight"), width, hidden);
        MlpSlots {
            gate_up_proj: Slot { start: gate_proj.start, rows: 2 * width, cols: hidden },
            down_proj: self.matrix(format!("{prefix}.down_proj.weight"), hidden, width),
        }
    }
}
