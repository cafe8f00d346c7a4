//! A step: forward → sample → emit.
//!
//! Answers and a piece of a prompt are one batch, which reads each weight once. Far into a long prompt that takes seconds,
//! and nobody should wait so long for the next token: then the prompt's piece goes through the layers alone, and between two of them
//! answers have steps of their own, as often as they have waited long enough. Which way a step goes changes no bit,
//! because a row's bits do not depend on what is in its batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k2_model::{AttentionForm, Chunk, KimiK2, KvCache, LogitRows, Scratch};

use crate::caught::caught;
use crate::engine::Limits;
use crate::event::FinishReason;
use crate::scheduler::{Part, Scheduler};
use crate::stats::{Counters, add};

/// Between a prompt's layers answers compute for no more than one part of the time in so many.
const SHARE: u32 = 4;

/// The sequences, and what their steps need.
pub(crate) struct Steps {
    pub(crate) scheduler: Scheduler,
    /// Of steps with a prompt, which are large.
    prompts: Scratch,
    /// Of steps that hold answers alone.
    answers: Scratch,
    pace: Pace,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
}

/// What steps took when they last came.
#[derive(Default)]
struct Pace {
    answers: Duration,
    /// Tokens of prompts, and their time.
    prompts: (usize, Duration),
}

/// Rows of logits, and what it took to compute them.
struct Computed {
    logits: Vec<f32>,
    took: Duration,
}

impl Steps {
    pub(crate) fn new(scheduler: Scheduler, limits: Arc<Limits>, counters: Arc<Counters>) -> Steps {
        Steps {
            scheduler,
            prompts: Scratch::default(),
            answers: Scratch::default(),
            pace: Pace::default(),
            limits,
            counters,
        }
    }

    /// Computes the parts.
    pub(crate) fn step(&mut self, model: &KimiK2, cache: &mut KvCache, parts: &[Part]) {
        let prompts: Vec<Part> = parts.iter().filter(|part| self.is_of_prompt(part)).copied().collect();
        let is_mixed = !prompts.is_empty() && prompts.len() < parts.len();
        if is_mixed && self.pace.is_long(tokens(&prompts), self.patience()) {
            self.in_layers(model, cache, &prompts);
        } else {
            self.together(model, cache, parts);
        }
    }

    fn is_of_prompt(&self, part: &Part) -> bool {
        self.scheduler.running()[part.sequence].pending() > 1
    }

    /// Computes the parts in one batch. If that fails, one by one, so that only the guilty one is lost.
    fn together(&mut self, model: &KimiK2, cache: &mut KvCache, parts: &[Part]) {
        let has_prompt = parts.iter().any(|part| self.is_of_prompt(part));
        match (self.forward(model, cache, parts, has_prompt), parts) {
            (Ok(computed), _) => {
                self.pace.note(parts, has_prompt, computed.took);
                self.give(cache, parts, &computed);
            }
            (Err(why), [part]) => self.scheduler.finish(part.sequence, FinishReason::Failed(why)),
            // From the last to the first: a place stays right while later ones go.
            (Err(_), _) => {
                let single = |part| self.together(model, cache, std::slice::from_ref(part));
                parts.iter().rev().for_each(single);
            }
        }
    }

    fn forward(
        &mut self,
        model: &KimiK2,
        cache: &mut KvCache,
        parts: &[Part],
        has_prompt: bool,
    ) -> Result<Computed, String> {
        let began = Instant::now();
        let running = self.scheduler.running();
        let chunks: Vec<Chunk<'_>> =
            parts.iter().flat_map(|part| running[part.sequence].chunks(part.count)).collect();
        let scratch = if has_prompt { &mut self.prompts } else { &mut self.answers };
        let logits = logits(model, cache, &chunks, scratch, &mut |_| ())?;
        Ok(Computed { logits, took: began.elapsed() })
    }

    /// Computes parts of prompts; answers have their steps between the layers. If it fails, without that.
    fn in_layers(&mut self, model: &KimiK2, cache: &mut KvCache, prompts: &[Part]) {
        let ranks: Vec<_> =
            prompts.iter().map(|part| self.scheduler.running()[part.sequence].rank()).collect();
        let computed = self.forward_in_layers(model, cache, prompts);
        // Answers may have ended meanwhile; prompts have not.
        let place = |rank| self.scheduler.running().iter().position(|running| running.rank() == rank);
        let moved = prompts
            .iter()
            .zip(ranks)
            .filter_map(|(part, rank)| Some(Part { sequence: place(rank)?, ..*part }));
        let prompts: Vec<Part> = moved.collect();
        match computed {
            Ok(computed) => {
                self.pace.note(&prompts, true, computed.took);
                self.give(cache, &prompts, &computed);
            }
            Err(_) => self.together(model, cache, &prompts),
        }
    }

