//! The loop: one owner of model, cache and scratch, and the sequences that it computes.
//!
//! A step is schedule → forward → sample → emit, over all running sequences together (continuous batching,
//! Orca, OSDI 2022): one token of each that has begun its answer, and a piece of the prompts of others.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use k2_model::{Chunk, KimiK2, KvCache, LogitRows, Scratch};

use crate::blocks::BlockPool;
use crate::engine::Limits;
use crate::event::FinishReason;
use crate::sequence::Sequence;
use crate::stats::{Counters, add, set};

/// What the handles ask of the loop.
pub(crate) enum Command {
    /// Compute this.
    Submit(Box<Sequence>),
}

/// The owner.
pub(crate) struct Worker {
    model: KimiK2,
    cache: KvCache,
    scratch: Scratch,
    pool: BlockPool,
    /// In the order in which they came.
    running: Vec<Sequence>,
    /// Sequences that had to leave the cache; they come before new ones.
    paused: VecDeque<Sequence>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
}

/// A running sequence's part of a step.
#[derive(Clone, Copy)]
struct Part {
    /// Its place among the running.
    sequence: usize,
    /// How many tokens.
    count: usize,
}

impl Worker {
    pub(crate) fn new(model: KimiK2, limits: Arc<Limits>, counters: Arc<Counters>) -> Worker {
        let blocks = KvCache::blocks_for(limits.cache_tokens);
        let worker = Worker {
            cache: KvCache::new(&model.config, blocks),
            pool: BlockPool::new(blocks),
            scratch: Scratch::default(),
            running: Vec::new(),
            paused: VecDeque::new(),
            limits,
            counters,
            model,
        };
        worker.count();
        worker
    }

