//! Logarithms of probabilities, from a row of logits: `logit - ln(sum of exp(logits))`.

use k2_kernels::exp::exp_each;

use crate::event::Logprobs;

/// Those of `chosen` and of the `count` likeliest. Sums are f64 in the order of the ids.
pub(crate) fn logprobs(logits: &[f32], chosen: u32, count: usize) -> Logprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f32> = logits.iter().map(|logit| logit - max).collect();
    exp_each(&mut weights);
    let sum: f64 = weights.into_iter().map(f64::from).sum();
    let log_sum = f64::from(max) + sum.ln();
    let logprob = |id: u32| (f64::from(logits[id as usize]) - log_sum) as f32;
    let top = likeliest(logits, count).into_iter().map(|id| (id, logprob(id))).collect();
    Logprobs { chosen: logprob(chosen), top }
}

/// The ids of the largest logits, in order; of equal ones the lower id comes first.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut top: Vec<u32> = Vec::with_capacity(count + 1);
    for (id, &logit) in (0..).zip(logits) {
        let smallest = top.last().map_or(f32::NEG_INFINITY, |id: &u32| logits[*id as usize]);
        if top.len() < count || logit > smallest {
            let place = top.partition_point(|other| logits[*other as usize] >= logit);
            top.insert(place, id);
            top.truncate(count);
        }
    }
    top
}
