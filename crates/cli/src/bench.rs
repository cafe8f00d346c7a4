//! `k2 bench`: how fast a model is computed, and how far from what the machine could do.
//!
//! The bare model without engine and sampler, on random tokens from a fixed seed, as llama-bench does: *prefill*
//! computes a prompt, *decode* one token of each sequence per step, both after `depth` tokens that are in the
//! cache. What the machine could do is measured in the same process. With `--compare`, a peer's benchmark takes
//! its turn after each repetition, so that both see the same neighbours.

mod case;
mod peer;
mod report;
mod session;
mod work;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, value_parser};
use k2_kernels::Pool;
use k2_kernels::limits::Limits;
use k2_kernels::memory::available_memory;
use k2_model::synthetic::{Shape, Synthetic, SyntheticFormat};
use k2_model::{CacheDtype, KimiK2, Precision};
use k2_weights::Checkpoint;

use crate::cache::cache_dtype;
use crate::loading_bar::LoadingBar;
use crate::repack::{Large, RepackArgs};
use crate::{bench_serve, json_lines};
use case::Case;
use peer::Peer;
use report::{Measured, Report};
use session::{Session, Settings, cache_bytes};

/// Measure prefill and decode, beside what the machine could do and beside a peer.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["model", "synthetic"]))]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    of: Option<Of>,
    /// A checkpoint's folder, or a GGUF file (any of a split).
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Random weights in memory in place of a model: small, slice or full-1-layer.
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    synthetic: Option<Shape>,
    /// Their format: int4, fp8, bf16, q8_0 or q4_k.
    #[arg(long, value_name = "FORMAT", value_parser = format, conflicts_with = "model", default_value = "int4")]
    format: SyntheticFormat,
    /// Their routed experts per layer [default: the shape's own, 64 or 384].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(8..=1024), conflicts_with = "model")]
    experts: Option<u16>,
    /// Lengths of prompts.
    #[arg(
        short = 'p',
        long = "prompt",
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "128,512"
    )]
    prompts: Vec<usize>,
    /// Lengths of answers; 0 for none.
    #[arg(short = 'n', long = "generate", value_name = "N,...", value_delimiter = ',', default_value = "64")]
    generate: Vec<usize>,
    /// Tokens in the cache before.
    #[arg(short = 'd', long = "depth", value_name = "N,...", value_delimiter = ',', default_value = "0")]
    depths: Vec<usize>,
    /// Sequences that are decoded together.
    #[arg(short = 'b', long = "batch", value_name = "N,...", value_delimiter = ',', default_value = "1")]
    batches: Vec<usize>,
    /// Prompt tokens of one step; 1024 are what `k2 serve` computes at once for a prompt that is alone.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = positive)]
    prefill_chunk: usize,
    /// Logits of all rows of a prompt. Otherwise only the last row goes through the last layer, and that of full-1-layer
    /// is its only one.
    #[arg(long, conflicts_with = "compare")]
    prompt_logits: bool,
    /// How the cache keeps latents: f32 as computed; i16 in half of the memory, rounded to integers that attention
    /// multiplies faster; bf16 in half of it; q8 in about a quarter [default: i16, f32 with --exact].
    #[arg(long, value_name = "FORMAT")]
    cache_dtype: Option<CacheDtype>,
    /// How often each case is measured, after a warm-up.
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5, value_parser = positive)]
    repetitions: usize,
    /// Threads to compute with [default: one for each processor].
    #[arg(short = 't', long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Compute in 32-bit floats with the weights widened, in place of integer products with quantised weights.
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    repack: RepackArgs,
    /// A peer's benchmark that takes llama-bench's options and prints its JSON, for instance
    /// "llama-bench --repack 0"; gets the model's file and runs in turns.
    #[arg(long, value_name = "CMD", conflicts_with = "synthetic", value_parser = Peer::from_command)]
    compare: Option<Peer>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What else has a speed than a model.
#[derive(Debug, Subcommand)]
enum Of {
    Serve(bench_serve::ServeArgs),
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Box<dyn Error>> {
    if let Some(Of::Serve(args)) = &args.of {
        return bench_serve::run(args);
    }
    let cases = Case::all(&args.prompts, &args.generate, &args.depths, &args.batches)?;
    if let (Some(_), Some(case)) = (&args.compare, cases.iter().find(|case| case.batch > 1)) {
        return Err(format!("{case}: llama-bench has no batches to --compare with, -b has to be 1").into());
    }
    let model = args.load(&cases)?;
    model.pool.keep_caller();
    let limits = Limits::measure(&model.pool);
    let mut session = Session::new(&model, &cases, args.settings())?;
    let mut report = Report::new(args.name(), &model, limits);
    let mut output = io::stdout().lock();
    if !args.json {
        write!(output, "{}", report.head())?;
        output.flush()?;
    }
    for case in cases {
        let measured = args.measure(case, &mut session)?;
        report.results.push(measured);
        if !args.json {
            writeln!(output, "{}", report.row(report.results.len() - 1))?;
            output.flush()?;
        }
    }
    if args.json { json_lines::print(&mut output, &report.json()) } else { Ok(()) }
}

impl BenchArgs {
    fn settings(&self) -> Settings {
        let cache_dtype = self.cache_dtype.unwrap_or(cache_dtype(self.precision()));
        Settings { prefill_chunk: self.prefill_chunk, prompt_logits: self.prompt_logits, cache_dtype }
    }

