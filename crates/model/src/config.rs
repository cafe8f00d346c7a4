//! `config.json` of a Kimi K2 family checkpoint, read and validated.
//!
//! Field names are the official ones (DeepSeek-V3's `configuration_deepseek.py`). Every value that
//! changes a number is required: releases differ in exactly those (`beta_fast` is 1 or 32, `factor`
//! 32 or 64, `rms_norm_eps` 1e-6 or 1e-5), and an assumed one goes wrong only at length. GGUF
//! metadata arrives here under the same names.

use serde_json::Value;

/// What this engine runs: any widths of the `kimi_k2` / `deepseek_v3` architecture.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the checkpoint's own names
pub struct Config {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub moe_intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub first_k_dense_replace: usize,
    pub moe_layer_freq: usize,
    pub num_attention_heads: usize,
    pub q_lora_rank: Option<usize>,
    pub kv_lora_rank: usize,
    pub qk_nope_head_dim: usize,
    pub qk_rope_head_dim: usize,
    pub v_head_dim: usize,
    pub n_routed_experts: usize,
    pub n_shared_experts: usize,
    pub num_experts_per_tok: usize,
    pub n_group: usize,
    pub topk_group: usize,
    pub norm_topk_prob: bool,
    pub routed_scaling_factor: f32,
    pub rms_norm_eps: f32,
    pub rope_theta: f64,
    pub rope_scaling: Option<Yarn>,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
}

/// `rope_scaling` of type `yarn` (arXiv 2309.00071 with DeepSeek's `mscale`).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the checkpoint's own names
pub struct Yarn {
    pub factor: f64,
    pub original_max_position_embeddings: usize,
    pub beta_fast: f64,
    pub beta_slow: f64,
    pub mscale: f64,
    pub mscale_all_dim: f64,
}