    fn forward_in_layers(
        &mut self,
        model: &KimiK2,
        cache: &mut KvCache,
        prompts: &[Part],
    ) -> Result<Computed, String> {
        let running = self.scheduler.running();
        let owned: Vec<OwnedChunk> = prompts
            .iter()
            .flat_map(|part| running[part.sequence].chunks(part.count))
            .map(|chunk| OwnedChunk::of(&chunk))
            .collect();
        let chunks: Vec<Chunk<'_>> = owned.iter().map(OwnedChunk::chunk).collect();
        let mut scratch = std::mem::take(&mut self.prompts);
        let (began, mut waiting_since, mut answering) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut between = |cache: &mut KvCache| {
            if waiting_since.elapsed() >= self.patience() {
                let began = Instant::now();
                self.answer(model, cache);
                answering += began.elapsed();
                waiting_since = Instant::now();
            }
        };
        let logits = logits(model, cache, &chunks, &mut scratch, &mut between);
        self.prompts = scratch;
        Ok(Computed { logits: logits?, took: began.elapsed().saturating_sub(answering) })
    }

    /// A step of the answers that have room for it: nobody leaves the cache while a prompt is computed in it.
    fn answer(&mut self, model: &KimiK2, cache: &mut KvCache) {
        let parts = self.scheduler.answers();
        if !parts.is_empty() {
            add(&self.counters.steps_between_layers, 1);
            self.together(model, cache, &parts);
        }
    }

    /// How long answers wait before they interrupt a prompt.
    fn patience(&self) -> Duration {
        match self.limits.patience {
            Duration::ZERO => Duration::ZERO,
            patience => patience.max(SHARE * self.pace.answers),
        }
    }

    /// Gives each sequence its rows; those that end leave.
    fn give(&mut self, cache: &KvCache, parts: &[Part], computed: &Computed) {
        let mut left = &computed.logits[..];
        let mut ended = Vec::new();
        for part in parts {
            let chunks = self.scheduler.running()[part.sequence].chunks(part.count);
            let rows: usize = chunks.map(|chunk| chunk.rows_with_logits().len()).sum();
            let (mine, others) = left.split_at(rows * self.limits.vocab_size);
            left = others;
            let (sequence, pool) = self.scheduler.at(part.sequence);
            let before = sequence.usage().completion_tokens;
            let end = sequence.computed(part.count, mine, &self.limits, pool);
            add(&self.counters.completion_tokens, sequence.usage().completion_tokens - before);
            add(&self.counters.mask_nanos, sequence.take_mask_time().as_nanos() as usize);
            sequence.took(computed.took);
            self.scheduler.store(part.sequence, cache);
            ended.extend(end.map(|reason| (part.sequence, reason)));
        }
        ended.into_iter().rev().for_each(|(place, reason)| self.scheduler.finish(place, reason));
    }
}

/// The forward pass; a bug in it must not take the engine with it.
fn logits(
    model: &KimiK2,
    cache: &mut KvCache,
    chunks: &[Chunk<'_>],
    scratch: &mut Scratch,
    between: &mut dyn FnMut(&mut KvCache),
) -> Result<Vec<f32>, String> {
    let computed = caught("forward pass", || {
        model.forward_in_layers(cache, chunks, scratch, between).map(<[f32]>::to_vec)
    });
    if computed.is_err() {
        *scratch = Scratch::default();
    }
    computed?.map_err(|error| error.to_string())
}

impl Pace {
    /// Whether so many tokens of prompts will take much longer than answers should wait. Of what is not known, yes: answers
    /// interrupt it only if it does.
    fn is_long(&self, tokens: usize, patience: Duration) -> bool {
        let (before, took) = self.prompts;
        before == 0 || took.as_secs_f64() * tokens as f64 / before as f64 >= 2.0 * patience.as_secs_f64()
    }

    fn note(&mut self, parts: &[Part], has_prompt: bool, took: Duration) {
        match has_prompt {
            true => self.prompts = (tokens(parts), took),
            false => self.answers = took,
        }
    }
}

fn tokens(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.count).sum()
}

/// A chunk for as long as it takes, whatever becomes of the sequences meanwhile.
struct OwnedChunk {
    tokens: Vec<u32>,
    start: usize,
    block_table: Vec<u32>,
    logits: LogitRows,
    form: AttentionForm,
}

impl OwnedChunk {
    fn of(chunk: &Chunk<'_>) -> OwnedChunk {
        let Chunk { tokens, start, block_table, logits, form } = *chunk;
        OwnedChunk { tokens: tokens.to_vec(), start, block_table: block_table.to_vec(), logits, form }
    }

    fn chunk(&self) -> Chunk<'_> {
        let OwnedChunk { tokens, start, block_table, logits, form } = self;
        Chunk { tokens, start: *start, block_table, logits: *logits, form: *form }
    }
}
