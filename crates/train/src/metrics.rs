//! `metrics.jsonl`: one line per step and per evaluation.
//!
//! A resumed run cuts off the lines of steps that it takes again.

use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::trainer::StepReport;

/// File name inside a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// The open file.
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file for a run that has taken `step` steps.
    pub fn open(run: &Path, step: u64) -> Result<Metrics, TrainError> {
        let path = run.join(METRICS_FILE);
        let io = |error| TrainError::Io { path: path.clone(), error };
        let kept = if path.exists() { lines_until(&path, step).map_err(io)? } else { String::new() };
        k2_weights::replace_file(&path, |file| file.write_all(kept.as_bytes()))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Metrics { path, file })
    }

    /// Adds a step's line.
    pub fn step(
        &mut self,
        report: &StepReport,
        seconds: f64,
        tokens_per_second: f64,
    ) -> Result<(), TrainError> {
        let mut line = serde_json::to_value(report).unwrap_or_default();
        line["seconds"] = json!((seconds * 1e4).round() / 1e4);
        line["tokens_per_second"] = json!(tokens_per_second.round());
        self.write(&line)
    }

    /// Adds an evaluation's line.
    pub fn evaluation(&mut self, step: u64, tokens: u64, loss: f64) -> Result<(), TrainError> {
        self.write(&json!({ "step": step, "tokens": tokens, "validation_loss": loss }))
    }

    fn write(&mut self, line: &Value) -> Result<(), TrainError> {
        let io = |error| TrainError::Io { path: self.path.clone(), error };
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(io)
    }
}

/// The lines of steps up to `step`; what is not a line of ours is left out.
fn lines_until(path: &Path, step: u64) -> std::io::Result<String> {
    let mut kept = String::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let number = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["step"].as_u64());
        if number.is_some_and(|number| number <= step) {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    Ok(kept)
}