    fn precision(&self) -> Precision {
        if self.exact { Precision::Exact } else { Precision::Fast }
    }

    fn load(&self, cases: &[Case]) -> Result<KimiK2, Box<dyn Error>> {
        let pool = self.threads.map_or_else(Pool::for_this_machine, |threads| Pool::new(threads.into()));
        let bar = LoadingBar::new();
        let progress = &mut |done, of| bar.layers(done, of);
        let model = match (&self.model, self.synthetic) {
            (Some(path), _) => {
                let checkpoint = Checkpoint::open(path, &mut |progress| bar.files(progress))?;
                KimiK2::load(&checkpoint, pool, progress)?
            }
            (None, Some(shape)) => {
                let n_routed_experts = self.experts.map(usize::from);
                let synthetic = Synthetic { shape, format: self.format, n_routed_experts };
                let experts = synthetic.config().n_routed_experts;
                let what = format!("{} {} with {experts} experts", shape.name(), self.format.name());
                fits_into_memory(&what, synthetic.bytes_at_least(), "--experts N takes fewer")?;
                KimiK2::synthetic(&synthetic, pool, progress)?
            }
            (None, None) => return Err("neither MODEL nor --synthetic".into()), // clap has refused this already
        };
        let mut model = KimiK2 { precision: self.precision(), ..model };
        let cache_bytes = cache_bytes(&model, cases, self.settings());
        fits_into_memory("the cache", cache_bytes, "fewer or shorter sequences take less")?;
        self.repack.apply(&mut model, cache_bytes, Large::AtOnce, &bar)?;
        Ok(model)
    }

    fn name(&self) -> String {
        let model = match (&self.model, self.synthetic) {
            (Some(path), _) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            (None, shape) => {
                let experts = self.experts.map_or_else(String::new, |n| format!(", {n} experts"));
                let shape = shape.map_or("", Shape::name);
                format!("synthetic {shape} {}{experts}", self.format.name())
            }
        };
        if self.exact { model + ", exact" } else { model }
    }

    /// A warm-up, then repetitions, each followed by the peer's.
    fn measure(&self, case: Case, session: &mut Session<'_>) -> Result<Measured, Box<dyn Error>> {
        session.run(case.warm_up())?;
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for repetition in 0..self.repetitions {
            if io::stderr().is_terminal() {
                eprint!("\r{case}: {} of {}\x1b[K\r", repetition + 1, self.repetitions);
            }
            ours.push(case.tokens() as f64 / session.run(case)?.as_secs_f64());
            if let (Some(peer), Some(path)) = (&self.compare, &self.model) {
                peers.push(peer.measure(path, session.threads(), case)?);
            }
        }
        Ok(Measured { case, work: session.work(case), ours, peers })
    }
}

/// Refuses what would drive the machine out of memory.
fn fits_into_memory(what: &str, needed: u64, less: &str) -> Result<(), String> {
    match available_memory() {
        Some(available) if needed > available / 10 * 9 => Err(format!(
            "{what} takes {:.1} GB, {:.1} GB are free; {less}",
            needed as f64 / 1e9,
            available as f64 / 1e9
        )),
        _ => Ok(()),
    }
}

fn shape(name: &str) -> Result<Shape, String> {
    let known = Shape::ALL.into_iter().find(|shape| shape.name() == name);
    known.ok_or_else(|| "expected small, slice or full-1-layer".into())
}

fn format(name: &str) -> Result<SyntheticFormat, String> {
    let known = SyntheticFormat::ALL.into_iter().find(|format| format.name() == name);
    known.ok_or_else(|| "expected int4, fp8, bf16, q8_0 or q4_k".into())
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number from 1 on".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_memory_is_refused() {
        assert_eq!(fits_into_memory("nothing", 0, ""), Ok(()));
        if available_memory().is_some() {
            let error = fits_into_memory("the cache", u64::MAX, "fewer take less").unwrap_err();
            assert!(
                error.starts_with("the cache takes 18446744073.7 GB, ")
                    && error.ends_with("; fewer take less")
            );
        }
    }
}
