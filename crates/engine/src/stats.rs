//! What the engine is doing, for whoever watches it: numbers only, read without stopping anything.
//!
//! The worker alone writes them; `waiting` is counted by the queue's places, and the prefix store's by its own threads. Each number is true by itself; two of them
//! may be one step apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A snapshot ([`crate::Engine::stats`]). Numbers of tokens and preemptions, and times, grow from the start
/// of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests whose turn has not come.
    pub waiting: u64,
    /// Requests that may wait.
    pub max_waiting: u64,
    /// Sequences that are computed together.
    pub running: u64,
    /// Sequences that had to leave the cache and come back.
    pub paused: u64,
    /// Cache blocks in use.
    pub blocks_used: u64,
    /// Cache blocks that hold a beginning that nobody uses now.
    pub blocks_idle: u64,
    /// Cache blocks that hold nothing.
    pub blocks_free: u64,
    /// Tokens of prompts whose turn has come.
    pub prompt_tokens: u64,
    /// How many of them were in the cache.
    pub num_cached_tokens: u64,
    /// Tokens chosen.
    pub completion_tokens: u64,
    /// Sequences that left the cache before their end, so that others could go on.
    pub preemptions: u64,
    /// Steps of answers between two layers of a prompt.
    pub steps_between_layers: u64,
    /// Nanoseconds in which grammars said which ids may come; the engine waits for them.
    pub mask_nanos: u64,
    /// Bytes of weights rearranged since the engine's start.
    pub repacked_bytes: u64,
    /// The prefix store's, if there is one.
    pub prefix_store: Option<PrefixStoreStats>,
    /// Whether the engine takes nothing any more.
    pub stopped: bool,
}

/// What the prefix store has done since the engine's start, in blocks, and how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixStoreStats {
    /// Looked for, because the cache in memory did not have them.
    pub wanted: u64,
    /// Files read, right or wrong.
    pub read: u64,
    /// How many of them were right, and given to whoever wanted them.
    pub found: u64,
    /// Written to the disk.
    pub written: u64,
    /// Files that were no block, or not the one of their name, or broken: removed.
    pub removed: u64,
    /// Files that went because their room was needed.
    pub evicted: u64,
    /// Writes that the disk refused.
    pub failed: u64,
    /// Bytes of the files that are believed to be there.
    pub bytes: u64,
    /// Bytes that they may take.
    pub budget_bytes: u64,
}

/// The numbers themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) running: AtomicU64,
    pub(crate) paused: AtomicU64,
    pub(crate) blocks_used: AtomicU64,
    pub(crate) blocks_idle: AtomicU64,
    pub(crate) blocks_free: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) num_cached_tokens: AtomicU64,
    pub(crate) completion_tokens: AtomicU64,
    pub(crate) preemptions: AtomicU64,
    pub(crate) steps_between_layers: AtomicU64,
    pub(crate) mask_nanos: AtomicU64,
    pub(crate) repacked_bytes: AtomicU64,
    pub(crate) stopped: AtomicU64,
}

impl Counters {
    /// With the numbers that others count.
    pub(crate) fn stats(
        &self,
        waiting: usize,
        max_waiting: usize,
        prefix_store: Option<PrefixStoreStats>,
    ) -> Stats {
        let read = |number: &AtomicU64| number.load(Relaxed);
        Stats {
            waiting: waiting as u64,
            max_waiting: max_waiting as u64,
            running: read(&self.running),
            paused: read(&self.paused),
            blocks_used: read(&self.blocks_used),
            blocks_idle: read(&self.blocks_idle),
            blocks_free: read(&self.blocks_free),
            prompt_tokens: read(&self.prompt_tokens),
            num_cached_tokens: read(&self.num_cached_tokens),
            completion_tokens: read(&self.completion_tokens),
            preemptions: read(&self.preemptions),
            steps_between_layers: read(&self.steps_between_layers),
            mask_nanos: read(&self.mask_nanos),
            repacked_bytes: read(&self.repacked_bytes),
            prefix_store,
            stopped: read(&self.stopped) > 0,
        }
    }
}

/// Raises a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Relaxed);
}

/// Sets a gauge.
pub(crate) fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(value as u64, Relaxed);
}
