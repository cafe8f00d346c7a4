//! `k2 serve`: OpenAI's API over HTTP.

use std::error::Error;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};

use clap::Args;
use k2_engine::EngineOptions;
use k2_server::{Guard, Limits, Served};

use crate::model::{ModelArgs, TemplateArgs, TokenizerArgs, masked_ids};
use crate::sampling::{DEFAULT_TEMPERATURE, DEFAULT_TOP_P};

/// Serve a model over HTTP: chat completions with tools, completions, models, health.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// IP address to listen on; one that other machines can reach needs --api-key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// The model's name in requests and answers [default: the name of its folder or file].
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// Key that requests must bring (`Authorization: Bearer KEY`).
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Keep what agents put before their system prompt and change each time (`x-anthropic-billing-header: …`).
    /// Without this it is left out, so that the rest is found in the cache.
    #[arg(long)]
    keep_agent_headers: bool,
    /// Largest body of a request.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body_bytes)]
    max_body: usize,
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
    /// Prompt tokens computed in one step, between the tokens of running answers.
    #[arg(long, value_name = "TOKENS", default_value_t = EngineOptions::default().prefill_chunk)]
    prefill_chunk: usize,
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
    let model = args.model.open()?;
    let tokenizer = model.tokenizer(&args.tokenizer)?;
    let template = model.template(&args.template, &args.tokenizer)?;
    let engine = model.start(args.engine_options())?;
    let served = Served {
        model_name: args.served_model_name.unwrap_or_else(|| model.name()),
        stop_ids: model.stop_ids(&tokenizer),
        masked_ids: masked_ids(&tokenizer, &engine),
        temperature: DEFAULT_TEMPERATURE,
        top_p: DEFAULT_TOP_P,
        limits: Limits { body_bytes: args.max_body, ..Limits::default() },
        keep_agent_headers: args.keep_agent_headers,
        engine,
        tokenizer,
        template,
    };
    let (name, guard) = (served.model_name.clone(), Guard { api_key: args.api_key });
    Ok(k2_server::serve(served, SocketAddr::new(args.host, args.port), guard, |address| {
        eprintln!("serving {name} on http://{address}/v1");
    })?)
}

/// An IP address, or the usual name of this machine.
fn host(text: &str) -> Result<IpAddr, AddrParseError> {
    if text == "localhost" { Ok(Ipv4Addr::LOCALHOST.into()) } else { text.parse() }
}
