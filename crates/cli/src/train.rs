//! `k2 train`: a run from a recipe, and what is done with runs: curves, evaluation, publishing.

use clap::{Args, Subcommand};
use k2_train::export::{ExportFormat, publish};
use k2_train::progress::Bar;
use k2_train::recipe::Overrides;
use k2_train::{Event, Recipe, checkpoint};
use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{train_evaluate, train_plot, train_publish};

/// Train a model with MuonClip, from new weights or from a checkpoint.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    command: Option<TrainCommand>,
    /// The recipe, a TOML file.
    #[arg(long, required = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on from the last checkpoint of the recipe's run.
    #[arg(long)]
    resume: bool,
    /// Begin with this model's weights; a recipe without a [model] takes its architecture too.
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Folder of checkpoints and metrics, in place of the recipe's.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Threads, in place of the recipe's; another number gives other roundings.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Another value for a key of the recipe, such as `optimizer.qk_clip_tau=30.0`; a text needs quotes of its own,
    /// as in `'optimizer.matrices="adamw"'`. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum TrainCommand {
    Plot(train_plot::PlotArgs),
    Evaluate(train_evaluate::EvaluateArgs),
    Publish(train_publish::PublishArgs),
}

/// Runs the command.
pub(crate) fn run(args: TrainArgs) -> Result<(), Box<dyn Error>> {
    match args.command {
        Some(TrainCommand::Plot(args)) => train_plot::run(&args),
        Some(TrainCommand::Evaluate(args)) => train_evaluate::run(&args),
        Some(TrainCommand::Publish(args)) => train_publish::run(&args),
        None => train(args),
    }
}

fn train(args: TrainArgs) -> Result<(), Box<dyn Error>> {
    if let Some(isa) = std::env::var_os("K2_ISA") {
        let isa = isa.to_string_lossy();
        return Err(format!("K2_ISA={isa}: a training's products choose for themselves, unset it").into());
    }
    let path = args.config.unwrap_or_default();
    let overrides = Overrides { run: args.run, init: args.init, threads: args.threads, set: args.set };
    let recipe = Recipe::read(&path, overrides)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let on_interrupt = Arc::clone(&interrupted);
    ctrlc::set_handler(move || on_interrupt.store(true, Ordering::Relaxed))?;
    let (mut bar, mut done) = (Bar::new(recipe.schedule.steps), 0);
    let last = k2_train::run(&recipe, args.resume, &mut |event| {
        bar.show(event);
        if let Event::Finished { step } = event {
            done = *step;
        }
        match interrupted.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    if done < recipe.schedule.steps {
        eprintln!("stopped after step {done} of {}; --resume goes on", recipe.schedule.steps);
        return Ok(());
    }
    // With rounding in its last steps, the rounded weights are what was trained.
    let format = recipe.quantization.map_or(ExportFormat::Bf16, |_| ExportFormat::Int4);
    let model = recipe.run.join("model");
    publish(&last, &checkpoint::tokenizer(&last)?, format, &model)?;
    writeln!(io::stdout(), "{}", model.display())?;
    Ok(())
}
