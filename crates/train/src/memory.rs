//! How much memory a run needs, said before it starts.

use crate::optimizer::{MatrixRule, OptimizerSettings};
use crate::params::{Layout, Rule};
use crate::step::micro_tokens;

/// Bytes that a run will hold at its peak, roughly: weights, moments, each thread's gradient and buffers.
pub fn needed(
    layout: &Layout,
    settings: &OptimizerSettings,
    threads: usize,
    length: usize,
    rounded: bool,
) -> u64 {
    let numbers = layout.len() as u64;
    let second: u64 = layout
        .tensors()
        .iter()
        .filter(|tensor| tensor.rule != Rule::Matrix || settings.matrices == MatrixRule::AdamW)
        .map(|tensor| tensor.slot.len() as u64)
        .sum();
    let copies = 2 + threads as u64 + u64::from(rounded);
    4 * (numbers * copies + second + threads as u64 * buffers(layout, length))
}

/// Numbers in one thread's buffers.
fn buffers(layout: &Layout, length: usize) -> u64 {
    let c = layout.config();
    let attention = 2 * c.q_lora_rank.unwrap_or(0)
        + c.num_attention_heads * (c.qk_head_dim() + c.qk_nope_head_dim + 2 * c.v_head_dim)
        + c.latent_width()
        + c.kv_lora_rank;
    let layer = |layer: usize| match c.is_moe(layer) {
        false => 2 * c.intermediate_size,
        true => {
            2 * c.moe_intermediate_size * c.num_experts_per_tok
                + 2 * c.shared_intermediate_size()
                + c.n_routed_experts
        }
    };
    let kept: usize = (0..c.num_hidden_layers).map(|i| 4 * c.hidden_size + attention + layer(i)).sum();
    let scratch =
        10 * c.hidden_size + 2 * attention + 4 * c.intermediate_size.max(c.shared_intermediate_size());
    (micro_tokens(length) * (kept + scratch)) as u64
}

/// Bytes that the system says are free to be used; `None` where it does not say.
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
