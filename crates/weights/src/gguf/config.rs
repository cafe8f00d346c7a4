//! Metadata of architecture `deepseek2` as a config with the official field names.
//!
//! Keys are those of llama.cpp (`llama-arch.cpp`). A key may be absent where llama.cpp itself gives its
//! absence a meaning; [`FIELDS`] says which meaning. Anything else that changes numbers is required.

use serde_json::{Map, Value, json};

use super::{Gguf, GgufError, Metadata};

/// The only architecture read; every key of the model begins with it.
const ARCHITECTURE: &str = "deepseek2";

/// What a key holds.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    Number,
    Bool,
}

/// What it means that a key is not there.
#[derive(Clone, Copy)]
enum Absent {
    Refused,
    Null,
    Count(u64),
    Number(f64),
    False,
}

/// One line per field that a single key gives: official name, key after the architecture, type, and the
/// meaning of absence (llama.cpp's `llama_hparams` defaults; K2 files have all of them but `q_lora_rank`,
/// which models without a query projection of low rank lack, and, in early files, the groups).
const FIELDS: [(&str, &str, Kind, Absent); 19] = [
    ("hidden_size", "embedding_length", Kind::Count, Absent::Refused),
    ("intermediate_size", "feed_forward_length", Kind::Count, Absent::Refused),
    ("moe_intermediate_size", "expert_feed_forward_length", Kind::Count, Absent::Refused),
    ("num_hidden_layers", "block_count", Kind::Count, Absent::Refused),
    ("first_k_dense_replace", "leading_dense_block_count", Kind::Count, Absent::Count(0)),
    ("num_attention_heads", "attention.head_count", Kind::Count, Absent::Refused),
    ("q_lora_rank", "attention.q_lora_rank", Kind::Count, Absent::Null),
    ("kv_lora_rank", "attention.kv_lora_rank", Kind::Count, Absent::Refused),
    ("qk_rope_head_dim", "rope.dimension_count", Kind::Count, Absent::Refused),
    ("n_routed_experts", "expert_count", Kind::Count, Absent::Refused),
    ("n_shared_experts", "expert_shared_count", Kind::Count, Absent::Refused),
    ("num_experts_per_tok", "expert_used_count", Kind::Count, Absent::Refused),
    ("n_group", "expert_group_count", Kind::Count, Absent::Count(1)),
    ("topk_group", "expert_group_used_count", Kind::Count, Absent::Count(1)),
    ("norm_topk_prob", "expert_weights_norm", Kind::Bool, Absent::False),
    ("routed_scaling_factor", "expert_weights_scale", Kind::Number, Absent::Number(1.0)),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon", Kind::Number, Absent::Refused),
    ("rope_theta", "rope.freq_base", Kind::Number, Absent::Number(10_000.0)),
    ("max_position_embeddings", "context_length", Kind::Count, Absent::Refused),
];

/// Fields whose 0 means the same as their absence.
const ZERO_IS_ABSENT: [&str; 3] = ["n_group", "topk_group", "routed_scaling_factor"];

/// Keys of features that this program does not compute, with the one value that switches each off.
const SWITCHED_OFF: [(&str, f64, &str); 5] = [
    ("nextn_predict_layers", 0.0, "0: no multi-token prediction layers"),
    ("attention.temperature_scale", 0.0, "0: no attention temperature"),
    ("rope.scaling.attn_factor", 1.0, "1"),
    ("rope.scaling.yarn_attn_factor", 1.0, "1"),
    ("rope.scaling.yarn_ext_factor", 1.0, "1"),
];

/// llama.cpp's `yarn_beta_fast` of files without the key. (Kimi K2 before K2.5 was trained with 1; newer
/// converters write the key.)
const BETA_FAST: f64 = 32.0;

/// llama.cpp's `yarn_beta_slow` of files without the key.
const BETA_SLOW: f64 = 1.0;

