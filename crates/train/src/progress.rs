//! What a run shows on the terminal: one bar with its numbers.

use indicatif::{ProgressBar, ProgressStyle};

use crate::run::Event;

/// The bar.
pub struct Bar {
    bar: ProgressBar,
    validation: Option<f64>,
    /// Records that were left out.
    skipped: usize,
}

impl Bar {
    /// A bar for a run of `steps` steps. On what is no terminal nothing is drawn; then every hundredth step
    /// is a line.
    pub fn new(steps: u64) -> Bar {
        let bar = ProgressBar::new(steps);
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, validation: None, skipped: 0 }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Skipped { skipped } => {
                self.skipped = skipped.records;
                let first = skipped.first.as_deref().unwrap_or_default();
                self.say(&format!("{} records are left out; the first is {first}", skipped.records));
            }
            Event::Started { step, parameters, threads } => {
                self.say(&format!("{parameters} parameters, {threads} threads, from step {step}"));
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            Event::Step { report, tokens_per_second } => {
                let validation = self.validation.map(|loss| format!(", held out {loss:.4}"));
                let text = format!(
                    "{tokens_per_second:.0} tokens/s, loss {:.4}{}, lr {:.2e}, max logit {:.1}, \
                     busiest expert +{:.0} %",
                    report.loss,
                    validation.unwrap_or_default(),
                    report.lr,
                    report.max_logit,
                    100.0 * report.max_violation
                );
                if self.bar.is_hidden() && report.step.is_multiple_of(100) {
                    self.say(&format!("step {}: {text}", report.step));
                }
                self.bar.set_message(text);
                self.bar.set_position(report.step);
            }
            Event::Evaluated { step, loss } => {
                self.validation = Some(*loss);
                self.say(&format!("step {step}: held-out loss {loss:.4}"));
            }
            Event::Saved { path } => self.say(&format!("saved {}", path.display())),
            Event::Finished { step } => {
                self.bar.finish_and_clear();
                let skipped = match self.skipped {
                    0 => String::new(),
                    records => format!(", without the {records} records that were left out"),
                };
                self.say(&format!("done after {step} steps{skipped}"));
            }
        }
    }

    fn say(&self, line: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{line}"),
            false => self.bar.println(line),
        }
    }
}
