//! Rotary frequencies with YaRN (arXiv 2309.00071), from the config and nothing else.

use k2_model::{Config, Yarn};

/// Frequencies of the rotated pairs, the factor on cosine and sine, and the softmax scale.
pub(super) struct Rope {
    pub(super) inv_freq: Vec<f64>,
    pub(super) cos_sin_factor: f64,
    pub(super) softmax_scale: f32,
}
impl Rope {
    /// Computes the frequencies for a config.
    pub(super) fn new(config: &Config) -> Rope {
        let dim = config.qk_rope_head_dim;
        let plain = (0..dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / dim as f64));
        let scale = (config.qk_head_dim() as f64).powf(-0.5);
        let Some(yarn) = &config.rope_scaling else {
            return Rope { inv_freq: plain.collect(), cos_sin_factor: 1.0, softmax_scale: scale as f32 };
        };
        let (low, high) = correction_range(yarn, dim, config.rope_theta);
        let blend = |(i, extra): (usize, f64)| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            extra / yarn.factor * ramp + extra * (1.0 - ramp)
        };
        let all_dim = magnitude(yarn, yarn.mscale_all_dim);
        Rope {
            inv_freq: plain.enumerate().map(blend).collect(),
            cos_sin_factor: magnitude(yarn, yarn.mscale) / all_dim,
            softmax_scale: (scale * all_dim * all_dim) as f32,
        }
    }
}
/// The pair numbers between which frequencies go from kept to divided.
fn correction_range(y: &Yarn, dim: usize, base: f64) -> (f64, f64) {
    let original = y.original_max_position_embeddings as f64;
    let pair_of =
        |r: f64| dim as f64 * (original / (r * 2.0 * std::f64::consts::PI)).ln() / (2.0 * base.ln());
    let low = pair_of(y.beta_fast).floor().max(0.0);
    let high = pair_of(y.beta_slow).ceil().min(dim as f64 - 1.0);
    (low, if low == high { high + 0.001 } else { high })
}
fn magnitude(y: &Yarn, mscale: f64) -> f64 {
    if y.factor <= 1.0 { 1.0 } else { 0.1 * mscale * y.factor.ln() + 1.0 }
}