/// The config of a set of files: metadata of the first, tensors of all.
pub fn config(files: &[Gguf]) -> Result<Value, GgufError> {
    let Some(Gguf { metadata, .. }) = files.first() else { return Ok(Value::Null) };
    let keys = Keys { metadata };
    keys.check_architecture()?;
    let mut config = Map::new();
    let kimi = metadata.optional_text("tokenizer.ggml.pre")?.as_deref() == Some("kimi-k2");
    config.insert("model_type".into(), if kimi { "kimi_k2" } else { "deepseek_v3" }.into());
    for (field, key, kind, absent) in FIELDS {
        let zero_is_absent = ZERO_IS_ABSENT.contains(&field);
        config.insert(field.into(), keys.field(key, kind, absent, zero_is_absent)?);
    }
    keys.head_widths(&mut config)?;
    keys.router(&mut config, files)?;
    config.insert("rope_scaling".into(), keys.rope_scaling()?);
    config.insert("vocab_size".into(), keys.vocab_size(files)?.into());
    config.insert("tie_word_embeddings".into(), (!has(files, |name| name == "output.weight")).into());
    config.insert("hidden_act".into(), "silu".into());
    keys.token_ids(&mut config)?;
    Ok(Value::Object(config))
}

/// Whether any file of the set has such a tensor.
fn has(files: &[Gguf], named: impl Fn(&str) -> bool) -> bool {
    files.iter().flat_map(|file| &file.tensors).any(|tensor| named(&tensor.name))
}

