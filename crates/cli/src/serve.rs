//! `k2 serve`: a model over HTTP.

mod access;
mod config;
mod request_limits;

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use k2_chat::{GrammarCompiler, Turns};
use k2_engine::EngineOptions;
use k2_server::{Log, LogFormat, LogLevel, Params, Served};

use crate::model::{self, ModelArgs, TemplateArgs, TokenizerArgs, masked_ids};
use crate::sampling::{DEFAULT_TEMPERATURE, DEFAULT_TOP_P};
use access::AccessArgs;
pub(crate) use config::with_config;
use request_limits::LimitArgs;

/// Memory for the tokens of the model's own turns.
const TURNS_BYTES: usize = 64 << 20;

/// Serve a model over HTTP: OpenAI's chat completions, responses and completions, Anthropic's messages.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// The model's name in requests and answers [default: the name of its folder or file].
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// Keep what agents put before their system prompt and change each time (`x-anthropic-billing-header: …`).
    /// Without this it is left out, so that the rest is found in the cache.
    #[arg(long)]
    keep_agent_headers: bool,
    /// Which values the parameters of requests may have: open (what the sampler can do), or kimi (as Moonshot's
    /// platform: temperature 0 to 1, top_p, penalties and n fixed).
    #[arg(long, value_name = "RULES", default_value = "open", value_parser = Params::from_name)]
    params: Params,
    /// Conversations computed at the same time; others wait.
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().max_sequences)]
    max_sequences: usize,
    /// Requests that may wait; more are refused with status 429.
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().max_waiting)]
    max_waiting: usize,
    /// Tokens that the cache holds for all conversations together, beginnings kept for later ones included
    /// [default: --context].
    #[arg(long, value_name = "TOKENS")]
    cache_tokens: Option<usize>,
    /// Most prompt tokens computed in one step; between the tokens of running answers fewer, where a long prompt has
    /// become slow.
    #[arg(long, value_name = "TOKENS", default_value_t = EngineOptions::default().prefill_chunk)]
    prefill_chunk: usize,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// The form of the log on standard error: text or json.
    #[arg(long, value_name = "FORM", default_value_t = LogFormat::default(), help_heading = "Log")]
    log_format: LogFormat,
    /// What is logged: off, error, warn, info (a line for each request), debug or trace. Never prompts or answers.
    #[arg(long, value_name = "LEVEL", default_value_t = LogLevel::default(), help_heading = "Log")]
    log_level: LogLevel,
    /// TOML file of these options, `max-body = 1000000` for --max-body; what the command line says counts more.
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Print the options in force as TOML, keys left out, and end.
    #[arg(long, help_heading = "Configuration")]
    print_config: bool,
}

impl ServeArgs {
    fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            max_sequences: self.max_sequences,
            max_waiting: self.max_waiting,
            cache_tokens: self.cache_tokens.unwrap_or_default(),
            prefill_chunk: self.prefill_chunk,
            ..EngineOptions::default()
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> Result<(), Box<dyn Error>> {
    if args.print_config {
        return config::print();
    }
    let options = args.access.server_options(args.max_sequences.saturating_add(args.max_waiting))?;
    options.check()?;
    let _log = Log::start(args.log_format, args.log_level)?;
    let model = args.model.open()?;
    let tokenizer = model.tokenizer(&args.tokenizer)?;
    let template = model.template(&args.template, &args.tokenizer)?;
    let engine = model.start(args.engine_options())?;
    let stop_ids = model.stop_ids(&tokenizer);
    let served = Served {
        grammars: GrammarCompiler::new(&tokenizer, &stop_ids)?,
        turns: Turns::new(TURNS_BYTES),
        params: args.params,
        model_name: args.served_model_name.unwrap_or_else(|| model.name()),
        stop_ids,
        masked_ids: masked_ids(&tokenizer, &engine),
        temperature: DEFAULT_TEMPERATURE,
        top_p: DEFAULT_TOP_P,
        limits: args.limits.limits(),
        keep_agent_headers: args.keep_agent_headers,
        engine,
        tokenizer,
        template,
    };
    let engine = served.engine.clone();
    k2_server::serve(served, options)?;
    model::flush(&engine);
    Ok(())
}
