//! The numbers of a run, read from its `metrics.jsonl`.

use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::PlotError;
use crate::metrics::METRICS_FILE;

/// Numbers over tokens in millions.
pub type Points = Vec<(f64, f64)>;

/// What is drawn of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The name of its folder, or of its metrics file.
    pub name: String,
    /// Training loss of each step.
    pub loss: Points,
    /// Held-out loss.
    pub validation_loss: Points,
    /// Learning rate.
    pub lr: Points,
    /// Largest attention logit of each step.
    pub max_logit: Points,
    /// How far the busiest expert is above the mean.
    pub max_violation: Points,
}

/// A line of metrics; a step has a loss, an evaluation a validation loss.
#[derive(Deserialize)]
struct Line {
    tokens: f64,
    loss: Option<f64>,
    validation_loss: Option<f64>,
    lr: Option<f64>,
    max_logit: Option<f64>,
    max_violation: Option<f64>,
}

impl Curves {
    /// Reads a run's folder, or its metrics file.
    pub fn read(run: &Path) -> Result<Curves, PlotError> {
        let path = if run.is_dir() { run.join(METRICS_FILE) } else { run.to_owned() };
        let io = |error| PlotError::Io { path: path.clone(), error };
        let mut curves = Curves { name: last(&places(run), 1), ..Curves::default() };
        for (number, line) in BufReader::new(std::fs::File::open(&path).map_err(io)?).lines().enumerate() {
            let line = line.map_err(io)?;
            // The last line of a run that is being written may be half of one.
            match serde_json::from_str(&line) {
                Ok(line) => curves.add(&line),
                Err(error) if !error.is_eof() => {
                    return Err(PlotError::Line { path, line: number + 1, problem: error.to_string() });
                }
                Err(_) => {}
            }
        }
        match curves.loss.is_empty() {
            true => Err(PlotError::Empty { path }),
            false => Ok(curves),
        }
    }

    fn add(&mut self, line: &Line) {
        let x = line.tokens / 1e6;
        let push = |points: &mut Points, y: Option<f64>| {
            points.extend(y.filter(|y| y.is_finite() && x.is_finite()).map(|y| (x, y)));
        };
        push(&mut self.loss, line.loss);
        push(&mut self.validation_loss, line.validation_loss);
        push(&mut self.lr, line.lr);
        push(&mut self.max_logit, line.max_logit);
        push(&mut self.max_violation, line.max_violation);
    }
}

/// Names that tell the runs apart: each with as many of the folders above it as that takes.
pub(super) fn labels(runs: &[PathBuf]) -> Vec<String> {
    let places: Vec<Vec<String>> = runs.iter().map(|run| places(run)).collect();
    let label = |own: &Vec<String>| {
        let is_clear = |count: &usize| {
            let mut others = places.iter().filter(|other| *other != own);
            others.all(|other| last(other, *count) != last(own, *count))
        };
        last(own, (1..own.len()).find(is_clear).unwrap_or(own.len()))
    };
    places.iter().map(label).collect()
}

fn last(places: &[String], count: usize) -> String {
    places[places.len().saturating_sub(count)..].join("/")
}

/// The folders down to a run's own, which stands for the metrics file in it; a file of another name stands for itself.
fn places(run: &Path) -> Vec<String> {
    let run = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let run = match run.file_name() {
        Some(name) if name == METRICS_FILE => run.parent().unwrap_or(&run).to_owned(),
        _ if run.is_file() => run.with_extension(""),
        _ => run,
    };
    run.components().map(|place| place.as_os_str().to_string_lossy().into_owned()).collect()
}

/// The running mean over a fiftieth of the points, for the eye; the ends use what there is.
pub(super) fn smoothed(points: &Points) -> Points {
    let reach = (points.len() / 100).max(1);
    let mean = |at: usize| {
        let near = &points[at.saturating_sub(reach)..(at + reach + 1).min(points.len())];
        near.iter().map(|(_, y)| y).sum::<f64>() / near.len() as f64
    };
    points.iter().enumerate().map(|(at, (x, _))| (*x, mean(at))).collect()
}
