//! `k2 verify`: whether a deployment of Kimi K2 does what it must.

mod table;

use std::error::Error;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use k2_chat::{Template, Tokenizer};
use k2_eval::verify::{self, Group, ParameterRules, Renderer, RequestFile, Settings, Verdict};

use crate::endpoint::EndpointArgs;
use crate::{json_lines, tokenizer};

/// Check an OpenAI endpoint of Kimi K2: parameters, prompts, tool calls under schemas, formats, streams.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Groups to check, separated by commas [default: all].
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = groups())]
    only: Vec<Group>,
    /// Which parameters must be refused: those that Moonshot's platform refuses, or those outside OpenAI's ranges.
    #[arg(long, value_name = "RULES", default_value = "kimi")]
    params: Params,
    /// How requests say whether to think: `thinking`, `chat_template_kwargs`, or not at all.
    #[arg(long, value_name = "MODE", default_value = "kimi")]
    think_mode: ThinkMode,
    /// Folder with tiktoken.model and tokenizer_config.json, or a GGUF file: prompts are counted with it.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Turn format that prompts are counted in [default: the one that the tokenizer's folder asks for].
    #[arg(long, value_name = "NAME", value_parser = Template::from_name, requires = "tokenizer")]
    template: Option<Template>,
    /// Requests, one body a line, as K2-Vendor-Verifier's samples.jsonl.
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
    /// Results of the official API on them, as K2-Vendor-Verifier writes them, to compute F1 against.
    #[arg(long, value_name = "FILE", requires = "requests")]
    reference: Option<PathBuf>,
    /// Least F1 of triggered calls.
    #[arg(long, value_name = "F1", default_value_t = 0.8)]
    min_f1: f64,
    /// Requests under way at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Params {
    Kimi,
    Open,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ThinkMode {
    Kimi,
    Opensource,
    None,
}

/// Runs the command; an error if anything failed.
pub(crate) fn run(args: &VerifyArgs) -> Result<(), Box<dyn Error>> {
    let tokenizer = args.tokenizer.as_deref().map(tokenizer::open).transpose()?;
    let settings = args.settings(tokenizer.as_ref())?;
    let target = args.endpoint.open()?;
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} checks, {eta} left {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = verify::run(&target.endpoint, &target.model, &settings, |check, of| {
        bar.set_length(of as u64);
        if let Verdict::Failed(_) = check.verdict {
            bar.set_message(format!("(last failure: {} {})", check.group.name(), check.name));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    match args.json {
        true => json_lines::print(&mut std::io::stdout().lock(), &report)?,
        false => table::print(&report)?,
    }
    match report.failed {
        0 if report.checks.iter().all(|check| matches!(check.verdict, Verdict::Skipped(_))) => {
            Err("nothing was checked: every check was skipped".into())
        }
        0 => Ok(()),
        failed => Err(format!("{failed} of {} checks failed", report.checks.len()).into()),
    }
}

impl VerifyArgs {
    fn settings<'a>(&self, tokenizer: Option<&'a Tokenizer>) -> Result<Settings<'a>, Box<dyn Error>> {
        let renderer = match (tokenizer, &self.tokenizer, self.template) {
            (Some(tokenizer), _, Some(template)) => Some(Renderer { tokenizer, template }),
            (Some(tokenizer), Some(folder), None) => {
                Some(Renderer { tokenizer, template: tokenizer::template(folder)? })
            }
            _ => None,
        };
        let reference = self.reference.as_deref();
        let read = |path: &PathBuf| RequestFile::read(path, reference, self.min_f1);
        Ok(Settings {
            groups: if self.only.is_empty() { Group::ALL.into() } else { self.only.clone() },
            parameter_rules: match self.params {
                Params::Kimi => ParameterRules::Kimi,
                Params::Open => ParameterRules::Open,
            },
            think_mode: match self.think_mode {
                ThinkMode::Kimi => verify::ThinkMode::Kimi,
                ThinkMode::Opensource => verify::ThinkMode::Opensource,
                ThinkMode::None => verify::ThinkMode::None,
            },
            renderer,
            requests: self.requests.as_ref().map(read).transpose()?,
            concurrency: self.concurrency.into(),
        })
    }
}

/// Names to groups.
fn groups() -> impl TypedValueParser<Value = Group> {
    PossibleValuesParser::new(Group::ALL.map(Group::name)).try_map(|name| {
        Group::ALL.into_iter().find(|group| group.name() == name).ok_or("there is no such group")
    })
}
