//! `k2 train evaluate`: held-out tool dialogues, each end to end.

use clap::Args;
use k2_chat::{GrammarCompiler, Template, Tokenizer};
use k2_kernels::Pool;
use k2_model::KimiK2;
use k2_train::checkpoint;
use k2_train::dialogues::Generator;
use k2_train::evaluate::{CELLS, CellReport, Report, baseline, evaluate, greedy, of_model};
use k2_weights::Checkpoint;
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::bench::positive;
use crate::embedded;
use crate::train_publish::whole_checkpoint;

/// Longest answer; those that are wanted have a quarter of it.
const LIMIT: usize = 400;

/// Evaluate a model on held-out synthetic tool dialogues, greedily.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// A model's folder, a run's, or one of its checkpoints [default: the small model inside this program].
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Cases of each cell.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = positive)]
    cases: usize,
    /// Seed of the cases; with a `data.seed` that the model was trained with, those of the seen cells may be ones that it
    /// has learned. The small model's are 1 and others below 99.
    #[arg(long, default_value_t = 99)]
    seed: u64,
    /// Evaluate the keyword program instead of a model.
    #[arg(long, conflicts_with = "model")]
    baseline: bool,
    /// Hold calls to the schemas of their tools, as the server does; without it nothing is held to anything.
    #[arg(long, conflicts_with = "baseline")]
    grammar: bool,
    /// Write all numbers and the first failures as JSON.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &EvaluateArgs) -> Result<(), Box<dyn Error>> {
    let generator = Generator::new(args.seed)?;
    let mut watch = |cell: &CellReport| eprintln!("{}: {}", cell.name, cell.end_to_end);
    let report = if args.baseline {
        evaluate(&CELLS, &generator, args.cases, &mut baseline::answer, &mut watch)?
    } else {
        let (model, tokenizer, template) = open(args.model.as_deref())?;
        let stop = tokenizer.stop_ids(&[]);
        let grammars = args.grammar.then(|| GrammarCompiler::new(&tokenizer, &stop)).transpose()?;
        let mut answer = of_model(&tokenizer, template, grammars.as_ref(), greedy(&model, &stop, LIMIT));
        evaluate(&CELLS, &generator, args.cases, &mut answer, &mut watch)?
    };
    write!(io::stdout(), "{report}")?;
    args.output.as_ref().map_or(Ok(()), |path| write(&report, path))
}

fn open(path: Option<&Path>) -> Result<(KimiK2, Tokenizer, Template), Box<dyn Error>> {
    let (checkpoint, tokenizer, template) = match path {
        Some(path) => {
            let path = whole_checkpoint(path)?;
            let folder = checkpoint::tokenizer(&path)?;
            let (tokenizer, template) = (Tokenizer::from_dir(&folder)?, Template::from_dir(&folder)?);
            (Checkpoint::open(&path, &mut |_| ())?, tokenizer, template)
        }
        None => (embedded::checkpoint()?, embedded::tokenizer()?, embedded::TEMPLATE),
    };
    Ok((KimiK2::load(&checkpoint, Pool::for_this_machine(), &mut |_, _| ())?, tokenizer, template))
}

fn write(report: &Report, path: &Path) -> Result<(), Box<dyn Error>> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    Ok(k2_weights::replace_file(path, |file| file.write_all(json.as_bytes()))?)
}
