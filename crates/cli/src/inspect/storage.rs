//! Formats and bytes of each class of tensors: those of the files, or those that a config announces.

use std::collections::BTreeMap;

use k2_model::Config;
use k2_weights::Checkpoint;
use k2_weights::quantization::{QuantizationError, Scheme};
use serde_json::{Value, json};

use super::classes::{Class, tensors};
use super::numbers::{bytes, grouped};

/// Tensors and bytes of a class in one format.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    tensors: u64,
    bytes: u64,
}

/// Sizes by class and format.
#[derive(Debug, Default)]
pub(super) struct Storage(BTreeMap<(Class, &'static str), Size>);

impl Storage {
    /// What the files hold.
    pub(super) fn stored(config: &Config, checkpoint: &Checkpoint) -> Storage {
        let mut storage = Storage::default();
        for tensor in checkpoint.tensors() {
            storage.add(Class::of(tensor.name, config), tensor.format, 1, tensor.bytes);
        }
        storage
    }

    /// What a checkpoint with this config would hold.
    pub(super) fn announced(config: &Config, json: &Value) -> Result<Storage, QuantizationError> {
        let scheme = Scheme::from_config(json, &Value::Null)?;
        let plain = match json.get("torch_dtype").or_else(|| json.get("dtype")).and_then(Value::as_str) {
            Some("float32") => "F32",
            Some("float16") => "F16",
            _ => "BF16",
        };
        let mut storage = Storage::default();
        for alike in tensors(config) {
            let format =
                if alike.name.ends_with("bias") { "F32" } else { format(&scheme, &alike.name, plain) };
            let size = size(format, alike.rows as u64, alike.cols as u64);
            storage.add(alike.class, format, alike.count as u64, size.saturating_mul(alike.count as u64));
        }
        Ok(storage)
    }

    fn add(&mut self, class: Class, format: &'static str, tensors: u64, bytes: u64) {
        let size = self.0.entry((class, format)).or_default();
        size.tensors += tensors;
        size.bytes = size.bytes.saturating_add(bytes);
    }

    /// All of it.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().fold(0, |sum, size| sum.saturating_add(size.bytes))
    }

    /// What the forward pass of one token reads.
    pub(super) fn bytes_per_token(&self, config: &Config) -> u64 {
        let read =
            |((class, _), size): (&(Class, _), &Size)| size.bytes as f64 * class.share_per_token(config);
        self.0.iter().map(read).sum::<f64>() as u64
    }

    /// A row for each class and format.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let row = |((class, format), size): (&(Class, &str), &Size)| {
            let tensors = grouped(size.tensors);
            (class.name(), format!("{format}, {tensors} tensors, {}", bytes(size.bytes)))
        };
        self.0.iter().map(row).collect()
    }

    pub(super) fn json(&self) -> Value {
        let entry = |((class, format), size): (&(Class, &str), &Size)| json!({"class": class.name(), "format": format, "tensors": size.tensors, "bytes": size.bytes});
        self.0.iter().map(entry).collect()
    }
}

/// The format that a scheme gives a weight; only linear layers are quantised.
fn format(scheme: &Scheme, name: &str, plain: &'static str) -> &'static str {
    let linear = name.contains("_proj") || name == "lm_head.weight";
    match scheme {
        Scheme::Fp8 if name.contains("_proj") => "FP8",
        Scheme::Int4(_) if linear && scheme.check(name, "INT4").is_ok() => "INT4",
        _ => plain,
    }
}

/// Bytes of a weight with its scales.
fn size(format: &str, rows: u64, cols: u64) -> u64 {
    let (rows, cols) = (u128::from(rows), u128::from(cols));
    let bytes = match format {
        "F32" => 4 * rows * cols,
        "FP8" => rows * cols + 4 * rows.div_ceil(128) * cols.div_ceil(128),
        // Packed nibbles, a BF16 scale for 32 of them, and the shape.
        "INT4" => rows * (4 * cols.div_ceil(8) + 2 * cols.div_ceil(32)) + 8,
        _ => 2 * rows * cols,
    };
    bytes.try_into().unwrap_or(u64::MAX)
}
