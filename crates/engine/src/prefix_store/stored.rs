//! One sequence's blocks in the store: which it waits for, and how many have been given to it.

use std::sync::mpsc::TryRecvError;

use k2_model::KvCache;
use k2_model::kv_cache::BLOCK_TOKENS;

use super::{Block, Key, Load, PrefixStore};

/// Of one sequence. Without a store it stays empty.
#[derive(Debug, Default)]
pub(crate) struct StoredBlocks {
    /// Keys of the sequence's first full blocks, as far as they were needed.
    keys: Vec<Key>,
    /// How many blocks, from the first on, the store has or has been given.
    num_stored_blocks: usize,
    load: Option<Load>,
}

impl StoredBlocks {
    /// The sequence's turn has come, and the cache in RAM knows its first `known` blocks: asks for the others. The
    /// block of the last token is computed in any case.
    pub(crate) fn begin(&mut self, store: Option<&PrefixStore>, rows: &[u32], known: usize) {
        let wanted = &rows[known * BLOCK_TOKENS..rows.len() - 1];
        if let Some(store) = store.filter(|_| wanted.len() >= BLOCK_TOKENS) {
            let parent = self.key_after(store, rows, known);
            self.load = Some(store.load(parent, known, wanted));
        }
    }

    /// Waits for nothing any more.
    pub(crate) fn leave(&mut self) {
        self.load = None;
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.load.is_some()
    }

    /// The next block that has been read; none if it has not come yet, or if no more will come.
    pub(crate) fn next_loaded(&mut self) -> Option<Block> {
        match self.load.as_ref()?.0.try_recv() {
            Ok(block) => Some(block),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.load = None;
                None
            }
        }
    }

    /// Gives the store those of the sequence's full blocks that it has not, in order, until it takes no more.
    pub(crate) fn store(&mut self, store: &PrefixStore, cache: &KvCache, rows: &[u32], blocks: &[u32]) {
        while let Some(&block) = blocks.get(self.num_stored_blocks) {
            let depth = self.num_stored_blocks;
            let key = self.key_after(store, rows, depth + 1);
            if !store.has(&key) && !store.write(key, depth, |bytes| cache.export(block, bytes)) {
                return;
            }
            self.num_stored_blocks += 1;
        }
    }

    /// The key of the beginning of `blocks` blocks.
    fn key_after(&mut self, store: &PrefixStore, rows: &[u32], blocks: usize) -> Key {
        for rows in &rows.as_chunks().0[self.keys.len()..blocks.max(self.keys.len())] {
            let parent = self.keys.last().copied().unwrap_or(store.root());
            self.keys.push(parent.child(rows));
        }
        if blocks == 0 { store.root() } else { self.keys[blocks - 1] }
    }
}
