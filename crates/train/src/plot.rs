//! `k2 train plot RUN…`: the curves of runs as SVG and PNG.
//!
//! One figure with four panels (loss, learning rate, largest attention logit, expert balance) over the tokens
//! seen, a colour for each run. Drawn by `plotters` with a font that is compiled in, so that it looks the same
//! on a machine without fonts.

mod curves;
mod figure;
mod picture;

use curves::labels;
pub use curves::{Curves, Points};

use std::path::{Path, PathBuf};

/// Size of the figure in pixels.
pub const SIZE: (u32, u32) = (1600, 1160);

/// How many runs one figure can tell apart.
pub const MOST_RUNS: usize = 8;

/// Why there is no plot.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum PlotError {
    /// A file could not be read.
    #[error("{}: {error}; a run's folder holds {}", path.display(), crate::metrics::METRICS_FILE)]
    Io { path: PathBuf, error: std::io::Error },
    /// A line that is no metrics.
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
    /// A run without steps.
    #[error("{}: has no step yet", path.display())]
    Empty { path: PathBuf },
    /// No run, or too many for one figure.
    #[error("{runs} runs; a figure shows 1 to {MOST_RUNS}")]
    Runs { runs: usize },
    /// The figure could not be drawn.
    #[error("the figure cannot be drawn: {0}")]
    Draw(String),
    /// A file could not be written.
    #[error(transparent)]
    Weights(#[from] k2_weights::WeightsError),
}

/// Draws the runs in these folders (or metrics files) to `path` with the endings `.svg` and `.png`, in place of one of these.
pub fn plot(runs: &[PathBuf], path: &Path) -> Result<[PathBuf; 2], PlotError> {
    if runs.is_empty() || runs.len() > MOST_RUNS {
        return Err(PlotError::Runs { runs: runs.len() });
    }
    let mut curves = runs.iter().map(|run| Curves::read(run)).collect::<Result<Vec<_>, _>>()?;
    for (curves, label) in curves.iter_mut().zip(labels(runs)) {
        curves.name = label;
    }
    let paths = ["svg", "png"].map(|ending| with_ending(path, ending));
    let svg = picture::svg(&curves)?;
    k2_weights::replace_file(&paths[0], |file| file.write_all(svg.as_bytes()))?;
    let png = picture::png(&curves)?;
    k2_weights::replace_file(&paths[1], |file| file.write_all(&png))?;
    Ok(paths)
}

/// What stands behind another point is a part of the name, as in `lr-2e-3.5`.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    match path.extension().and_then(|found| found.to_str()) {
        Some("svg" | "png") => path.with_extension(ending),
        _ => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{ending}"));
            name.into()
        }
    }
}
