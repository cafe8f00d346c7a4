//! Weights from a checkpoint in any published format, widened to f32.

use k2_kernels::Matrix;
use k2_kernels::matrix::TILE;
use k2_model::{Config, ConfigError};
use k2_weights::{Checkpoint, WeightsError};

use super::{Params, Rule, Slot};

/// Why a checkpoint cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or a tensor is not as it should be.
    #[error(transparent)]
    Weights(Box<WeightsError>),
    /// The config is not one of this architecture.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `init_layers` does not name one layer for each of the model's.
    #[error("`init_layers` names {found} layers, expected {expected}: one for each of the model's")]
    #[allow(missing_docs)] // fields are what the messages show
    LayerCount { found: usize, expected: usize },
    /// `init_layers` names a layer that the checkpoint does not have.
    #[error("`init_layers` names layer {layer}, the checkpoint has {layers}, counted from 0")]
    #[allow(missing_docs)]
    NoSuchLayer { layer: usize, layers: usize },
    /// A dense layer cannot begin as a mixture of experts, nor the other way round.
    #[error(
        "`init_layers` begins layer {layer} as layer {from}; one is dense, the other a mixture of experts"
    )]
    #[allow(missing_docs)]
    OtherForm { layer: usize, from: usize },
}

impl From<WeightsError> for LoadError {
    fn from(error: WeightsError) -> LoadError {
        LoadError::Weights(Box::new(error))
    }
}

impl Params {
    /// Reads every tensor that the checkpoint's own config asks for.
    pub fn load(checkpoint: &Checkpoint) -> Result<Params, LoadError> {
        let config = Config::from_json(checkpoint.config())?;
        Params::load_as(checkpoint, &config)
    }

    /// Reads the tensors that `config` asks for; it may differ from the checkpoint's in what is not a shape.
    pub fn load_as(checkpoint: &Checkpoint, config: &Config) -> Result<Params, LoadError> {
        let mut params = Params::zeros(config);
        for tensor in params.layout.tensors() {
            let Slot { rows, cols, .. } = tensor.slot;
            let values = tensor.slot.of_mut(&mut params.values);
            match tensor.rule {
                Rule::Matrix | Rule::Table => widen(&checkpoint.matrix(&tensor.name, rows, cols)?, values),
                Rule::Gain | Rule::SelectionBias => {
                    values.copy_from_slice(&checkpoint.vector(&tensor.name, cols)?);
                }
            }
        }
        Ok(params)
    }
}

fn widen(matrix: &Matrix, values: &mut [f32]) {
    for (row, values) in values.chunks_exact_mut(matrix.cols()).enumerate() {
        for (tile, values) in values.chunks_mut(TILE).enumerate() {
            matrix.dequantize(row, tile * TILE, values);
        }
    }
}
