//! Writing a trained model for others to run: BF16, or INT4 experts with BF16 for the rest as Kimi K2
//! Thinking is published.

use k2_chat::template::TEMPLATE_FILE;
use k2_chat::tokenizer::{CONFIG_FILE, RANK_FILE};
use k2_kernels::dtype::f32_to_bf16;
use k2_kernels::matrix::INT4_GROUP;
use k2_weights::safetensors::Dtype;
use k2_weights::{Checkpoint, replace_file, save_safetensors};
use serde_json::{Value, json};
use std::io;
use std::path::Path;

use crate::checkpoint::{pretty, to_bytes};
use crate::error::TrainError;
use crate::params::{Params, Tensor};
use crate::quantize::{Format, quantize_group};

/// The formats a model can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// All BF16.
    Bf16,
    /// compressed-tensors `pack-quantized` experts, the rest BF16.
    Int4,
}

/// Writes a run's checkpoint as a model that others can run: [`export`], with the tokenizer's files and the turn
/// format that it was trained on.
pub fn publish(
    checkpoint: &Path,
    tokenizer: &Path,
    format: ExportFormat,
    folder: &Path,
) -> Result<(), TrainError> {
    let checkpoint = Checkpoint::open(checkpoint, &mut |_| ())?;
    export(&Params::load(&checkpoint)?, checkpoint.config(), format, folder)?;
    for name in [RANK_FILE, CONFIG_FILE, TEMPLATE_FILE] {
        let (from, to) = (tokenizer.join(name), folder.join(name));
        match std::fs::read(&from) {
            Ok(bytes) => replace_file(&to, |file| file.write_all(&bytes))?,
            // Many tokenizers have no template of their own; nor may one stay that was there before.
            Err(error) if name == TEMPLATE_FILE && error.kind() == io::ErrorKind::NotFound => remove(&to)?,
            Err(error) => return Err(TrainError::Io { path: from, error }),
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TrainError::Io { path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// A tensor of the file to be.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Writes `config.json` and `model.safetensors` into `folder`, if all numbers are finite.
pub fn export(
    params: &Params,
    config: &Value,
    format: ExportFormat,
    folder: &Path,
) -> Result<(), TrainError> {
    params.check_finite()?;
    let rule = match format {
        ExportFormat::Bf16 => Format::plain,
        ExportFormat::Int4 => Format::with_int4_experts,
    };
    let mut stored = Vec::new();
    for tensor in params.layout().tensors() {
        store(tensor, rule(tensor), tensor.slot.of(params.values()), &mut stored)?;
    }
    let mut config = config.clone();
    if let (ExportFormat::Int4, Some(config)) = (format, config.as_object_mut()) {
        config.insert("quantization_config".into(), quantization_config());
    }
    std::fs::create_dir_all(folder).map_err(|error| TrainError::Io { path: folder.to_owned(), error })?;
    let tensors = stored.iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice(), t.bytes.as_slice()));
    save_safetensors(&folder.join("model.safetensors"), &tensors.collect::<Vec<_>>())?;
    let config = pretty(&config);
    Ok(replace_file(&folder.join("config.json"), |file| file.write_all(config.as_bytes()))?)
}

fn store(
    tensor: &Tensor,
    format: Format,
    values: &[f32],
    stored: &mut Vec<Stored>,
) -> Result<(), TrainError> {
    let (name, shape) = (tensor.name.clone(), tensor.shape());
    match format {
        Format::F32 => stored.push(Stored { name, dtype: Dtype::F32, shape, bytes: to_bytes(values) }),
        Format::Bf16 => {
            let bytes = values.iter().flat_map(|value| f32_to_bf16(*value).to_le_bytes()).collect();
            stored.push(Stored { name, dtype: Dtype::BF16, shape, bytes });
        }
        Format::Int4 => store_int4(tensor, values, stored)?,
    }
    Ok(())
}

/// `weight_packed` (eight codes in an I32, the lowest nibble first), `weight_scale`, `weight_shape`.
fn store_int4(tensor: &Tensor, values: &[f32], stored: &mut Vec<Stored>) -> Result<(), TrainError> {
    let (rows, cols) = (tensor.slot.rows, tensor.slot.cols);
    if !cols.is_multiple_of(INT4_GROUP) {
        return Err(TrainError::Int4 { tensor: tensor.name.clone(), cols });
    }
    let (mut packed, mut scales) = (Vec::with_capacity(values.len() / 2), Vec::new());
    let mut codes = [0i8; INT4_GROUP];
    for group in values.chunks_exact(INT4_GROUP) {
        scales.extend(quantize_group(group, &mut codes).to_le_bytes());
        packed.extend(codes.chunks_exact(2).map(|pair| ((pair[0] + 8) | ((pair[1] + 8) << 4)) as u8));
    }
    let shape: Vec<u8> = [rows as i64, cols as i64].iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut add = |suffix: &str, dtype, shape: Vec<usize>, bytes| {
        stored.push(Stored { name: format!("{}{suffix}", tensor.name), dtype, shape, bytes });
    };
    add("_packed", Dtype::I32, vec![rows, cols / 8], packed);
    add("_scale", Dtype::BF16, vec![rows, cols / INT4_GROUP], scales);
    add("_shape", Dtype::I64, vec![2], shape);
    Ok(())
}

/// As Kimi K2 Thinking's `config.json` has it.
fn quantization_config() -> Value {
    json!({
        "config_groups": {"group_0": {
            "input_activations": null,
            "output_activations": null,
            "targets": ["Linear"],
            "weights": {
                "actorder": null, "block_structure": null, "dynamic": false, "group_size": INT4_GROUP,
                "num_bits": 4, "observer": "minmax", "observer_kwargs": {}, "strategy": "group",
                "symmetric": true, "type": "int",
            },
        }},
        "format": "pack-quantized",
        "ignore": [
            "lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
            "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
        ],
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    })
}
