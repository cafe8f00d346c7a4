//! `k2 run`: continues a text, or a list of token ids.
//!
//! With `--prompt-ids` it is a door to the bare model: ids in, ids and logits out, and nothing but
//! `--max-tokens` ends the continuation.

mod ended;
mod output;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use k2_chat::{StopMatcher, Tokenizer};
use k2_engine::{Engine, EngineOptions, Request};
use k2_weights::safetensors::Dtype;
use k2_weights::save_safetensors;

use crate::json_lines;
use crate::model::{self, Model, ModelArgs, TokenizerArgs, answer_markers, masked_ids};
use crate::sampling::SamplingArgs;
use output::{Output, TextOutput};

/// Most tokens if the command line does not say.
const MAX_TOKENS: usize = 512;

/// Continue a text, streamed; speed on standard error.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["prompt", "prompt_ids"]))]
pub(crate) struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// The text to continue.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Special tokens spelled in the text become control tokens.
    #[arg(long, conflicts_with = "prompt_ids")]
    allow_special: bool,
    /// Token ids to continue, in place of a text; prints ids.
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',', conflicts_with = "tokenizer")]
    prompt_ids: Vec<u32>,
    /// Most tokens to generate [default: 512; with --logits 0].
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End the answer before this text; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "prompt_ids")]
    stop: Vec<String>,
    /// Write the logits of all prompt positions: safetensors, tensor `logits` [tokens, vocabulary] F32.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print one JSON object when done: ids, text, why it ended, speed.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let _log = model::warnings()?;
    let model = args.model.open()?;
    let mut output = Output::new(!args.json, args.text_output(&model)?);
    let answers = output.text.as_ref().and_then(|text| answer_markers(&text.tokenizer));
    let engine = model.start(EngineOptions { answers, ..EngineOptions::default() })?;
    let request = args.request(&model, output.text.as_ref().map(|text| &text.tokenizer), &engine);
    let sampling = request.sampling;
    let ended = output.take(engine.submit(request)?)?;
    if let Some(path) = &args.logits {
        save_logits(path, &output.logits, engine.vocab_size())?;
    }
    if args.json {
        let text = output.text.map(|text| text.text);
        json_lines::print(&mut io::stdout().lock(), &ended.json(&output.ids, text, sampling))?;
    }
    eprintln!("{}", ended.summary(sampling));
    model::flush(&engine);
    Ok(())
}

impl RunArgs {
    /// The tokenizer and what else text needs; none if ids are given.
    fn text_output(&self, model: &Model) -> Result<Option<TextOutput>, Box<dyn Error>> {
        if self.prompt.is_none() {
            return Ok(None);
        }
        let stop = StopMatcher::new(self.stop.clone())?;
        Ok(Some(TextOutput::new(model.tokenizer(&self.tokenizer)?, stop)))
    }

    fn request(&self, model: &Model, tokenizer: Option<&Tokenizer>, engine: &Engine) -> Request {
        let default_max = if self.logits.is_some() { 0 } else { MAX_TOKENS };
        let request = Request {
            max_tokens: self.max_tokens.unwrap_or(default_max),
            sampling: self.sampling.sampling(),
            prompt_logits: self.logits.is_some(),
            ..Request::default()
        };
        match (tokenizer, &self.prompt) {
            (Some(tokenizer), Some(prompt)) => Request {
                prompt: tokenizer.encode(prompt, self.allow_special),
                stop_ids: model.stop_ids(tokenizer),
                masked_ids: masked_ids(tokenizer, engine),
                ..request
            },
            _ => Request { prompt: self.prompt_ids.clone(), stop_ids: Arc::default(), ..request },
        }
    }
}

fn save_logits(path: &Path, logits: &[u8], vocab_size: usize) -> Result<(), Box<dyn Error>> {
    let shape = [logits.len() / size_of::<f32>() / vocab_size, vocab_size];
    Ok(save_safetensors(path, &[("logits", Dtype::F32, &shape, logits)])?)
}
