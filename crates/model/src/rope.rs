//! Rotary angles with YaRN (arXiv 2309.00071), from the config and nothing else.
//!
//! YaRN holds at every position, also below `original_max_position_embeddings`. Angles are computed
//! in f64: a position of 100,000 times an f32 frequency has already lost the small ones.

use crate::config::{Config, Yarn};

/// Frequencies of the rotated pairs, the factor on cosine and sine, and the softmax scale.
#[derive(Clone, Debug)]
pub struct Rope {
    /// One frequency per pair of channels, `qk_rope_head_dim / 2`.
    pub inv_freq: Vec<f64>,
    /// `m(mscale) / m(mscale_all_dim)`; 1 in every K2 release.
    pub cos_sin_factor: f64,
    /// `qk_head_dim^-0.5 * m(mscale_all_dim)^2`.
    pub softmax_scale: f32,
}

/// Cosine and sine of each row's position, `[T, qk_rope_head_dim / 2]`.
#[derive(Default)]
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

impl Rope {
    /// Computes the frequencies for a config.
    pub fn new(config: &Config) -> Rope {
        let dim = config.qk_rope_head_dim;
        let plain = (0..dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / dim as f64));
        let scale = (config.qk_head_dim() as f64).powf(-0.5);
        let Some(yarn) = &config.rope_scaling else {
            return Rope { inv_freq: plain.collect(), cos_sin_factor: 1.0, softmax_scale: scale as f32 };
        };
        let (low, high) = yarn.correction_range(dim, config.rope_theta);
        let blend = |(i, extra): (usize, f64)| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            extra / yarn.factor * ramp + extra * (1.0 - ramp)
        };
        let all_dim = yarn.magnitude(yarn.mscale_all_dim);
        Rope {
            inv_freq: plain.enumerate().map(blend).collect(),
            cos_sin_factor: yarn.magnitude(yarn.mscale) / all_dim,
            softmax_scale: (scale * all_dim * all_dim) as f32,
        }
    }

    /// Fills `angles` for rows at these positions.
    pub fn angles(&self, positions: impl Iterator<Item = usize>, angles: &mut Angles) {
        angles.pairs = self.inv_freq.len();
        angles.cos.clear();
        angles.sin.clear();
        for position in positions {
            for frequency in &self.inv_freq {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                angles.cos.push((cos * self.cos_sin_factor) as f32);
                angles.sin.push((sin * self.cos_sin_factor) as f32);
            }
        }
    }
}

impl Angles {
    /// Rotates `qk_rope_head_dim` channels of the token in row `row`.
    pub fn rotate(&self, row: usize, channels: &mut [f32]) {
        let at = row * self.pairs..(row + 1) * self.pairs;
        k2_kernels::rope::rotate(channels, &self.cos[at.clone()], &self.sin[at]);
    }
}

impl Yarn {
    /// The pair numbers between which frequencies go from kept to divided.
    fn correction_range(&self, dim: usize, base: f64) -> (f64, f64) {
        let original = self.original_max_position_embeddings as f64;
        let pair_of = |rotations: f64| {
            dim as f64 * (original / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * base.ln())
        };
        let low = pair_of(self.beta_fast).floor().max(0.0);
        let high = pair_of(self.beta_slow).ceil().min(dim as f64 - 1.0);
        (low, if low == high { high + 0.001 } else { high })
    }

    fn magnitude(&self, mscale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that facts about the releases give: correction ranges and softmax multipliers.
    #[test]
    fn releases_have_their_own_ranges_and_scales() {
        for (factor, beta_fast, range, multiplier) in [
            (32.0, 1.0, (19.0, 20.0), 1.8133),
            (64.0, 1.0, (19.0, 20.0), 2.0047),
            (64.0, 32.0, (8.0, 20.0), 2.0047),
        ] {
            let yarn = Yarn {
                factor,
                original_max_position_embeddings: 4096,
                beta_fast,
                beta_slow: 1.0,
                mscale: 1.0,
                mscale_all_dim: 1.0,
            };
            assert_eq!(yarn.correction_range(64, 50_000.0), range);
            assert!((yarn.magnitude(1.0).powi(2) - multiplier).abs() < 5e-5, "{factor}");
        }
    }
}
