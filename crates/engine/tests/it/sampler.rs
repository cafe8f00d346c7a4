//! The rules of choosing a token, as tables, and the distribution of the draws.

use k2_engine::{Sampler, Sampling};

const GREEDY: Sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 7, greedy: true };

fn sampled(temperature: f32, top_p: f32) -> Sampling {
    Sampling { temperature, top_p, seed: 7, greedy: false }
}

/// How often each id is chosen in many draws.
fn counts(sampling: Sampling, masked: &[u32], logits: &[f32]) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling, masked.into());
    let mut counts = vec![0; logits.len()];
    for _ in 0..20_000 {
        counts[sampler.next(logits).unwrap() as usize] += 1;
    }
    counts
}

/// The ids that are ever chosen.
fn check(sampling: Sampling, masked: &[u32], logits: &[f32], expected: &[u32]) {
    let counts = counts(sampling, masked, logits);
    let chosen: Vec<u32> = (0..).zip(&counts).filter(|(_, count)| **count > 0).map(|(id, _)| id).collect();
    assert_eq!(chosen, expected, "{sampling:?} {masked:?} {logits:?}: {counts:?}");
}

#[test]
fn which_ids_are_chosen() {
    check(GREEDY, &[], &[1.0, 3.0, 2.0], &[1]);
    check(GREEDY, &[], &[1.0, 3.0, 3.0], &[1]); // of equals the lowest id
    check(GREEDY, &[1], &[1.0, 3.0, 2.0], &[2]);
    check(GREEDY, &[0, 9], &[-0.0, 0.0, 0.0], &[1]);
    check(sampled(0.0, 1.0), &[], &[1.0, 3.0, 2.0], &[1]);
    check(sampled(1e-30, 1.0), &[], &[1.0, 3.0, 2.0], &[1]);
    check(sampled(1.0, 1.0), &[], &[1.0, 1.0, 1.0], &[0, 1, 2]);
    check(sampled(1.0, 1.0), &[1], &[1.0, 5.0, 1.0], &[0, 2]);
    // Weights 8 : 4 : 2 : 1 of 15.
    let logits = [2f32.ln(), 8f32.ln(), 0.0, 4f32.ln()];
    check(sampled(1.0, 8.0 / 15.0 - 1e-4), &[], &logits, &[1]);
    check(sampled(1.0, 8.0 / 15.0 + 1e-4), &[], &logits, &[1, 3]);
    check(sampled(1.0, 0.9), &[], &logits, &[0, 1, 3]);
    check(sampled(1.0, 1.0), &[], &logits, &[0, 1, 2, 3]);
    check(sampled(1.0, 1e-6), &[], &logits, &[1]);
    check(sampled(1.0, 1e-6), &[1], &logits, &[3]);
    // Equal weights: the lower ids are the nucleus.
    check(sampled(1.0, 0.5), &[], &[0.0; 4], &[0, 1]);
    let mut many = vec![0.0; 1000];
    many[999] = 1e-3;
    check(sampled(2.0, 0.4), &[], &many, &[&[999], &(0..399).collect::<Vec<_>>()[..]].concat().sorted());
}

/// Sorting in the middle of an expression.
trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<u32> {
    fn sorted(mut self) -> Self {
        self.sort_unstable();
        self
    }
}

#[test]
fn draws_follow_the_weights() {
    let logits = [2f32.ln(), 8f32.ln(), 0.0, 4f32.ln()];
    for (temperature, top_p, weights) in [
        (1.0, 1.0, [2.0, 8.0, 1.0, 4.0]),
        (2.0, 1.0, [2f64.sqrt(), 8f64.sqrt(), 1.0, 2.0]),
        (0.5, 1.0, [4.0, 64.0, 1.0, 16.0]),
        (1.0, 0.7, [0.0, 8.0, 0.0, 4.0]),
    ] {
        let counts = counts(sampled(temperature, top_p), &[], &logits);
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let expected = 20_000.0 * weight / total;
            let error = (*count as f64 - expected).abs();
            assert!(error <= 5.0 * expected.sqrt(), "{temperature} {top_p}: {counts:?}, {weights:?}");
        }
    }
}

#[test]
fn seed_and_position_decide() {
    let logits: Vec<f32> = (0..500).map(|id| (id as f32 * 0.37).sin()).collect();
    let draw = |seed, top_p| {
        let sampling = Sampling { temperature: 0.8, top_p, seed, greedy: false };
        let mut sampler = Sampler::new(sampling, [3].into());
        (0..50).map(|_| sampler.next(&logits).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1, 0.9), draw(1, 0.9));
    assert_ne!(draw(1, 0.9), draw(2, 0.9));
    assert_ne!(draw(0, 1.0), draw(u64::MAX, 1.0));
}

#[test]
fn logits_that_are_no_numbers() {
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let error = Sampler::new(GREEDY, [].into()).next(&[0.0, bad]).unwrap_err();
        let expected = format!("the model's logits are not numbers to choose from: {shown} at id 1");
        assert_eq!(error.to_string(), expected);
    }
}
