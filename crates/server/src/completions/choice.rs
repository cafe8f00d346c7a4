//! One answer among those of a request, whole or as chunks.

use std::sync::Arc;

use axum::response::sse::Event;
use k2_chat::{Delta, FinishReason};
use k2_engine::Usage;
use serde_json::{Value, json};

use super::token_list::TokenList;
use super::total;
use crate::answer::{End, TokenLogprobs};
use crate::body::Body;
use crate::error::ApiError;
use crate::options::Options;
use crate::served::Served;
use crate::stream::{Head, Wire, data, done, prefill_progress, usage};

/// What is shown beside the answer itself.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    /// The prompt before it.
    pub(super) echo: bool,
    /// Log-probabilities, and so many of the likeliest at each place.
    pub(super) logprobs: Option<usize>,
    include_usage: bool,
    include_progress: bool,
}

/// The state of an answer.
pub(super) struct Choice {
    head: Arc<Head>,
    index: usize,
    shown: Shown,
    /// The prompt's text.
    prompt: String,
    /// The prompt's first token, which no probability comes for.
    first: Vec<u8>,
    list: TokenList,
}

impl Shown {
    pub(super) fn take(body: &mut Body, options: &Options, most: usize) -> Result<Shown, ApiError> {
        let logprobs = body.optional::<i64>("logprobs")?.map(|count| match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(ApiError::field("logprobs", format!("`logprobs` is {count}, expected 0 to {most}"))),
        });
        Ok(Shown {
            echo: body.optional("echo")?.unwrap_or(false),
            logprobs: logprobs.transpose()?,
            include_usage: options.stream.is_some_and(|stream| stream.include_usage),
            include_progress: options.stream.is_some_and(|stream| stream.include_progress),
        })
    }
}

impl Choice {
    pub(super) fn new(
        head: Arc<Head>,
        index: usize,
        shown: Shown,
        prompt: &[u32],
        served: &Served,
    ) -> Choice {
        let bytes = |id: &u32| served.tokenizer.token_bytes(*id).unwrap_or_default();
        let (mut text, mut first) = (String::new(), Vec::new());
        if shown.echo {
            text = String::from_utf8_lossy(&prompt.iter().flat_map(bytes).copied().collect::<Vec<_>>())
                .into_owned();
            first = prompt.first().map(bytes).unwrap_or_default().to_vec();
        }
        Choice { head, index, shown, prompt: text, first, list: TokenList::default() }
    }

    /// The whole answer.
    pub(super) fn whole(&mut self, text: &str, end: &End) -> Value {
        if self.shown.echo {
            self.list.first(&self.first);
        }
        end.prompt_logprobs.iter().chain(&end.logprobs).for_each(|token| drop(self.list.push(token)));
        self.json(&format!("{}{text}", self.prompt), Some(end.finish_reason))
    }

    fn json(&mut self, text: &str, finish_reason: Option<FinishReason>) -> Value {
        let logprobs = if self.shown.logprobs.is_some() { self.list.take() } else { Value::Null };
        json!({ "index": self.index, "text": text, "finish_reason": finish_reason, "logprobs": logprobs })
    }

    fn chunk(&mut self, text: &str, finish_reason: Option<FinishReason>) -> Event {
        let choice = self.json(text, finish_reason);
        data(&self.with_usage(json!([choice]), Value::Null))
    }

    fn with_usage(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = self.head.json("text_completion", choices);
        if self.shown.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

impl Wire for Choice {
    /// The prompt, unless it comes with its probabilities as they are computed.
    fn first(&mut self) -> Vec<Event> {
        if !self.shown.echo {
            return Vec::new();
        }
        let first = self.first.clone();
        let first = self.list.first(&first);
        let text = if self.shown.logprobs.is_some() { first } else { std::mem::take(&mut self.prompt) };
        vec![self.chunk(&text, None)]
    }

    /// Of each answer, since not all have the same prompt.
    fn prefill(&mut self, num_computed_tokens: usize, usage: Usage) -> Vec<Event> {
        if !self.shown.include_progress {
            return Vec::new();
        }
        let mut chunk = self.with_usage(json!([]), Value::Null);
        chunk["prefill_progress"] = prefill_progress(num_computed_tokens, usage);
        chunk["prefill_progress"]["index"] = json!(self.index);
        vec![data(&chunk)]
    }

    fn prompt(&mut self, tokens: &[TokenLogprobs]) -> Vec<Event> {
        let text: String = tokens.iter().map(|token| self.list.push(token)).collect();
        vec![self.chunk(&text, None)]
    }

    fn logprobs(&mut self, tokens: &[TokenLogprobs]) -> Vec<Event> {
        tokens.iter().for_each(|token| drop(self.list.push(token)));
        Vec::new() // they go with the text
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        match delta {
            Delta::Content(text) => vec![self.chunk(&text, None)],
            // The reader of raw text gives content and nothing else.
            Delta::Reasoning(_) | Delta::Call { .. } | Delta::Arguments { .. } => Vec::new(),
        }
    }

    fn last(&mut self, end: &End) -> Vec<Event> {
        vec![self.chunk("", Some(end.finish_reason))]
    }

    fn closing(&mut self, ends: &[End]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.shown.include_usage {
            events.push(data(&self.with_usage(json!([]), usage(&total(ends)))));
        }
        events.push(done());
        events
    }
}
