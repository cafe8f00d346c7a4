//! The learning rate of each step.
//!
//! Warm-up–stable–decay as K2 was trained with (arXiv 2507.20534, section 2.5): linear warm-up, constant,
//! then a cosine from the peak to the end value. And the plain cosine.

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// Which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Constant until the last `decay_steps`.
    Wsd,
    /// Decay from the end of the warm-up.
    Cosine,
}

/// A learning rate over time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Which shape.
    pub shape: Shape,
    /// Steps in all.
    pub steps: u64,
    /// The highest learning rate.
    pub peak_lr: f64,
    /// The learning rate of the last step.
    pub final_lr: f64,
    /// Steps from 0 up to the peak.
    pub warmup_steps: u64,
    /// Steps from the peak down to the end; of `wsd`, which needs them, and of nothing else.
    #[serde(default)]
    pub decay_steps: u64,
}

impl Schedule {
    /// Refuses steps that nobody reads, and a last learning rate that would never be reached.
    pub fn check(&self) -> Result<(), TrainError> {
        let wrong = |field, found: u64, expected: String| {
            Err(TrainError::Value { field, found: found.to_string(), expected })
        };
        let falls = self.final_lr < self.peak_lr;
        match self.shape {
            Shape::Cosine if self.decay_steps > 0 => {
                let expected = "0: `cosine` decays from the end of the warm-up on";
                wrong("schedule.decay_steps", self.decay_steps, expected.to_owned())
            }
            Shape::Cosine if falls && self.warmup_steps >= self.steps => {
                let expected = format!("less than the {} steps, or `final_lr` is never reached", self.steps);
                wrong("schedule.warmup_steps", self.warmup_steps, expected)
            }
            Shape::Wsd if falls && self.decay_steps == 0 => {
                let expected = "at least 1, or `final_lr` is never reached; without a decay it is `peak_lr`";
                wrong("schedule.decay_steps", 0, expected.to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The learning rate of step `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak_lr * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let decay_steps = match self.shape {
            Shape::Wsd => self.decay_steps,
            Shape::Cosine => self.steps.saturating_sub(self.warmup_steps),
        };
        let first = self.steps.saturating_sub(decay_steps);
        if step < first {
            return self.peak_lr;
        }
        let progress = (step - first + 1) as f64 / decay_steps.max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
        self.final_lr + (self.peak_lr - self.final_lr) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_goes_up_stays_and_comes_down() {
        let wsd = Schedule {
            shape: Shape::Wsd,
            steps: 100,
            peak_lr: 1.0,
            final_lr: 0.1,
            warmup_steps: 10,
            decay_steps: 20,
        };
        let cosine = Schedule { shape: Shape::Cosine, ..wsd };
        for (schedule, step, want) in [
            (wsd, 0, 0.1),
            (wsd, 9, 1.0),
            (wsd, 10, 1.0),
            (wsd, 79, 1.0),
            (wsd, 89, 0.55),
            (wsd, 99, 0.1),
            (wsd, 1000, 0.1),
            (cosine, 54, 0.55),
            (cosine, 99, 0.1),
        ] {
            assert!((schedule.lr(step) - want).abs() < 1e-12, "{schedule:?} {step}: {}", schedule.lr(step));
        }
    }
}
