//! What the experts of one call have to have in common.

use k2_kernels::swiglu::{Expert, Share, swiglu};
use k2_kernels::{Inputs, Matrix, Pool, Precision};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::matrices::Format;
use crate::random::Random;

/// Two experts on one token, their outputs so wide.
fn run(widths: [usize; 2]) -> Vec<f32> {
    let (pool, mut random) = (Pool::new(2), Random(1));
    let gate_proj = Format::Bf16.matrix(&mut random, 32, 16);
    let down: [Matrix; 2] = widths.map(|width| Format::Bf16.matrix(&mut random, width, 32));
    let (mut inputs, mut out) = (Inputs::default(), vec![0.0; widths[0].max(widths[1])]);
    inputs.set(&pool, Precision::Exact, [&gate_proj].into_iter(), 1, &random.floats(16));
    let expert = |number: usize| Expert {
        gate_proj: &gate_proj,
        up_proj: &gate_proj,
        down_proj: &down[number],
        segment: 0,
        share: Share::Weighted { tokens: &[0], weights: &[0.5] },
    };
    swiglu(&pool, 2, expert, &inputs, &mut Inputs::default(), &mut out);
    out
}

#[test]
fn experts_of_one_call_have_one_output_width() {
    assert!(run([40, 40]).iter().all(|y| *y != 0.0));
    for widths in [[40, 41], [41, 40]] {
        assert!(catch_unwind(AssertUnwindSafe(|| run(widths))).is_err(), "{widths:?}");
    }
}
