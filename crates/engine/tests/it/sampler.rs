//! The rules of choosing a token, as tables, and the distribution of the draws.

use k2_engine::{Logprobs, Request, Sampler, Sampling};

const GREEDY: Sampling = Sampling { greedy: true, ..NEUTRAL };

/// [`Sampling::default`], in a constant.
const NEUTRAL: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    seed: 7,
    greedy: false,
};

fn sampled(temperature: f32, top_p: f32) -> Sampling {
    Sampling { temperature, top_p, ..NEUTRAL }
}

fn masked(sampling: Sampling, masked: &[u32]) -> Request {
    Request { sampling, masked_ids: masked.into(), ..Request::default() }
}

/// How often each id is chosen in many draws.
fn counts(request: &Request, logits: &[f32]) -> Vec<usize> {
    let mut sampler = Sampler::new(request);
    let mut counts = vec![0; logits.len()];
    for _ in 0..20_000 {
        counts[sampler.next(logits, None).unwrap().id as usize] += 1;
    }
    counts
}

/// The ids that are ever chosen.
fn check(sampling: Sampling, masked_ids: &[u32], logits: &[f32], expected: &[u32]) {
    let counts = counts(&masked(sampling, masked_ids), logits);
    let chosen: Vec<u32> = (0..).zip(&counts).filter(|(_, count)| **count > 0).map(|(id, _)| id).collect();
    assert_eq!(chosen, expected, "{sampling:?} {masked_ids:?} {logits:?}: {counts:?}");
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
    let top_k = |top_k| Sampling { top_k, ..NEUTRAL };
    check(top_k(1), &[], &logits, &[1]);
    check(top_k(2), &[], &logits, &[1, 3]);
    check(top_k(2), &[1], &logits, &[0, 3]);
    check(top_k(4), &[], &logits, &[0, 1, 2, 3]);
    check(top_k(2), &[], &[0.0; 4], &[0, 1]);
    // The nucleus is one of what top-k leaves: 8 of 12, then 8 + 4 of 12.
    check(Sampling { top_k: 2, ..sampled(1.0, 0.66) }, &[], &logits, &[1]);
    check(Sampling { top_k: 2, ..sampled(1.0, 0.67) }, &[], &logits, &[1, 3]);
    let min_p = |min_p| Sampling { min_p, ..NEUTRAL };
    check(min_p(1.0), &[], &logits, &[1]);
    check(min_p(0.26), &[], &logits, &[1, 3]);
    check(min_p(0.2), &[], &logits, &[0, 1, 3]);
    check(min_p(0.26), &[1], &logits, &[0, 3]);
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
        let counts = counts(&masked(sampled(temperature, top_p), &[]), &logits);
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
        let mut sampler = Sampler::new(&masked(Sampling { seed, ..sampled(0.8, top_p) }, &[3]));
        (0..50).map(|_| sampler.next(&logits, None).unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(draw(1, 0.9), draw(1, 0.9));
    assert_ne!(draw(1, 0.9), draw(2, 0.9));
    assert_ne!(draw(0, 1.0), draw(u64::MAX, 1.0));
}

#[test]
fn logits_that_are_no_numbers() {
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let error = Sampler::new(&masked(GREEDY, &[])).next(&[0.0, bad], None).unwrap_err();
        let expected = format!("the model's logits are not numbers to choose from: {shown} at id 1");
        assert_eq!(error.to_string(), expected);
    }
}

/// The ids that a greedy request chooses, one after the other, from the same logits.
fn check_sequence(request: Request, logits: &[f32], allowed: Option<&[u32]>, expected: &[u32]) {
    let mut sampler =
        Sampler::new(&Request { sampling: Sampling { greedy: true, ..request.sampling }, ..request });
    let chosen: Vec<u32> = expected.iter().map(|_| sampler.next(logits, allowed).unwrap().id).collect();
    assert_eq!(chosen, expected);
}

