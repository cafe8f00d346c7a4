//! New weights.
//!
//! Matrices and tables are normal with standard deviation `0.5 / sqrt(hidden_size)`, which at DeepSeek-V3's
//! width is its 0.006 (arXiv 2412.19437, section 4.2); K2's own is unpublished. Gains are 1, selection biases 0.

use k2_model::Config;

use super::{Params, Rule};
use crate::rng::Rng;

impl Params {
    /// Random weights; `std` replaces the default standard deviation.
    pub fn random(config: &Config, seed: u64, std: Option<f32>) -> Params {
        let mut params = Params::zeros(config);
        let std = std.map_or(0.5 / (config.hidden_size as f64).sqrt(), f64::from);
        let mut rng = Rng::new(seed);
        for tensor in params.layout.tensors() {
            let values = tensor.slot.of_mut(&mut params.values);
            match tensor.rule {
                Rule::Matrix | Rule::Table => values.fill_with(|| (rng.normal() * std) as f32),
                Rule::Gain => values.fill(1.0),
                Rule::SelectionBias => values.fill(0.0),
            }
        }
        params
    }
}
