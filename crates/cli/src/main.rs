//! The binary `k2`: parse, dispatch, say what went wrong. One file per command.

mod bench;
mod bench_serve;
mod cache;
mod chat;
mod commands;
mod embedded;
mod endpoint;
mod export_embedded;
mod inspect;
mod json_lines;
mod loading_bar;
mod model;
mod parse;
mod render;
mod repack;
mod run;
mod sampling;
mod serve;
mod tokenize;
mod tokenizer;
mod tokenizer_train;
mod train;
mod train_evaluate;
mod train_plot;
mod train_publish;
mod verify;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use commands::Cli;

/// 0 when all went well, 1 when something did not, 2 (from clap) when the command line is wrong.
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    k2_kernels::isa::check_environment()?;
    k2_kernels::nodes::check_environment()?;
    Cli::parse_from(serve::with_config(env::args_os().collect())?).command.run()
}

/// A message and those of its causes that it does not quote already.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}\n  because: {message}");
        }
        cause = error.source();
    }
    text
}
