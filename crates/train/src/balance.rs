//! Keeping experts equally busy.
//!
//! Without an auxiliary loss (DeepSeek-V3, arXiv 2412.19437, section 2.1.2; Wang et al., arXiv 2408.15664):
//! after a step, the selection bias of an expert that had more than the mean goes down, of one that had less,
//! up. As an option, V3's sequence-wise balance loss against extremes within one sequence. K2's own speed
//! and weight are unpublished.

use k2_model::Config;

use crate::forward::router::Routing;
use crate::params::Layout;

/// Moves `e_score_correction_bias` by `rate`: `b_i += rate (sign(e_i) - mean(sign(e)))`, `e_i` how far the
/// load is below the mean. Taking the mean away (Moonlight's variant) keeps the bias from drifting and
/// changes no choice.
pub fn update_bias(bias: &mut [f32], loads: &[u64], rate: f32) {
    let total: u64 = loads.iter().sum();
    // load < mean, in whole numbers
    let sign = |load: &u64| match (load * loads.len() as u64).cmp(&total) {
        std::cmp::Ordering::Less => 1.0f32,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => -1.0,
    };
    let mean = loads.iter().map(sign).sum::<f32>() / loads.len() as f32;
    for (bias, load) in bias.iter_mut().zip(loads) {
        *bias += rate * (sign(load) - mean);
    }
}

/// Updates every layer's bias; `loads` is `[layers, experts]`.
pub fn update_biases(layout: &Layout, values: &mut [f32], loads: &[u64], rate: f32) {
    let experts = layout.config().n_routed_experts;
    for (layer, slots) in layout.moe_layers() {
        let bias = slots.e_score_correction_bias.of_mut(values);
        update_bias(bias, &loads[layer * experts..][..experts], rate);
    }
}

/// `MaxVio`: how far the busiest expert is above the mean load, in means; the largest of all layers.
pub fn max_violation(layout: &Layout, loads: &[u64]) -> f32 {
    let experts = layout.config().n_routed_experts;
    let violation = |(layer, _)| {
        let loads = &loads[layer * experts..][..experts];
        let (total, most) = (loads.iter().sum::<u64>(), loads.iter().max().copied().unwrap_or(0));
        if total == 0 { 0.0 } else { (most * experts as u64) as f32 / total as f32 - 1.0 }
    };
    layout.moe_layers().map(violation).fold(0.0, f32::max)
}

/// `factor Σ_sequences Σ_i f_i P_i` (V3's equations 17 to 20): `f_i` the share of tokens that chose expert
/// `i`, times experts / chosen; `P_i` its mean share of a token's scores. Padding is no token. Adds the gradient for
/// the scores; `f` has none.
pub fn sequence_loss(
    config: &Config,
    routing: &Routing,
    length: usize,
    factor: f32,
    d_scores: Option<&mut [f32]>,
) -> f64 {
    let (experts, k) = (config.n_routed_experts, config.num_experts_per_tok);
    let mut loss = 0.0;
    let mut d_rows = d_scores.map(|d| d.chunks_exact_mut(length * experts));
    let sequences = routing.scores.chunks_exact(length * experts);
    let sequences = sequences.zip(routing.experts.chunks_exact(length * k));
    for ((scores, chosen), counting) in sequences.zip(routing.counting.chunks_exact(length)) {
        let d_rows = d_rows.as_mut().and_then(Iterator::next).unwrap_or_default();
        let tokens = counting.iter().filter(|counts| **counts).count() as f32;
        let mut f = vec![0f32; experts];
        let chosen = chosen.chunks_exact(k).zip(counting).filter(|(_, counts)| **counts);
        for expert in chosen.flat_map(|(chosen, _)| chosen) {
            f[*expert as usize] += experts as f32 / (k as f32 * tokens);
        }
        let mut d_tokens = d_rows.chunks_exact_mut(experts);
        for (scores, counts) in scores.chunks_exact(experts).zip(counting) {
            let d_token = d_tokens.next().unwrap_or_default();
            if *counts {
                loss += f64::from(token_loss(scores, &f, factor / tokens, d_token)) / f64::from(tokens);
            }
        }
    }
    loss * f64::from(factor)
}

/// `Σ_i f_i s_i / Σ s` of one token; adds `factor` times its gradient.
fn token_loss(scores: &[f32], f: &[f32], factor: f32, d_scores: &mut [f32]) -> f32 {
    let sum: f32 = scores.iter().sum();
    let mean = scores.iter().zip(f).map(|(s, f)| s * f).sum::<f32>() / sum;
    for (d, f) in d_scores.iter_mut().zip(f) {
        *d += factor / sum * (f - mean);
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_goes_against_the_load_and_does_not_drift() {
        let mut bias = [0.0f32; 4];
        update_bias(&mut bias, &[10, 2, 4, 0], 0.1);
        // signs -1, 1, 0, 1 around the mean load of 4; their mean is 0.25
        for (found, want) in bias.iter().zip([-0.125, 0.075, -0.025, 0.075]) {
            assert!((found - want).abs() < 1e-7, "{bias:?}");
        }
    }
}
