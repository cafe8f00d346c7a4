//! Deeper than the checkpoint it begins with: layers said twice.
//!
//! A repeated layer begins with the weights of the one it repeats, but what it adds to the residual stream (`o_proj` and
//! every `down_proj`) is zero. So the deeper model computes at first what the shallower one did, and what it
//! has learned is not lost (function-preserving growth: Net2Net, arXiv 1511.05641).

use k2_model::Config;
use k2_weights::Checkpoint;

use super::{LoadError, Params};

impl Params {
    /// Weights for `config`, whose layer `i` begins as the checkpoint's layer `layers[i]`.
    pub fn load_deeper(
        checkpoint: &Checkpoint,
        config: &Config,
        layers: &[usize],
    ) -> Result<Params, LoadError> {
        let shallow = Config::from_json(checkpoint.config())?;
        check(&shallow, config, layers)?;
        let depth = shallow.num_hidden_layers;
        let first_k_dense_replace = shallow.first_k_dense_replace;
        let shallow = Config { num_hidden_layers: depth, first_k_dense_replace, ..config.clone() };
        let from = Params::load_as(checkpoint, &shallow)?;
        let mut params = Params::zeros(config);
        for tensor in params.layout.tensors() {
            let origin = origin(&tensor.name, layers);
            if origin.as_ref().is_some_and(|(_, again)| *again && adds_to_the_residual(&tensor.name)) {
                continue;
            }
            let name = origin.map_or_else(|| tensor.name.clone(), |(name, _)| name);
            if let Some(values) = from.get(&name) {
                tensor.slot.of_mut(&mut params.values).copy_from_slice(values);
            }
        }
        Ok(params)
    }
}

/// Every layer comes from one of the same form.
fn check(shallow: &Config, config: &Config, layers: &[usize]) -> Result<(), LoadError> {
    if layers.len() != config.num_hidden_layers {
        return Err(LoadError::LayerCount { found: layers.len(), expected: config.num_hidden_layers });
    }
    for (layer, &from) in layers.iter().enumerate() {
        if from >= shallow.num_hidden_layers {
            return Err(LoadError::NoSuchLayer { layer: from, layers: shallow.num_hidden_layers });
        }
        if config.is_moe(layer) != shallow.is_moe(from) {
            return Err(LoadError::OtherForm { layer, from });
        }
    }
    Ok(())
}

/// The checkpoint's name of a layer's tensor, and whether an earlier layer has come from the same.
fn origin(name: &str, layers: &[usize]) -> Option<(String, bool)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let from = layers[layer];
    Some((format!("model.layers.{from}.{rest}"), layers[..layer].contains(&from)))
}

fn adds_to_the_residual(name: &str) -> bool {
    name.ends_with(".o_proj.weight") || name.ends_with(".down_proj.weight")
}
