//! `k2 train plot`: the curves of runs as SVG and PNG.

use clap::Args;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

/// Draw loss, learning rate, attention logits and balance of runs.
#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// Folders of runs, or metrics files.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where to write; the endings .svg and .png are added.
    #[arg(short, long, value_name = "FILE", default_value = "curves")]
    output: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &PlotArgs) -> Result<(), Box<dyn Error>> {
    for path in k2_train::plot::plot(&args.runs, &args.output)? {
        writeln!(io::stdout(), "{}", path.display())?;
    }
    Ok(())
}
