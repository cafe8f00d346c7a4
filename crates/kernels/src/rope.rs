//! Rotary position embedding (arXiv 2104.09864) on neighbouring pairs of channels.
//!
//! Official K2 weights are interleaved: channels `2i` and `2i + 1` form pair `i` and rotate by
//! `position * inv_freq[i]`. Cosines and sines come from the caller, who knows about YaRN.

/// Rotates one head's channels in place; `cos` and `sin` have half as many entries.
pub fn rotate(channels: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (cos, sin)) in channels.chunks_exact_mut(2).zip(cos.iter().zip(sin)) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = b * cos + a * sin;
    }
}
