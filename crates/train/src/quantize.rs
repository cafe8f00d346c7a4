//! Rounding weights to the formats they are published in.
//!
//! Routed experts: INT4 in groups of 32 along the input, symmetric, BF16 scales (compressed-tensors
//! `pack-quantized`, as Kimi K2 Thinking ships); all else BF16; the selection bias stays F32. In the last
//! stage of training the forward and backward passes compute with the rounded weights while the gradient
//! changes the exact ones (straight-through, Bengio et al., arXiv 1308.3432), so that the exported weights
//! are the ones that were trained.

use k2_kernels::dtype::{bf16_to_f32, f32_to_bf16};
use k2_kernels::matrix::INT4_GROUP;
use std::sync::{Mutex, PoisonError};

use crate::params::{Layout, Rule, Tensor};
use crate::vectors::vectorized;

/// What the largest number of a group may be divided by to give its scale. 7 loses nothing, more rounds the
/// others finer; the one with the smallest squared error is taken.
const DIVISORS: [f32; 5] = [7.0, 7.25, 7.5, 7.75, 8.0];

/// The format that a tensor is published in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    F32,
    /// Rounded to nearest, ties to even.
    Bf16,
    /// Groups of 32.
    Int4,
}

impl Format {
    /// Of a tensor, when experts are to be INT4.
    pub fn with_int4_experts(tensor: &Tensor) -> Format {
        match tensor.rule {
            Rule::SelectionBias => Format::F32,
            Rule::Matrix if tensor.name.contains(".mlp.experts.") => Format::Int4,
            Rule::Matrix | Rule::Table | Rule::Gain => Format::Bf16,
        }
    }

    /// Of a tensor, when all is to be BF16.
    pub fn plain(tensor: &Tensor) -> Format {
        if tensor.rule == Rule::SelectionBias { Format::F32 } else { Format::Bf16 }
    }
}

/// Writes to `rounded` what readers of the published weights will compute with.
pub fn round_all(
    layout: &Layout,
    format: fn(&Tensor) -> Format,
    values: &[f32],
    rounded: &mut [f32],
    threads: usize,
) {
    let mut rest = rounded;
    let pieces: Vec<_> = layout
        .tensors()
        .iter()
        .map(|tensor| {
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut(tensor.slot.len());
            rest = tail;
            (format(tensor), tensor.slot.of(values), piece)
        })
        .collect();
    let queue = Mutex::new(pieces.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some((format, values, rounded)) = next() {
                    round(format, values, rounded);
                }
            });
        }
    });
}

fn round(format: Format, values: &[f32], rounded: &mut [f32]) {
    match format {
        Format::F32 => rounded.copy_from_slice(values),
        Format::Bf16 => {
            rounded.iter_mut().zip(values).for_each(|(r, value)| *r = bf16_to_f32(f32_to_bf16(*value)));
        }
        Format::Int4 => {
            for (values, rounded) in values.chunks(INT4_GROUP).zip(rounded.chunks_mut(INT4_GROUP)) {
                let scale = bf16_to_f32(group_scale(values));
                rounded.iter_mut().zip(values).for_each(|(r, value)| *r = code(*value, scale) * scale);
            }
        }
    }
}

/// A group's scale as BF16 bits, and its codes, -8 to 7.
pub fn quantize_group(values: &[f32], codes: &mut [i8]) -> u16 {
    let scale = group_scale(values);
    for (out, value) in codes.iter_mut().zip(values) {
        *out = code(*value, bf16_to_f32(scale)) as i8;
    }
    scale
}

fn group_scale(values: &[f32]) -> u16 {
    vectorized(
        #[inline(always)]
        || {
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let mut best = (f32::INFINITY, 0);
            for divisor in DIVISORS {
                let bits = f32_to_bf16(largest / divisor);
                let scale = bf16_to_f32(bits);
                let error = values.iter().map(|v| (code(*v, scale) * scale - v).powi(2)).sum::<f32>();
                if error < best.0 {
                    best = (error, bits);
                }
            }
            best.1
        },
    )
}

/// The nearest code; 0 where the scale is 0.
#[inline(always)]
fn code(value: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { (value / scale).round_ties_even().clamp(-8.0, 7.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_rounded_to_its_nearest_codes() {
        let values: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin() * 0.01 * i as f32).collect();
        let mut codes = [0; 32];
        let scale = bf16_to_f32(quantize_group(&values, &mut codes));
        for (value, code) in values.iter().zip(codes) {
            let clipped = if code == 7 { 1.0 } else { 0.5 };
            assert!((value - f32::from(code) * scale).abs() <= clipped * scale, "{value} {code} {scale}");
        }
        assert_eq!((quantize_group(&[0.0; 32], &mut codes), codes), (0, [0; 32]));
    }
}
