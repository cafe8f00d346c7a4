//! `k2 run`: continues a text, or a list of token ids.
//!
//! With `--prompt-ids` it is a door to the bare model: ids in, ids and logits out, and nothing but
//! `--max-tokens` ends the continuation.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use k2_chat::{Detokenizer, StopMatcher, Tokenizer};
use k2_engine::{Engine, Event, Events, FinishReason, Request, Sampling, Timings, Usage};
use k2_weights::safetensors::Dtype;
use k2_weights::save_safetensors;
use serde_json::json;

use crate::json_lines;
use crate::model::{Model, ModelArgs, TokenizerArgs, masked_ids};
use crate::sampling::SamplingArgs;

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
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompt_ids"
    )]
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
    /// Compute in 32-bit floats with the weights widened. There is no faster path yet, so this is always so.
    #[arg(long)]
    exact: bool,
    /// Write the logits of all prompt positions: safetensors, tensor `logits` [tokens, vocabulary] F32.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Print one JSON object when done: ids, text, why it ended, speed.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let _ = args.exact; // nothing to choose between yet
    let model = args.model.open()?;
    let mut text = args.text_output(&model)?;
    let engine = model.start()?;
    let request = args.request(&model, text.as_ref().map(|text| &text.tokenizer), &engine);
    let sampling = request.sampling;
    let mut output = Output { streams: !args.json, ids: Vec::new(), logits: Vec::new(), text: text.as_mut() };
    let ended = output.take(engine.submit(request)?)?;
    if let Some(path) = &args.logits {
        save_logits(path, &output.logits, engine.vocab_size())?;
    }
    if args.json {
        let ids = output.ids;
        json_lines::print(&mut io::stdout().lock(), &ended.json(&ids, text.map(|text| text.text), sampling))?;
    }
    eprintln!("{}", ended.summary(sampling));
    Ok(())
}

impl RunArgs {
    /// The tokenizer and what else text needs; none if ids are given.
    fn text_output(&self, model: &Model) -> Result<Option<TextOutput>, Box<dyn Error>> {
        if self.prompt.is_none() {
            return Ok(None);
        }
        let stop = StopMatcher::new(self.stop.clone())?;
        let tokenizer = model.tokenizer(&self.tokenizer)?;
        Ok(Some(TextOutput { tokenizer, detokenizer: Detokenizer::new(), stop, text: String::new() }))
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

/// What has come so far.
struct Output<'a> {
    /// Whether it is printed as it comes.
    streams: bool,
    ids: Vec<u32>,
    /// Little-endian f32.
    logits: Vec<u8>,
    text: Option<&'a mut TextOutput>,
}

struct TextOutput {
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    text: String,
}

/// How it ended.
struct Ended {
    reason: &'static str,
    usage: Usage,
    timings: Timings,
}

impl Output<'_> {
    /// Takes all events of a request.
    fn take(&mut self, mut events: Events) -> Result<Ended, Box<dyn Error>> {
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::PromptLogits { rows, .. } => {
                    self.logits.extend(rows.iter().flat_map(|logit| logit.to_le_bytes()));
                }
                // More tokens may be on their way when a stop string has been seen.
                Event::Token { .. } if self.stopped() => {}
                Event::Token { id } => {
                    self.token(id)?;
                    if self.stopped() {
                        events.canceller().cancel();
                    }
                }
                Event::Finished { reason, usage, timings } => {
                    self.end()?;
                    return Ok(Ended { reason: self.reason(reason)?, usage, timings });
                }
            }
        }
        Err("the engine stopped in the middle of an answer".into())
    }

    fn stopped(&self) -> bool {
        self.text.as_ref().is_some_and(|text| text.stop.stopped())
    }

    fn reason(&self, reason: FinishReason) -> Result<&'static str, String> {
        match reason {
            FinishReason::Failed(why) => Err(why),
            _ if self.stopped() => Ok("stop"),
            FinishReason::Stop(_) => Ok("stop"),
            FinishReason::Length => Ok("length"),
            FinishReason::Cancelled => Ok("cancelled"),
        }
    }

    fn token(&mut self, id: u32) -> Result<(), Box<dyn Error>> {
        self.ids.push(id);
        let piece = match self.text.as_mut() {
            Some(text) => {
                let piece = text.detokenizer.push(&text.tokenizer, id)?;
                text.add(|stop| stop.push(&piece))
            }
            None if self.ids.len() == 1 => id.to_string(),
            None => format!(",{id}"),
        };
        self.show(&piece)
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        if let Some(text) = self.text.as_mut() {
            let tail = text.detokenizer.finish();
            let piece = text.add(|stop| stop.push(&tail) + &stop.finish());
            self.show(&piece)?;
        }
        self.show("\n")
    }

    fn show(&self, piece: &str) -> Result<(), Box<dyn Error>> {
        if self.streams {
            let mut output = io::stdout().lock();
            output.write_all(piece.as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }
}

impl TextOutput {
    /// Adds what the stop strings let through, and gives it back.
    fn add(&mut self, through: impl FnOnce(&mut StopMatcher) -> String) -> String {
        let piece = through(&mut self.stop);
        self.text.push_str(&piece);
        piece
    }
}

impl Ended {
    fn json(&self, ids: &[u32], text: Option<String>, sampling: Sampling) -> serde_json::Value {
        let seconds = |duration: Duration| duration.as_secs_f64();
        json!({
            "ids": ids,
            "text": text,
            "finish_reason": self.reason,
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "seed": sampling.seed,
            "time_to_first_token": self.timings.time_to_first_token.map(seconds),
            "prompt_tokens_per_second": self.prompt_speed(),
            "tokens_per_second": self.speed(),
        })
    }

    fn summary(&self, sampling: Sampling) -> String {
        let Usage { prompt_tokens, completion_tokens, .. } = self.usage;
        let rate = |speed: Option<f64>| speed.map_or_else(String::new, |speed| format!(" ({speed:.1}/s)"));
        let first = self.timings.time_to_first_token.map(|time| format!("first token after {time:.1?}; "));
        format!(
            "prompt: {prompt_tokens} tokens{}; {}answer: {completion_tokens} tokens{}, {}; seed {}",
            rate(self.prompt_speed()),
            first.unwrap_or_default(),
            rate(self.speed()),
            self.reason,
            sampling.seed
        )
    }

    fn prompt_speed(&self) -> Option<f64> {
        per_second(self.usage.prompt_tokens, self.timings.prefill)
    }

    /// Of the tokens after the first, which belongs to the prompt's time.
    fn speed(&self) -> Option<f64> {
        per_second(self.usage.completion_tokens.saturating_sub(1), self.timings.decode)
    }
}

fn per_second(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

fn save_logits(path: &Path, logits: &[u8], vocab_size: usize) -> Result<(), Box<dyn Error>> {
    let shape = [logits.len() / size_of::<f32>() / vocab_size, vocab_size];
    Ok(save_safetensors(path, &[("logits", Dtype::F32, &shape, logits)])?)
}