/// Reads of the architecture's keys.
struct Keys<'a> {
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn check_architecture(&self) -> Result<(), GgufError> {
        const KEY: &str = "general.architecture";
        match self.metadata.optional_text(KEY)? {
            None => Err(GgufError::MissingKey { key: KEY.into() }),
            Some(name) if name == ARCHITECTURE => Ok(()),
            Some(_) => Err(self.metadata.wrong(KEY, "\"deepseek2\"")),
        }?;
        for (key, off, expected) in SWITCHED_OFF {
            let key = full(key);
            if self.metadata.optional_number(&key)?.is_some_and(|found| found != off) {
                return Err(self.metadata.wrong(&key, expected));
            }
        }
        Ok(())
    }

    fn field(&self, key: &str, kind: Kind, absent: Absent, zero_is_absent: bool) -> Result<Value, GgufError> {
        let key = full(key);
        let found = match kind {
            Kind::Count => self.metadata.optional_uint(&key)?.map(Value::from),
            Kind::Number => self.metadata.optional_number(&key)?.map(Value::from),
            Kind::Bool => self.metadata.optional_bool(&key)?.map(Value::from),
        };
        let found = found.filter(|value| !(zero_is_absent && value.as_f64() == Some(0.0)));
        match (found, absent) {
            (Some(value), _) => Ok(value),
            (None, Absent::Refused) => Err(GgufError::MissingKey { key }),
            (None, Absent::Null) => Ok(Value::Null),
            (None, Absent::Count(n)) => Ok(n.into()),
            (None, Absent::Number(n)) => Ok(n.into()),
            (None, Absent::False) => Ok(false.into()),
        }
    }

    fn count(&self, key: &str) -> Result<u64, GgufError> {
        let found = self.metadata.optional_uint(&full(key))?;
        found.ok_or_else(|| GgufError::MissingKey { key: full(key) })
    }

    fn number(&self, key: &str) -> Result<f64, GgufError> {
        let found = self.metadata.optional_number(&full(key))?;
        found.ok_or_else(|| GgufError::MissingKey { key: full(key) })
    }

    /// Files for latent attention give the width of a cached row as `key_length` (576) and the head's own
    /// as `key_length_mla` (192); older files give the head's own as `key_length`.
    fn head_widths(&self, config: &mut Map<String, Value>) -> Result<(), GgufError> {
        let own = |key: &str| match self.metadata.optional_uint(&full(&format!("{key}_mla")))? {
            Some(width) if width > 0 => Ok((width, format!("{key}_mla"))),
            _ => Ok((self.count(key)?, key.to_owned())),
        };
        let (qk, qk_key) = own("attention.key_length")?;
        let (v, _) = own("attention.value_length")?;
        let nope = qk.checked_sub(self.count("rope.dimension_count")?).filter(|&nope| nope > 0);
        let too_small = || self.metadata.wrong(&full(&qk_key), "more than rope.dimension_count");
        config.insert("qk_nope_head_dim".into(), nope.ok_or_else(too_small)?.into());
        config.insert("v_head_dim".into(), v.into());
        Ok(())
    }

    /// A file without the function is of the V2 generation to llama.cpp: softmax.
    fn router(&self, config: &mut Map<String, Value>, files: &[Gguf]) -> Result<(), GgufError> {
        let key = full("expert_gating_func");
        let scoring_func = match self.metadata.optional_uint(&key)? {
            None | Some(0 | 1) => "softmax",
            Some(2) => "sigmoid",
            Some(_) => return Err(self.metadata.wrong(&key, "1 (softmax) or 2 (sigmoid)")),
        };
        let bias = has(files, |name| name.ends_with(".exp_probs_b.bias"));
        config.insert("scoring_func".into(), scoring_func.into());
        config.insert("topk_method".into(), if bias { "noaux_tc" } else { "greedy" }.into());
        Ok(())
    }

    fn rope_scaling(&self) -> Result<Value, GgufError> {
        let key = full("rope.scaling.type");
        match self.metadata.optional_text(&key)?.as_deref() {
            Some("yarn") => self.yarn(),
            Some("none") => Ok(Value::Null),
            None | Some("linear") => {
                let factor = full("rope.scaling.factor");
                match self.metadata.optional_number(&factor)? {
                    None | Some(0.0 | 1.0) => Ok(Value::Null),
                    Some(_) => Err(self.metadata.wrong(&key, "\"yarn\" beside a rope.scaling.factor")),
                }
            }
            Some(_) => Err(self.metadata.wrong(&key, "\"yarn\", \"none\" or nothing")),
        }
    }

    /// `yarn_log_multiplier` is 0.1 x `mscale_all_dim`. The format has no place for another `mscale`; to
    /// llama.cpp it is the same number.
    fn yarn(&self) -> Result<Value, GgufError> {
        let log_multiplier = self.number("rope.scaling.yarn_log_multiplier")?;
        if log_multiplier <= 0.0 {
            let key = full("rope.scaling.yarn_log_multiplier");
            return Err(self.metadata.wrong(&key, "0.1 x mscale_all_dim, more than 0"));
        }
        // Divided in f32, as it was multiplied: 0.1 gives exactly 1.
        let mscale = f64::from(log_multiplier as f32 / 0.1);
        let or = |key: &str, absent| Ok(self.metadata.optional_number(&full(key))?.unwrap_or(absent));
        let original = match self.metadata.optional_uint(&full("rope.scaling.original_context_length"))? {
            Some(original) => original,
            None => self.count("context_length")?,
        };
        Ok(json!({
            "type": "yarn",
            "factor": self.number("rope.scaling.factor")?,
            "original_max_position_embeddings": original,
            "beta_fast": or("rope.scaling.yarn_beta_fast", BETA_FAST)?,
            "beta_slow": or("rope.scaling.yarn_beta_slow", BETA_SLOW)?,
            "mscale": mscale,
            "mscale_all_dim": mscale,
        }))
    }

    /// The key, or the length of the token list, or the rows of the embedding.
    fn vocab_size(&self, files: &[Gguf]) -> Result<u64, GgufError> {
        if let Some(size) = self.metadata.optional_uint(&full("vocab_size"))? {
            return Ok(size);
        }
        if let Some(tokens) = self.metadata.optional_array("tokenizer.ggml.tokens")? {
            return Ok(tokens.len() as u64);
        }
        let mut tensors = files.iter().flat_map(|file| &file.tensors);
        let embedding = tensors.find(|tensor| tensor.name == "token_embd.weight");
        let missing = || GgufError::MissingKey { key: full("vocab_size") };
        embedding.and_then(|tensor| tensor.shape.first()).map(|&rows| rows as u64).ok_or_else(missing)
    }

    /// `eos_token_id` becomes a list: end of sequence and, where it is another token, end of turn.
    fn token_ids(&self, config: &mut Map<String, Value>) -> Result<(), GgufError> {
        let id = |name: &str| self.metadata.optional_uint(&format!("tokenizer.ggml.{name}_token_id"));
        let mut ends: Vec<u64> = id("eos")?.into_iter().chain(id("eot")?).collect();
        ends.dedup();
        for (field, value) in [("bos_token_id", id("bos")?), ("pad_token_id", id("padding")?)] {
            if let Some(value) = value {
                config.insert(field.into(), value.into());
            }
        }
        if !ends.is_empty() {
            config.insert("eos_token_id".into(), ends.into());
        }
        Ok(())
    }
}

fn full(key: &str) -> String {
    format!("{ARCHITECTURE}.{key}")
}
