//! The table of commands.

use std::error::Error;

use clap::{Parser, Subcommand};

use crate::{
    bench, chat, export_embedded, inspect, parse, render, run, serve, tokenize, tokenizer_train, train,
    verify,
};

const ENVIRONMENT: &str = "Environment:
  K2_ISA    Compute with this instruction set in place of the best: scalar, avx2, avx512, amx or neon
  K2_NODES  Take the machine for one of so many NUMA nodes; 1: memory is the same everywhere";

/// Runs, serves and trains Kimi K2 on machines you own.
#[derive(Debug, Parser)]
#[command(name = "k2", version, about, arg_required_else_help = true, after_help = ENVIRONMENT)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `k2` can do; the first line of each command's arguments describes it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::RunArgs),
    Chat(chat::ChatArgs),
    Serve(Box<serve::ServeArgs>),
    Verify(verify::VerifyArgs),
    Train(train::TrainArgs),
    Tokenizer(tokenizer_train::TokenizerArgs),
    Inspect(inspect::InspectArgs),
    ExportEmbedded(export_embedded::ExportArgs),
    Bench(bench::BenchArgs),
    Tokenize(tokenize::TokenizeArgs),
    Render(render::RenderArgs),
    Parse(parse::ParseArgs),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Command::Run(args) => run::run(args),
            Command::Chat(args) => chat::run(&args),
            Command::Serve(args) => serve::run(*args),
            Command::Verify(args) => verify::run(&args),
            Command::Train(args) => train::run(args),
            Command::Tokenizer(args) => tokenizer_train::run(&args),
            Command::Inspect(args) => inspect::run(&args),
            Command::ExportEmbedded(args) => export_embedded::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Tokenize(args) => tokenize::run(&args),
            Command::Render(args) => render::run(&args),
            Command::Parse(args) => parse::run(&args),
        }
    }
}
