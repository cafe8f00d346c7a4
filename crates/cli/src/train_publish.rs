//! `k2 train publish`: a run's checkpoint as a model for others.

use clap::{Args, ValueEnum};
use k2_train::export::{ExportFormat, publish};
use k2_train::{TrainError, checkpoint};
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Write a run's checkpoint in a published format: config, weights, tokenizer.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// A run's folder (its last checkpoint), or one of its checkpoints.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Folder to write.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// BF16, or INT4 experts with BF16 for the rest as Kimi K2 Thinking.
    #[arg(long, value_enum, default_value = "bf16")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Bf16,
    Int4,
}

/// Runs the command.
pub(crate) fn run(args: &PublishArgs) -> Result<(), Box<dyn Error>> {
    let path = whole_checkpoint(&args.run)?;
    let format = match args.format {
        Format::Bf16 => ExportFormat::Bf16,
        Format::Int4 => ExportFormat::Int4,
    };
    publish(&path, &checkpoint::tokenizer(&path)?, format, &args.output)?;
    writeln!(io::stdout(), "{} is {}", args.output.display(), path.display())?;
    Ok(())
}

/// The last checkpoint of a run's folder; another folder is a checkpoint itself.
pub(crate) fn whole_checkpoint(run: &Path) -> Result<PathBuf, TrainError> {
    Ok(checkpoint::latest(&run.join("checkpoints"))?.unwrap_or_else(|| run.to_owned()))
}
