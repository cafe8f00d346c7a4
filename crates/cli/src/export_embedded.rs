//! `k2 export-embedded`: the model inside this program as a folder of files.

use clap::Args;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::embedded;

/// Write out the model that ships inside this program.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Folder to write; existing files of the same names are replaced.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &ExportArgs) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&args.folder).map_err(|error| format!("{}: {error}", args.folder.display()))?;
    for (name, bytes) in embedded::FILES {
        k2_weights::replace_file(&args.folder.join(name), |file| file.write_all(bytes))?;
    }
    writeln!(io::stdout(), "{}", args.folder.display())?;
    Ok(())
}
