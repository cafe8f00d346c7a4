//! `k2 bench serve`: an endpoint under load.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use k2_eval::load::{self, Between, Distribution, Plan, Report, Route, Until};

use crate::endpoint::EndpointArgs;
use crate::{json_lines, tokenizer};

/// Clients that a rate gets if nothing is said: enough for questions never to wait for one.
const CLIENTS_OF_A_RATE: usize = 256;

/// Put load on an OpenAI endpoint and time its streams.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Requests under way at a time [default: 1; with --rate 256].
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// Requests a second that arrive by themselves (Poisson); without it each client asks when its answer has come.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Requests in all [default: 32].
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    requests: Option<usize>,
    /// Seconds during which requests begin.
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..))]
    duration: Option<u32>,
    /// Tokens of a prompt's text: a number, or two with a dash between which lengths are drawn.
    #[arg(long, value_name = "TOKENS", default_value = "512", value_parser = between)]
    prompt_tokens: Between,
    /// Tokens of an answer, in the same form.
    #[arg(long, value_name = "TOKENS", default_value = "128", value_parser = between)]
    answer_tokens: Between,
    /// Let answers end where the model ends them; otherwise they have their full length where the endpoint knows
    /// `ignore_eos`.
    #[arg(long)]
    eos: bool,
    /// Ask /completions with the text as prompt, not /chat/completions with the text as message.
    #[arg(long)]
    completions: bool,
    /// Folder with tiktoken.model and tokenizer_config.json, or a GGUF file: texts have exactly their tokens.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Decides texts, lengths and arrivals.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command; an error if a request failed.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Box<dyn Error>> {
    let plan = args.plan();
    let tokenizer = args.tokenizer.as_deref().map(tokenizer::open).transpose()?;
    let target = args.endpoint.open()?;
    let bar = bar(plan.until);
    let report = load::run(&target.endpoint, &target.model, &plan, tokenizer.as_ref(), |sample| {
        if let Some(error) = &sample.error {
            bar.set_message(format!("(last error: {error})"));
        }
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    match args.json {
        true => json_lines::print(&mut io::stdout().lock(), &report)?,
        false => print(&report)?,
    }
    match report.errors.values().sum::<usize>() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} requests failed", failed + report.answered).into()),
    }
}

impl ServeArgs {
    fn plan(&self) -> Plan {
        let default = if self.rate.is_some() { CLIENTS_OF_A_RATE } else { 1 };
        let until = self.duration.map(|seconds| Until::Elapsed(Duration::from_secs(seconds.into())));
        Plan {
            route: if self.completions { Route::Completions } else { Route::Chat },
            clients: self.clients.unwrap_or(default),
            rate: self.rate,
            until: until.unwrap_or(Until::Requests(self.requests.unwrap_or(32))),
            prompt_tokens: self.prompt_tokens,
            answer_tokens: self.answer_tokens,
            ignore_eos: !self.eos,
            seed: self.seed,
        }
    }
}

fn between(text: &str) -> Result<Between, String> {
    let number = |text: &str| text.parse::<usize>().map_err(|error| format!("{text:?}: {error}"));
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    Ok(Between { least: number(least)?, most: number(most)? })
}

fn bar(until: Until) -> ProgressBar {
    let (bar, template) = match until {
        Until::Requests(count) => {
            (ProgressBar::new(count as u64), "{bar:30} {pos}/{len} requests, {eta} left {msg}")
        }
        Until::Elapsed(_) => (ProgressBar::new_spinner(), "{spinner} {pos} requests in {elapsed} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Report { model, url, clients, answered, seconds, .. } = report;
    let rate = report.rate.map_or(String::new(), |rate| format!(", {rate} requests a second"));
    writeln!(out, "{model} of {url}: {clients} clients{rate}")?;
    writeln!(
        out,
        "{answered} requests answered in {seconds:.1} s, {:.2} a second",
        report.requests_per_second
    )?;
    let (prompt, cached, answer) = (report.prompt_tokens, report.cached_tokens, report.completion_tokens);
    writeln!(
        out,
        "prompts: {prompt} tokens ({cached} cached), {:.1} a second",
        report.prompt_tokens_per_second
    )?;
    writeln!(out, "answers: {answer} tokens, {:.1} a second\n", report.completion_tokens_per_second)?;
    writeln!(
        out,
        "{:<24} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "milliseconds", "mean", "p50", "p95", "p99", "max"
    )?;
    for (name, distribution) in [
        ("time to first token", report.time_to_first_token),
        ("between tokens", report.inter_token_latency),
        ("per token of an answer", report.time_per_output_token),
        ("end to end", report.end_to_end),
    ] {
        if let Some(Distribution { mean, p50, p95, p99, max }) = distribution {
            writeln!(out, "{name:<24} {mean:>10.1} {p50:>10.1} {p95:>10.1} {p99:>10.1} {max:>10.1}")?;
        }
    }
    if !report.ignore_eos {
        writeln!(out, "\nanswers ended where the model ended them; they may be shorter than asked")?;
    }
    if report.late > 0 {
        writeln!(out, "\n{} requests had to wait for a client: the rate was not kept", report.late)?;
    }
    report.errors.iter().try_for_each(|(error, count)| writeln!(out, "\nfailed {count} times: {error}"))
}