#[test]
fn penalties_and_biases() {
    let logits = [3.0, 2.5, -1.0, -2.0];
    let with = |sampling| Request { sampling, ..Request::default() };
    // Once each token has been chosen, it is less likely by as much as it was before.
    check_sequence(with(Sampling { presence_penalty: 1.0, ..NEUTRAL }), &logits, None, &[0, 1, 0, 0]);
    check_sequence(with(Sampling { frequency_penalty: 1.0, ..NEUTRAL }), &logits, None, &[0, 1, 0, 1, 0]);
    check_sequence(with(Sampling { frequency_penalty: -1.0, ..NEUTRAL }), &logits, None, &[0, 0, 0]);
    // 3 becomes 1.5, 2.5 becomes 1.25, and further times change nothing.
    let repetition = Sampling { repetition_penalty: 2.0, ..NEUTRAL };
    check_sequence(with(repetition), &logits, None, &[0, 1, 0, 0]);
    // The prompt counts for repetition, not for the others; negative logits go down too.
    check_sequence(Request { prompt: vec![0, 9], ..with(repetition) }, &logits, None, &[1, 0, 0]);
    check_sequence(Request { prompt: vec![0], ..with(repetition) }, &[-1.0, -1.5], None, &[1, 0]);
    let presence = Sampling { presence_penalty: 1.0, ..NEUTRAL };
    check_sequence(Request { prompt: vec![0], ..with(presence) }, &logits, None, &[0, 1]);
    let biased = |logit_bias: &[(u32, f32)]| Request { logit_bias: logit_bias.into(), ..Request::default() };
    check_sequence(biased(&[(3, 100.0)]), &logits, None, &[3, 3]);
    check_sequence(biased(&[(0, -100.0), (1, -0.5)]), &logits, None, &[1, 1]);
}

#[test]
fn what_a_grammar_and_min_tokens_leave() {
    let logits = [3.0, 2.5, -1.0, -2.0];
    check_sequence(Request::default(), &logits, Some(&[0b1100]), &[2, 2]);
    check_sequence(masked(NEUTRAL, &[2]), &logits, Some(&[0b1100]), &[3]);
    let wide: Vec<f32> = (0..70).map(|id| id as f32).collect();
    check_sequence(Request::default(), &wide, Some(&[1, 1 << 31, 0b10]), &[65]);
    check_sequence(Request::default(), &wide, Some(&[1, 1 << 31]), &[63]);
    let stopping = |min_tokens| Request { stop_ids: [0, 7].into(), min_tokens, ..Request::default() };
    check_sequence(stopping(2), &logits, None, &[1, 1, 0]);
    // What would leave nothing does not count.
    check_sequence(stopping(2), &logits, Some(&[0b1]), &[0]);
    let error = Sampler::new(&masked(NEUTRAL, &[0])).next(&logits, Some(&[0b1])).unwrap_err();
    assert_eq!(error.to_string(), "no id may come after the 0 tokens of the answer");
}

#[test]
fn logprobs_are_those_of_the_model() {
    let logits = [2f32.ln(), 8f32.ln(), 0.0, 4f32.ln(), 0.0];
    // Temperature, masks and penalties have no part in them.
    let sampling = Sampling { greedy: true, temperature: 0.5, ..NEUTRAL };
    let request = |logprobs| Request { logprobs, ..masked(sampling, &[1]) };
    assert_eq!(Sampler::new(&request(None)).next(&logits, None).unwrap().logprobs, None);
    let check = |count: usize, expected: &[(u32, f32)]| {
        let choice = Sampler::new(&request(Some(count))).next(&logits, None).unwrap();
        let Logprobs { chosen, top } = choice.logprobs.unwrap();
        let close = |a: f32, weight: f32| assert!((a - (weight / 16.0).ln()).abs() < 1e-6, "{a} {weight}");
        assert_eq!(choice.id, 3);
        close(chosen, 4.0);
        assert_eq!(top.len(), expected.len());
        for ((id, logprob), (expected_id, weight)) in top.iter().zip(expected) {
            assert_eq!(id, expected_id, "{top:?}");
            close(*logprob, *weight);
        }
    };
    check(0, &[]);
    check(2, &[(1, 8.0), (3, 4.0)]);
    check(5, &[(1, 8.0), (3, 4.0), (0, 2.0), (2, 1.0), (4, 1.0)]);
    check(9, &[(1, 8.0), (3, 4.0), (0, 2.0), (2, 1.0), (4, 1.0)]);
}

#[test]
fn answers_to_one_prompt_have_seeds_of_their_own() {
    let seeds: Vec<u64> = (0..100).map(|index| NEUTRAL.of_answer(index).seed).collect();
    assert_eq!(seeds[0], 7);
    assert_eq!(seeds.iter().collect::<std::collections::HashSet<_>>().len(), seeds.len());
}
