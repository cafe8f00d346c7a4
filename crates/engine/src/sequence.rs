//! One request on its way: its tokens so far, and where its events go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k2_model::LogitRows;
use tokio::sync::mpsc::UnboundedSender;

use crate::engine::Limits;
use crate::event::{Event, FinishReason, Timings, Usage};
use crate::request::Request;
use crate::sampler::Sampler;

/// Prompt and answer so far. Prefill and decode are the same thing: tokens that are not computed yet.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Prompt, then the answer.
    tokens: Vec<u32>,
    /// How many of them are in the cache.
    num_computed_tokens: usize,
    request: Request,
    sampler: Sampler,
    events: UnboundedSender<Event>,
    cancelled: Arc<AtomicBool>,
    submitted: Instant,
    timings: Timings,
    usage: Usage,
}

impl Sequence {
    pub(crate) fn new(
        mut request: Request,
        events: UnboundedSender<Event>,
        cancelled: Arc<AtomicBool>,
    ) -> Sequence {
        let tokens = std::mem::take(&mut request.prompt);
        Sequence {
            usage: Usage { prompt_tokens: tokens.len(), ..Usage::default() },
            tokens,
            num_computed_tokens: 0,
            sampler: Sampler::new(request.sampling, Arc::clone(&request.masked_ids)),
            request,
            events,
            cancelled,
            submitted: Instant::now(),
            timings: Timings::default(),
        }
    }

    /// Its turn has come.
    pub(crate) fn begin(&mut self) {
        self.timings.queued = self.submitted.elapsed();
    }

    /// Whether nobody wants the rest.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.events.is_closed()
    }

    /// The next tokens to compute, at most `most`, with the position of the first.
    pub(crate) fn pending(&self, most: usize) -> (usize, &[u32]) {
        let start = self.num_computed_tokens;
        let end = self.tokens.len().min(start.saturating_add(most));
        (start, &self.tokens[start..end])
    }

    /// Which rows of a step that ends at position `end` are needed.
    pub(crate) fn logit_rows(&self, end: usize) -> LogitRows {
        if self.request.prompt_logits && self.num_computed_tokens < self.usage.prompt_tokens {
            LogitRows::All
        } else if end == self.tokens.len() && self.request.max_tokens > 0 {
            LogitRows::Last
        } else {
            LogitRows::None
        }
    }

    /// Takes the results of a step over `count` tokens, `[rows, vocab_size]`, and says whether it was the
    /// last.
    pub(crate) fn computed(&mut self, count: usize, logits: &[f32], limits: &Limits) -> Option<FinishReason> {
        let start = self.num_computed_tokens;
        self.num_computed_tokens += count;
        if self.request.prompt_logits && start < self.usage.prompt_tokens {
            self.emit(Event::PromptLogits { start, rows: logits.to_vec() });
        }
        if self.num_computed_tokens < self.tokens.len() {
            return None;
        }
        if self.request.max_tokens == 0 {
            return Some(FinishReason::Length);
        }
        self.choose(&logits[logits.len().saturating_sub(limits.vocab_size)..], limits.context_tokens)
    }

    /// Adds the time of a step. The one that ends in the first token still belongs to the prompt.
    pub(crate) fn took(&mut self, duration: Duration) {
        let prefill = self.usage.completion_tokens <= 1;
        *(if prefill { &mut self.timings.prefill } else { &mut self.timings.decode }) += duration;
    }

    /// Sends the last event.
    pub(crate) fn finish(mut self, reason: FinishReason) {
        let (usage, timings) = (self.usage, self.timings);
        self.emit(Event::Finished { reason, usage, timings });
    }

    /// Appends the token that follows the last row.
    fn choose(&mut self, row: &[f32], context_tokens: usize) -> Option<FinishReason> {
        let id = match self.sampler.next(row) {
            Ok(id) => id,
            Err(error) => return Some(FinishReason::Failed(error.to_string())),
        };
        self.usage.completion_tokens += 1;
        self.timings.time_to_first_token.get_or_insert_with(|| self.submitted.elapsed());
        if self.request.stop_ids.contains(&id) {
            return Some(FinishReason::Stop(id));
        }
        self.tokens.push(id);
        self.emit(Event::Token { id });
        let full =
            self.usage.completion_tokens == self.request.max_tokens || self.tokens.len() == context_tokens;
        full.then_some(FinishReason::Length)
    }

    fn emit(&mut self, event: Event) {
        // Nobody listens any more: the next step finds the sequence cancelled.
        let _ = self.events.send(event);
    }
}
