//! How much of a prompt fits beside running answers.
//!
//! A token costs more the deeper it stands, since it attends to all before it. Chunks of one length would keep
//! running streams waiting ever longer, so beside them a chunk holds what takes no longer than a full one does where
//! tokens are cheapest. Times are measured and not calculated: which chunks there are changes no answer.

use std::time::Duration;

use k2_model::kv_cache::BLOCK_TOKENS;

/// What steps took.
#[derive(Debug, Default)]
pub(crate) struct StepTimes {
    /// Seconds that a prompt's token took where it was fastest.
    fastest: Option<f64>,
    /// Seconds of the last step that held answers and nothing else.
    answers: f64,
}

/// Seconds that a token of one prompt took in its last step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace(Option<f64>);

impl StepTimes {
    /// A step of answers alone.
    pub(crate) fn answered(&mut self, duration: Duration) {
        self.answers = duration.as_secs_f64();
    }

    /// A step of so many tokens of prompts, with answers beside or not; the pace of each of the prompts.
    pub(crate) fn read(&mut self, tokens: usize, beside_answers: bool, duration: Duration) -> Pace {
        let (all, tokens) = (duration.as_secs_f64(), tokens.max(1) as f64);
        let each = all / tokens;
        self.fastest = Some(self.fastest.map_or(each, |fastest| fastest.min(each)));
        // What answers take is not the prompt's fault. They take less where they share the weights with it.
        let answers = if beside_answers { self.answers.min(all / 2.0) } else { 0.0 };
        Pace(Some((all - answers) / tokens))
    }

    /// How many tokens at this pace fit into a budget of such as are fastest, at least a block of them.
    pub(crate) fn fit(&self, pace: Pace, budget: usize) -> usize {
        let fit = (budget as f64 / self.slower(pace)) as usize;
        fit.max(budget.min(BLOCK_TOKENS))
    }

    /// What so many tokens at this pace take of the budget.
    pub(crate) fn cost(&self, pace: Pace, tokens: usize) -> usize {
        (tokens as f64 * self.slower(pace)) as usize
    }

    /// How many times as long as the fastest.
    fn slower(&self, pace: Pace) -> f64 {
        match (self.fastest, pace.0) {
            (Some(fastest), Some(pace)) if fastest > 0.0 => (pace / fastest).max(1.0),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_tokens_leave_room_for_fewer() {
        let mut times = StepTimes::default();
        let read =
            |times: &mut StepTimes, tokens, millis| times.read(tokens, true, Duration::from_millis(millis));
        assert_eq!((times.fit(Pace::default(), 256), times.cost(Pace::default(), 9)), (256, 9));
        let (shallow, deep) = (read(&mut times, 256, 256), read(&mut times, 256, 1024));
        assert_eq!([shallow, deep, Pace::default()].map(|pace| times.fit(pace, 256)), [256, 64, 256]);
        assert_eq!([shallow, deep].map(|pace| times.cost(pace, 64)), [64, 256]);
        times.answered(Duration::from_millis(512));
        let beside_many = read(&mut times, 256, 1024);
        assert_eq!(times.fit(beside_many, 256), 128, "without what the answers take");
        let stuck = read(&mut times, 1, 60_000);
        assert_eq!([256, 32, 5, 0].map(|budget| times.fit(stuck, budget)), [32, 32, 5, 0]);
        let at_once = read(&mut times, 1, 0);
        assert_eq!(times.fit(at_once, 256), 256);
    }
}
