//! The loop: one owner of model and cache, and the sequences that it computes.
//!
//! A step is schedule → forward → sample → emit, over all running sequences together (continuous batching,
//! Orca, OSDI 2022). What comes after schedule is [`crate::step`]'s.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use k2_model::repack::Repacking;
use k2_model::{KimiK2, KvCache};

use crate::engine::Limits;
use crate::prefix_store::PrefixStore;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::stats::{Counters, add, set};
use crate::step::Steps;

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
    steps: Steps,
    counters: Arc<Counters>,
    /// None: the weights stay as they are, or are all rearranged.
    repacking: Option<Repacking>,
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
        let scheduler = Scheduler::new(Arc::clone(&limits), blocks, store, Arc::clone(&counters));
        scheduler.count();
        Worker {
            cache: KvCache::new(&model.config, blocks, limits.cache_dtype),
            repacking: limits.repack.then(Repacking::default),
            computed: Duration::ZERO,
            rearranged: Duration::ZERO,
            steps: Steps::new(scheduler, limits, Arc::clone(&counters)),
            counters,
            model,
        }
    }

    /// Works until all handles are gone and all sequences done.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        self.model.pool.keep_caller();
        while self.listen(inbox) {
            let loading = self.steps.scheduler.take_loaded(&mut self.cache);
            let parts = self.steps.scheduler.schedule();
            if !parts.is_empty() {
                let began = Instant::now();
                self.steps.step(&self.model, &mut self.cache, &parts);
                self.computed += began.elapsed();
                if self.computed >= SHARE * self.rearranged {
                    self.repack();
                }
            } else if loading {
                // The reader wakes this thread; a request that comes meanwhile waits for no longer.
                thread::park_timeout(LOADING);
            }
            self.steps.scheduler.count();
        }
    }

    /// Takes what has come; waits for something if there is nothing to compute. False: nothing will ever come.
    fn listen(&mut self, inbox: &Receiver<Command>) -> bool {
        while self.steps.scheduler.is_idle() && self.repacking.is_some() {
            match inbox.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => self.repack(),
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        if self.steps.scheduler.is_idle() {
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
    fn repack(&mut self) {
        if let Some(at) = &mut self.repacking {
            let began = Instant::now();
            match self.model.repack_some(at) {
                Some(bytes) => add(&self.counters.repacked_bytes, bytes as usize),
                None => self.repacking = None,
            }
            (self.computed, self.rearranged) = (Duration::ZERO, began.elapsed());
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(sequence) => self.steps.scheduler.add(*sequence),
        }
    }
}

impl Drop for Worker {
    /// However the loop ended: after a panic too nothing is taken any more.
    fn drop(&mut self) {
        set(&self.counters.stopped, 1);
    }
}
