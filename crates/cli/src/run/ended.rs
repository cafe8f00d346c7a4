//! How a continuation ended, and how fast it was.

use std::time::Duration;

use k2_engine::{Sampling, Timings, Usage};
use serde_json::json;

/// How it ended.
pub(super) struct Ended {
    pub(super) reason: &'static str,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
}

impl Ended {
    pub(super) fn json(&self, ids: &[u32], text: Option<String>, sampling: Sampling) -> serde_json::Value {
        let seconds = |duration: Duration| duration.as_secs_f64();
        json!({
            "ids": ids,
            "text": text,
            "finish_reason": self.reason,
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "seed": sampling.seed,
            "time_to_first_token": self.timings.time_to_first_token.map(seconds),
            "prompt_tokens_per_second": self.prompt_speed(),
            "tokens_per_second": self.speed(),
        })
    }

    pub(super) fn summary(&self, sampling: Sampling) -> String {
        let Usage { prompt_tokens, completion_tokens, .. } = self.usage;
        let rate = |speed: Option<f64>| speed.map_or_else(String::new, |speed| format!(" ({speed:.1}/s)"));
        let first = self.timings.time_to_first_token.map(|time| format!("first token after {time:.1?}; "));
        format!(
            "prompt: {prompt_tokens} tokens{}; {}answer: {completion_tokens} tokens{}, {}; seed {}",
            rate(self.prompt_speed()),
            first.unwrap_or_default(),
            rate(self.speed()),
            self.reason,
            sampling.seed
        )
    }

    fn prompt_speed(&self) -> Option<f64> {
        per_second(self.usage.prompt_tokens, self.timings.prefill)
    }

    /// Of the tokens after the first, which belongs to the prompt's time.
    fn speed(&self) -> Option<f64> {
        per_second(self.usage.completion_tokens.saturating_sub(1), self.timings.decode)
    }
}

fn per_second(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}