    /// Works until all handles are gone and all sequences done.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        while self.admit(inbox) {
            self.retire_cancelled();
            let parts = self.schedule();
            if !parts.is_empty() {
                self.step(&parts);
            }
            self.count();
        }
        set(&self.counters.stopped, 1);
    }

    /// Says how things stand after a step.
    fn count(&self) {
        let (used, idle, free) = self.pool.census();
        let Counters { running, paused, blocks_used, blocks_idle, blocks_free, .. } = &*self.counters;
        let gauges = [running, paused, blocks_used, blocks_idle, blocks_free];
        let values = [self.running.len(), self.paused.len(), used, idle, free];
        gauges.into_iter().zip(values).for_each(|(gauge, value)| set(gauge, value));
    }

    /// Lets sequences in while there are places; waits for one if none runs. False: none will ever come.
    fn admit(&mut self, inbox: &Receiver<Command>) -> bool {
        while self.running.len() < self.limits.max_sequences {
            let next = match self.paused.front() {
                Some(sequence) if !self.running.is_empty() && !self.fits(sequence) => return true,
                Some(_) => self.paused.pop_front(),
                None => None,
            };
            let next = match next {
                Some(sequence) => sequence,
                None if self.running.is_empty() => match inbox.recv() {
                    Ok(Command::Submit(sequence)) => self.came(*sequence),
                    Err(_) => return false,
                },
                None => match inbox.try_recv() {
                    Ok(Command::Submit(sequence)) => self.came(*sequence),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
                },
            };
            self.begin(next);
        }
        true
    }

    /// Whether a paused sequence would not have to leave again at once.
    fn fits(&self, sequence: &Sequence) -> bool {
        self.pool.room() > KvCache::blocks_for(sequence.pending())
    }

    /// It waits no more.
    fn came(&self, sequence: Sequence) -> Sequence {
        self.counters.waiting.fetch_sub(1, Relaxed);
        sequence
    }

    fn begin(&mut self, mut sequence: Sequence) {
        let first = sequence.begin(&mut self.pool);
        if first {
            add(&self.counters.prompt_tokens, sequence.usage().prompt_tokens);
            add(&self.counters.num_cached_tokens, sequence.usage().num_cached_tokens);
        }
        self.running.push(sequence);
    }

    fn retire_cancelled(&mut self) {
        for place in (0..self.running.len()).rev() {
            if self.running[place].is_cancelled() {
                self.finish(place, FinishReason::Cancelled);
            }
        }
    }

    /// What the next step computes. Older sequences come first; when the cache is full, the youngest pauses.
    fn schedule(&mut self) -> Vec<Part> {
        let (mut parts, mut prefill_left) = (Vec::new(), self.limits.prefill_chunk);
        let mut place = 0;
        while place < self.running.len() {
            let pending = self.running[place].pending();
            let count = if pending == 1 { 1 } else { pending.min(prefill_left) };
            if count > 0 && self.make_room(place, count) {
                parts.push(Part { sequence: place, count });
                prefill_left -= if pending == 1 { 0 } else { count };
            }
            place += 1;
        }
        parts
    }

    /// Finds blocks for a sequence, those of younger ones if need be. False: it is the youngest, and waits.
    fn make_room(&mut self, place: usize, count: usize) -> bool {
        loop {
            if self.running[place].reserve(count, &mut self.pool) {
                return true;
            }
            let Some(mut youngest) = self.running.pop() else { return false };
            youngest.leave(&mut self.pool);
            add(&self.counters.preemptions, 1);
            self.paused.push_front(youngest);
            if place == self.running.len() {
                return false;
            }
        }
    }

    /// Computes the parts together. If that fails, one by one, so that only the guilty one is lost.
    fn step(&mut self, parts: &[Part]) {
        let result = self.forward(parts);
        match (result, parts) {
            (Ok(ended), _) => ended.into_iter().rev().for_each(|(place, reason)| self.finish(place, reason)),
            (Err(why), [part]) => self.finish(part.sequence, FinishReason::Failed(why)),
            // From the last to the first: a place stays right while later ones go.
            (Err(_), _) => parts.iter().rev().for_each(|part| self.step(std::slice::from_ref(part))),
        }
    }

    /// One forward pass; the places of the sequences that it ended, ascending.
    fn forward(&mut self, parts: &[Part]) -> Result<Vec<(usize, FinishReason)>, String> {
        let began = Instant::now();
        let Worker { model, cache, scratch, running, .. } = self;
        let chunks: Vec<Chunk<'_>> =
            parts.iter().map(|part| running[part.sequence].chunk(part.count)).collect();
        let rows: Vec<usize> = chunks.iter().map(rows_of).collect();
        // A bug in a step must not take the engine with it.
        let computed = catch_unwind(AssertUnwindSafe(|| {
            model.forward(cache, &chunks, scratch, None).map(<[f32]>::to_vec)
        }));
        let logits = match computed {
            Ok(logits) => logits.map_err(|error| error.to_string())?,
            Err(panic) => {
                self.scratch = Scratch::default();
                return Err(message(panic.as_ref()));
            }
        };
        let mut left = &logits[..];
        let mut ended = Vec::new();
        for (part, rows) in parts.iter().zip(rows) {
            let (mine, others) = left.split_at(rows * self.limits.vocab_size);
            left = others;
            let sequence = &mut self.running[part.sequence];
            let before = sequence.usage().completion_tokens;
            let end = sequence.computed(part.count, mine, &self.limits, &mut self.pool);
            add(&self.counters.completion_tokens, sequence.usage().completion_tokens - before);
            sequence.took(began.elapsed());
            ended.extend(end.map(|reason| (part.sequence, reason)));
        }
        Ok(ended)
    }

    fn finish(&mut self, place: usize, reason: FinishReason) {
        let mut sequence = self.running.remove(place);
        sequence.leave(&mut self.pool);
        sequence.finish(reason);
    }
}

/// How many rows of logits a chunk gives.
fn rows_of(chunk: &Chunk<'_>) -> usize {
    match chunk.logits {
        LogitRows::None => 0,
        LogitRows::Last => 1,
        LogitRows::All => chunk.tokens.len(),
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("internal error in the forward pass: {said}")
}
