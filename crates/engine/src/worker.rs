//! The loop: one owner of model, cache and scratch, and the sequences that it computes.
//!
//! A step is schedule → forward → sample → emit, over all running sequences together (continuous batching,
//! Orca, OSDI 2022).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use k2_model::interleave::Interleaving;
use k2_model::{Chunk, KimiK2, KvCache, LogitRows, Scratch};

use crate::caught::caught;
use crate::engine::Limits;
use crate::event::FinishReason;
use crate::prefix_store::PrefixStore;
use crate::scheduler::{Part, Scheduler};
use crate::sequence::Sequence;
use crate::stats::{Counters, add, set};

/// How long the loop waits for the prefix store alone before it looks at its inbox again.
const LOADING: Duration = Duration::from_millis(1);

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
    scheduler: Scheduler,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
    /// None: the weights stay as they are, or are all rearranged.
    interleaving: Option<Interleaving>,
    /// Computed since weights were last rearranged.
    computed: Duration,
    /// What rearranging took the last time.
    rearranged: Duration,
}

/// The part of the time in which weights are rearranged while somebody waits is one in so many.
const SHARE: u32 = 10;

impl Worker {
    pub(crate) fn new(
        model: KimiK2,
        limits: Arc<Limits>,
        store: Option<PrefixStore>,
        counters: Arc<Counters>,
    ) -> Worker {
        let blocks = KvCache::blocks_for(limits.cache_tokens);
        let worker = Worker {
            cache: KvCache::new(&model.config, blocks, limits.cache_dtype),
            scheduler: Scheduler::new(Arc::clone(&limits), blocks, store, Arc::clone(&counters)),
            scratch: Scratch::default(),
            interleaving: limits.interleave.then(Interleaving::default),
            computed: Duration::ZERO,
            rearranged: Duration::ZERO,
            limits,
            counters,
            model,
        };
        worker.scheduler.count();
        worker
    }

    /// Works until all handles are gone and all sequences done.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        while self.listen(inbox) {
            let loading = self.scheduler.take_loaded(&mut self.cache);
            let parts = self.scheduler.schedule();
            if !parts.is_empty() {
                let began = Instant::now();
                self.step(&parts);
                self.computed += began.elapsed();
                if self.computed >= SHARE * self.rearranged {
                    self.interleave();
                }
            } else if loading {
                // The reader wakes this thread; a request that comes meanwhile waits for no longer.
                thread::park_timeout(LOADING);
            }
            self.scheduler.count();
        }
    }

    /// Takes what has come; waits for something if there is nothing to compute. False: nothing will ever come.
    fn listen(&mut self, inbox: &Receiver<Command>) -> bool {
        while self.scheduler.is_idle() && self.interleaving.is_some() {
            match inbox.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => self.interleave(),
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        if self.scheduler.is_idle() {
            match inbox.recv() {
                Ok(command) => self.take(command),
                Err(_) => return false,
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Rearranges some weights; no result changes.
    fn interleave(&mut self) {
        if let Some(at) = &mut self.interleaving {
            let began = Instant::now();
            match self.model.interleave_some(at) {
                Some(bytes) => add(&self.counters.interleaved_bytes, bytes as usize),
                None => self.interleaving = None,
            }
            (self.computed, self.rearranged) = (Duration::ZERO, began.elapsed());
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(sequence) => self.scheduler.add(*sequence),
        }
    }

    /// Computes the parts together. If that fails, one by one, so that only the guilty one is lost.
    fn step(&mut self, parts: &[Part]) {
        let result = self.forward(parts);
        match (result, parts) {
            (Ok(ended), _) => {
                ended.into_iter().rev().for_each(|(place, reason)| self.scheduler.finish(place, reason));
            }
            (Err(why), [part]) => self.scheduler.finish(part.sequence, FinishReason::Failed(why)),
            // From the last to the first: a place stays right while later ones go.
            (Err(_), _) => parts.iter().rev().for_each(|part| self.step(std::slice::from_ref(part))),
        }
    }

    /// One forward pass; the places of the sequences that it ended, ascending.
    fn forward(&mut self, parts: &[Part]) -> Result<Vec<(usize, FinishReason)>, String> {
        let began = Instant::now();
        let Worker { model, cache, scratch, scheduler, .. } = self;
        let chunks_of = |part: &Part| scheduler.running()[part.sequence].chunks(part.count);
        let chunks: Vec<Chunk<'_>> = parts.iter().flat_map(chunks_of).collect();
        let rows: Vec<usize> =
            parts.iter().map(|part| chunks_of(part).map(|chunk| rows_of(&chunk)).sum()).collect();
        // A bug in a step must not take the engine with it.
        let computed =
            caught("forward pass", || model.forward(cache, &chunks, scratch, None).map(<[f32]>::to_vec));
        let logits = match computed {
            Ok(logits) => logits.map_err(|error| error.to_string())?,
            Err(why) => {
                self.scratch = Scratch::default();
                return Err(why);
            }
        };
        let mut left = &logits[..];
        let mut ended = Vec::new();
        for (part, rows) in parts.iter().zip(rows) {
            let (mine, others) = left.split_at(rows * self.limits.vocab_size);
            left = others;
            let (sequence, pool) = self.scheduler.at(part.sequence);
            let before = sequence.usage().completion_tokens;
            let end = sequence.computed(part.count, mine, &self.limits, pool);
            add(&self.counters.completion_tokens, sequence.usage().completion_tokens - before);
            add(&self.counters.mask_nanos, sequence.take_mask_time().as_nanos() as usize);
            sequence.took(began.elapsed());
            self.scheduler.store(part.sequence, &self.cache);
            ended.extend(end.map(|reason| (part.sequence, reason)));
        }
        Ok(ended)
    }
}

impl Drop for Worker {
    /// However the loop ended: after a panic too nothing is taken any more.
    fn drop(&mut self) {
        set(&self.counters.stopped, 1);
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
