//! Cosines and sines of every position of a sequence, and the rotation (arXiv 2104.09864, with YaRN).

use super::yarn::Rope;
use k2_model::Config;

/// `[length, qk_rope_head_dim / 2]` of both; positions start at 0 in each document.
pub struct AngleTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
    /// What `q·k` is multiplied with before the softmax, YaRN's magnitude included.
    pub softmax_scale: f32,
}

impl AngleTable {
    /// Computes the table in f64.
    pub fn new(config: &Config, length: usize) -> AngleTable {
        let rope = Rope::new(config);
        let pairs = rope.inv_freq.len();
        let angle = |i: usize| ((i / pairs) as f64 * rope.inv_freq[i % pairs]).sin_cos();
        let factor = rope.cos_sin_factor;
        AngleTable {
            cos: (0..length * pairs).map(|i| (angle(i).1 * factor) as f32).collect(),
            sin: (0..length * pairs).map(|i| (angle(i).0 * factor) as f32).collect(),
            pairs,
            softmax_scale: rope.softmax_scale,
        }
    }

    /// Rotates one head's channels at a position.
    pub(crate) fn rotate(&self, position: usize, channels: &mut [f32]) {
        let at = position * self.pairs..(position + 1) * self.pairs;
        for ((pair, cos), sin) in channels.chunks_exact_mut(2).zip(&self.cos[at.clone()]).zip(&self.sin[at]) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos - b * sin;
            pair[1] = b * cos + a * sin;
        }
    }

    /// The transpose of [`AngleTable::rotate`]: takes a gradient back through it.
    pub(crate) fn rotate_back(&self, position: usize, channels: &mut [f32]) {
        let at = position * self.pairs..(position + 1) * self.pairs;
        for ((pair, cos), sin) in channels.chunks_exact_mut(2).zip(&self.cos[at.clone()]).zip(&self.sin[at]) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos + b * sin;
            pair[1] = b * cos - a * sin;
        }
    }
}
