//! What it costs to choose a token from a row of Kimi K2's 163,840 logits, one thread: the best of some rounds.
//!
//!     cargo run --release -p k2-engine --example sampling

use std::hint::black_box;
use std::time::Instant;

use k2_engine::{Request, Sampler, SamplerError, Sampling};

/// Ids of Kimi K2.
const VOCABULARY: usize = 163_840;

/// Tokens of each way, of which the fastest counts: a machine has neighbours.
const TOKENS: usize = 200;

fn main() -> Result<(), SamplerError> {
    let logits = logits();
    let warm = Sampling { temperature: 0.6, ..Sampling::default() };
    let ways = [
        ("greedy", Sampling { greedy: true, ..warm }, None),
        ("temperature 0.6", warm, None),
        ("temperature 0.6, top-p 0.95", Sampling { top_p: 0.95, ..warm }, None),
        ("temperature 0.6, top-k 40", Sampling { top_k: 40, ..warm }, None),
        ("temperature 0.6, 5 log probabilities", warm, Some(5)),
    ];
    for (name, sampling, logprobs) in ways {
        println!("{name:38} {:>7.0} us", microseconds(&logits, sampling, logprobs)?);
    }
    Ok(())
}

/// A normal distribution of spread 3, about: the sum of four bytes.
fn logits() -> Vec<f32> {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let logit = |random: u32| (random.to_le_bytes().map(f32::from).iter().sum::<f32>() - 510.0) / 50.0;
    (0..VOCABULARY).map(|_| logit(random())).collect()
}

fn microseconds(logits: &[f32], sampling: Sampling, logprobs: Option<usize>) -> Result<f64, SamplerError> {
    let mut sampler = Sampler::new(&Request { sampling, logprobs, ..Request::default() });
    let mut best = f64::INFINITY;
    for _ in 0..TOKENS {
        let start = Instant::now();
        black_box(sampler.next(black_box(logits), None)?);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best * 1e6)
}
