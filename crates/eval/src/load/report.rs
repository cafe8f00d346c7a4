//! What a load shows: distributions of the times, and rates over all clients together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Plan, Sample};

/// Kinds of errors that are told apart.
const MAX_ERRORS: usize = 20;

/// All that was seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where.
    pub url: String,
    /// Of which model.
    pub model: String,
    /// Clients at a time.
    pub clients: usize,
    /// Questions a second, if they arrived by themselves.
    pub rate: Option<f64>,
    /// Whether answers were as long as they were asked to be.
    pub ignore_eos: bool,
    /// Requests with an answer.
    pub answered: usize,
    /// Requests without, by what was said.
    pub errors: BTreeMap<String, usize>,
    /// Questions that had to wait for a client by more than a millisecond: then the rate was not kept.
    pub late: usize,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// Tokens of all prompts, and of them those found in a cache.
    pub prompt_tokens: u64,
    /// See above.
    pub cached_tokens: u64,
    /// Tokens of all answers.
    pub completion_tokens: u64,
    /// Prompt tokens a second, all clients together.
    pub prompt_tokens_per_second: f64,
    /// Tokens of answers a second, all clients together.
    pub completion_tokens_per_second: f64,
    /// To the first piece of an answer.
    pub time_to_first_token: Option<Distribution>,
    /// Between the pieces of an answer.
    pub inter_token_latency: Option<Distribution>,
    /// Of an answer: from its first piece to its last, over its tokens but the first.
    pub time_per_output_token: Option<Distribution>,
    /// To the end of an answer.
    pub end_to_end: Option<Distribution>,
}

/// Times in milliseconds. Percentiles are measured values (nearest rank).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// The mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Report {
    pub(super) fn new(
        url: &str,
        model: &str,
        plan: &Plan,
        ignore_eos: bool,
        samples: &[Sample],
        elapsed: Duration,
    ) -> Report {
        let answered: Vec<_> = samples.iter().filter(|sample| sample.error.is_none()).collect();
        let seconds = elapsed.as_secs_f64();
        let sum = |of: fn(&Sample) -> u64| answered.iter().map(|sample| of(sample)).sum::<u64>();
        let (prompt, completion) = (sum(|s| s.prompt_tokens), sum(|s| s.completion_tokens));
        let times = |of: fn(&Sample) -> Duration| Distribution::of(answered.iter().map(|sample| of(sample)));
        let per_token = answered.iter().filter(|sample| sample.completion_tokens > 1);
        let per_token = per_token.map(|s| s.rest.div_f64((s.completion_tokens - 1) as f64));
        Report {
            url: url.to_owned(),
            model: model.to_owned(),
            clients: plan.clients,
            rate: plan.rate,
            ignore_eos,
            answered: answered.len(),
            errors: errors(samples),
            late: samples.iter().filter(|sample| sample.late > Duration::from_millis(1)).count(),
            seconds,
            requests_per_second: answered.len() as f64 / seconds,
            prompt_tokens: prompt,
            cached_tokens: sum(|s| s.cached_tokens),
            completion_tokens: completion,
            prompt_tokens_per_second: prompt as f64 / seconds,
            completion_tokens_per_second: completion as f64 / seconds,
            time_to_first_token: times(|s| s.first),
            inter_token_latency: Distribution::of(answered.iter().flat_map(|s| s.gaps.iter().copied())),
            time_per_output_token: Distribution::of(per_token),
            end_to_end: times(|s| s.total),
        }
    }
}

fn errors(samples: &[Sample]) -> BTreeMap<String, usize> {
    let mut errors = BTreeMap::new();
    for error in samples.iter().filter_map(|sample| sample.error.as_ref()) {
        match errors.contains_key(error) || errors.len() < MAX_ERRORS {
            true => *errors.entry(error.clone()).or_default() += 1,
            false => *errors.entry("others".to_owned()).or_default() += 1,
        }
    }
    errors
}

impl Distribution {
    /// Of some times; none of none.
    pub fn of(times: impl Iterator<Item = Duration>) -> Option<Distribution> {
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let max = *times.last()?;
        let rank = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        Some(Distribution { mean, p50: rank(50), p95: rank(95), p99: rank(99), max })
    }
}