/// Why a config is not one this engine can run.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// The file is JSON but not an object.
    #[error("config: expected a JSON object")]
    NotAnObject,
    /// A field that changes numbers is absent.
    #[error("config: field `{field}` is missing; it is needed to compute the right numbers")]
    Missing {
        /// Dotted path.
        field: String,
    },
    /// A field has another JSON type.
    #[error("config: `{field}` is {found}, expected {expected}")]
    Type {
        /// Dotted path.
        field: String,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A number is outside what makes sense.
    #[error("config: `{field}` is {found}, expected {expected}")]
    Range {
        /// Dotted path.
        field: String,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A value names a feature this engine does not compute.
    #[error("config: `{field}` is {found}; supported: {supported}")]
    Unsupported {
        /// Dotted path.
        field: String,
        /// What the file says.
        found: String,
        /// What is supported.
        supported: &'static str,
    },
}

/// Largest width, count or position accepted; far above any release, far below overflow.
const MAX: usize = 1 << 24;

impl Config {
    /// Reads the text model's config (for `kimi_k25`: the object under `text_config`).
    pub fn from_json(json: &Value) -> Result<Config, ConfigError> {
        let f = Fields::of(json)?;
        f.one_of(
            "model_type",
            &["kimi_k2", "deepseek_v3", "deepseek_v2"],
            "kimi_k2, deepseek_v3, deepseek_v2 (kimi_k25: its text_config)",
        )?;
        f.one_of("hidden_act", &["silu"], "silu")?;
        f.one_of("scoring_func", &["sigmoid"], "sigmoid")?;
        f.one_of("topk_method", &["noaux_tc"], "noaux_tc")?;
        f.unless_set("attention_bias", true, "false")?;
        f.unless_set("rope_interleave", false, "true (pairs of neighbouring channels)")?;
        let config = Config {
            model_type: f.string("model_type")?,
            vocab_size: f.count("vocab_size", 1)?,
            hidden_size: f.count("hidden_size", 1)?,
            intermediate_size: f.count("intermediate_size", 1)?,
            moe_intermediate_size: f.count("moe_intermediate_size", 1)?,
            num_hidden_layers: f.count("num_hidden_layers", 1)?,
            first_k_dense_replace: f.count("first_k_dense_replace", 0)?,
            moe_layer_freq: f.optional_count("moe_layer_freq", 1)?.unwrap_or(1),
            num_attention_heads: f.count("num_attention_heads", 1)?,
            q_lora_rank: f.nullable_count("q_lora_rank")?,
            kv_lora_rank: f.count("kv_lora_rank", 1)?,
            qk_nope_head_dim: f.count("qk_nope_head_dim", 1)?,
            qk_rope_head_dim: f.count("qk_rope_head_dim", 2)?,
            v_head_dim: f.count("v_head_dim", 1)?,
            n_routed_experts: f.count("n_routed_experts", 1)?,
            n_shared_experts: f.optional_count("n_shared_experts", 0)?.unwrap_or(0),
            num_experts_per_tok: f.count("num_experts_per_tok", 1)?,
            n_group: f.optional_count("n_group", 1)?.unwrap_or(1),
            topk_group: f.optional_count("topk_group", 1)?.unwrap_or(1),
            norm_topk_prob: f.boolean("norm_topk_prob")?,
            routed_scaling_factor: f.positive("routed_scaling_factor")? as f32,
            rms_norm_eps: f.positive("rms_norm_eps")? as f32,
            rope_theta: f.rope("rope_theta")?.positive("rope_theta")?,
            rope_scaling: Yarn::from_fields(&f)?,
            max_position_embeddings: f.count("max_position_embeddings", 1)?,
            tie_word_embeddings: f.optional_boolean("tie_word_embeddings")?.unwrap_or(false),
            bos_token_id: f.optional_count("bos_token_id", 0)?.map(|id| id as u32),
            eos_token_ids: f.token_ids("eos_token_id")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Whether a layer's feed-forward part is a mixture of experts.
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.first_k_dense_replace && layer.is_multiple_of(self.moe_layer_freq)
    }

    /// Channels of one query or key head: `qk_nope_head_dim + qk_rope_head_dim`.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Numbers cached per token and layer: the latent and the shared rotated key.
    pub fn latent_width(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }

    /// Width of the shared experts together (they are stored as one MLP).
    pub fn shared_intermediate_size(&self) -> usize {
        self.moe_intermediate_size * self.n_shared_experts
    }

    fn check(&self) -> Result<(), ConfigError> {
        let at_most = |field: &str, found: usize, limit: usize, what: &str| match found <= limit {
            true => Ok(()),
            false => Err(ConfigError::Range {
                field: field.into(),
                found: found.to_string(),
                expected: format!("at most {limit} ({what})"),
            }),
        };
        let divides = |field: &str, found: usize, by: usize, expected: &str| match found.is_multiple_of(by) {
            true => Ok(()),
            false => Err(ConfigError::Range {
                field: field.into(),
                found: found.to_string(),
                expected: expected.into(),
            }),
        };
        at_most("num_hidden_layers", self.num_hidden_layers, 4096, "a sane depth")?;
        at_most("num_attention_heads", self.num_attention_heads, 4096, "a sane count")?;
        at_most("n_shared_experts", self.n_shared_experts, 1024, "a sane count")?;
        at_most(
            "first_k_dense_replace",
            self.first_k_dense_replace,
            self.num_hidden_layers,
            "num_hidden_layers",
        )?;
        divides("qk_rope_head_dim", self.qk_rope_head_dim, 2, "an even number: channels rotate in pairs")?;
        divides("n_routed_experts", self.n_routed_experts, self.n_group, "a multiple of n_group")?;
        at_most("topk_group", self.topk_group, self.n_group, "n_group")?;
        let eligible = self.n_routed_experts / self.n_group * self.topk_group;
        at_most("num_experts_per_tok", self.num_experts_per_tok, eligible, "experts in topk_group groups")
    }
}

impl Yarn {
    fn from_fields(f: &Fields) -> Result<Option<Yarn>, ConfigError> {
        let Some(rope) = f.rope_scaling()? else { return Ok(None) };
        let kind = if rope.get("type").is_some() { "type" } else { "rope_type" };
        if rope.string(kind)? == "default" {
            return Ok(None);
        }
        rope.one_of(kind, &["yarn"], "yarn, or rope_scaling null")?;
        Ok(Some(Yarn {
            factor: rope.positive("factor")?,
            original_max_position_embeddings: rope.count("original_max_position_embeddings", 1)?,
            beta_fast: rope.positive("beta_fast")?,
            beta_slow: rope.positive("beta_slow")?,
            mscale: rope.number("mscale")?,
            mscale_all_dim: rope.number("mscale_all_dim")?,
        }))
    }
}

/// A JSON object whose reads fail with the field's dotted path.
struct Fields<'a> {
    path: String,
    object: &'a serde_json::Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(json: &'a Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or(ConfigError::NotAnObject)?;
        Ok(Fields { path: String::new(), object })
    }

    /// A field that is present and not null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn require(&self, name: &str) -> Result<&'a Value, ConfigError> {
        self.get(name).ok_or_else(|| ConfigError::Missing { field: self.named(name) })
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    fn wrong(&self, name: &str, value: &Value, expected: &'static str) -> ConfigError {
        ConfigError::Type { field: self.named(name), found: shown(value), expected }
    }

    fn inside(&self, name: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.wrong(name, value, "an object or null"))?;
        Ok(Some(Fields { path: format!("{}{name}.", self.path), object }))
    }

    /// `rope_scaling`, or the `rope_parameters` that newer configs write.
    fn rope_scaling(&self) -> Result<Option<Fields<'a>>, ConfigError> {
        match self.inside("rope_scaling")? {
            Some(rope) => Ok(Some(rope)),
            None => self.inside("rope_parameters"),
        }
    }

    /// The object that holds a rope field: this one, or `rope_parameters`.
    fn rope(&self, name: &str) -> Result<Fields<'a>, ConfigError> {
        let here = Fields { path: self.path.clone(), object: self.object };
        match (self.get(name), self.inside("rope_parameters")?) {
            (None, Some(rope)) => Ok(rope),
            _ => Ok(here),
        }
    }

    fn count(&self, name: &str, least: usize) -> Result<usize, ConfigError> {
        let value = self.require(name)?;
        let number = value.as_u64().ok_or_else(|| self.wrong(name, value, "a whole number"))?;
        match usize::try_from(number) {
            Ok(n) if (least..=MAX).contains(&n) => Ok(n),
            _ => Err(ConfigError::Range {
                field: self.named(name),
                found: number.to_string(),
                expected: format!("{least} to {MAX}"),
            }),
        }
    }

    fn optional_count(&self, name: &str, least: usize) -> Result<Option<usize>, ConfigError> {
        self.get(name).map(|_| self.count(name, least)).transpose()
    }

    /// A field that must be there, but may be null.
    fn nullable_count(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        if !self.object.contains_key(name) {
            return Err(ConfigError::Missing { field: self.named(name) });
        }
        self.optional_count(name, 1)
    }

    fn number(&self, name: &str) -> Result<f64, ConfigError> {
        let value = self.require(name)?;
        value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.wrong(name, value, "a number"))
    }

    fn positive(&self, name: &str) -> Result<f64, ConfigError> {
        let number = self.number(name)?;
        match number > 0.0 && number < 1e12 {
            true => Ok(number),
            false => Err(ConfigError::Range {
                field: self.named(name),
                found: number.to_string(),
                expected: "a positive number".into(),
            }),
        }
    }

    fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        let value = self.require(name)?;
        value.as_bool().ok_or_else(|| self.wrong(name, value, "true or false"))
    }

    fn optional_boolean(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.get(name).map(|_| self.boolean(name)).transpose()
    }

    fn string(&self, name: &str) -> Result<String, ConfigError> {
        let value = self.require(name)?;
        value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(name, value, "a string"))
    }

    /// One id, a list of ids, or nothing.
    fn token_ids(&self, name: &str) -> Result<Vec<u32>, ConfigError> {
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.wrong(name, value, "a token id or a list of them"))
        };
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }

    fn one_of(&self, name: &str, values: &[&str], supported: &'static str) -> Result<(), ConfigError> {
        let found = self.string(name)?;
        match values.contains(&found.as_str()) {
            true => Ok(()),
            false => Err(ConfigError::Unsupported { field: self.named(name), found, supported }),
        }
    }

    fn unless_set(&self, name: &str, refused: bool, supported: &'static str) -> Result<(), ConfigError> {
        match self.optional_boolean(name)? {
            Some(found) if found == refused => {
                Err(ConfigError::Unsupported { field: self.named(name), found: found.to_string(), supported })
            }
            _ => Ok(()),
        }
    }
}

/// A value as shown in an error, cut so that a hostile file does not fill the terminal.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
