//! The cache's blocks: who has them, and which of them hold a beginning that somebody may want again.
//!
//! Full blocks form a tree: a block is known by the node before it and by its own rows (`row`), compared one by
//! one, so a hit is never a guess. Blocks that nobody uses stay in the tree until their room is needed, the
//! longest unused first (the automatic prefix caching of vLLM, arXiv 2309.06180, and SGLang, arXiv 2312.07104).
//! A block found in the tree holds the bits that computing it anew would give, because a row's bits depend on
//! the rows before it alone.

use std::collections::{BTreeMap, HashMap};

use k2_model::kv_cache::BLOCK_TOKENS;

/// A place in the tree of prefixes.
pub(crate) type Node = u64;

/// The empty prefix.
const ROOT: Node = 0;

/// The blocks of one cache.
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks that hold nothing.
    free: Vec<u32>,
    /// Blocks of the tree that nobody uses, by the time since when.
    idle: BTreeMap<u64, u32>,
    tree: HashMap<Key, (Node, u32)>,
    /// Last node given out.
    last_node: Node,
    clock: u64,
}

#[derive(Default)]
struct Block {
    users: usize,
    /// Where it is in the tree.
    key: Option<Key>,
    /// When it became idle.
    since: u64,
}

/// What a block is known by: the node before it, and its rows.
pub(crate) type Key = (Node, [u32; BLOCK_TOKENS]);

/// The blocks of one sequence, in order.
#[derive(Debug, Default)]
pub(crate) struct BlockTable {
    pub(crate) blocks: Vec<u32>,
    /// How many of them the tree knows.
    known: usize,
    /// The node of the last of those.
    node: Node,
}

impl BlockTable {
    /// What the next block will be known by, if there are none but known ones; `tokens` from the beginning on.
    pub(crate) fn next_key(&self, tokens: &[u32]) -> Option<Key> {
        let next = tokens.as_chunks().0.get(self.known).filter(|_| self.known == self.blocks.len())?;
        Some((self.node, *next))
    }
}

impl BlockPool {
    pub(crate) fn new(count: usize) -> BlockPool {
        BlockPool {
            blocks: (0..count).map(|_| Block::default()).collect(),
            free: (0..count as u32).rev().collect(),
            idle: BTreeMap::new(),
            tree: HashMap::new(),
            last_node: ROOT,
            clock: 0,
        }
    }

    /// Blocks in use, blocks kept for later, and blocks that hold nothing.
    pub(crate) fn census(&self) -> (usize, usize, usize) {
        (self.blocks.len() - self.room(), self.idle.len(), self.free.len())
    }

    /// Blocks that can be had.
    pub(crate) fn room(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// The longest known beginning of `tokens`, shared with whoever uses it too.
    pub(crate) fn find(&mut self, tokens: &[u32]) -> BlockTable {
        let mut table = BlockTable::default();
        self.follow(&mut table, tokens);
        table
    }

    /// How many blocks of the longest known beginning of `tokens` are in use.
    pub(crate) fn in_use(&self, tokens: &[u32]) -> usize {
        let mut node = ROOT;
        let known = tokens.as_chunks::<BLOCK_TOKENS>().0.iter().map_while(|tokens| {
            let &(next, block) = self.tree.get(&(node, *tokens))?;
            node = next;
            Some(block)
        });
        known.filter(|block| self.blocks[*block as usize].users > 0).count()
    }

    /// Lengthens a table whose blocks are all known by those that follow in the tree; `tokens` from its beginning on.
    pub(crate) fn follow(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        for tokens in &tokens.as_chunks::<BLOCK_TOKENS>().0[table.known..] {
            let Some(&(node, block)) = self.tree.get(&(table.node, *tokens)) else { break };
            let found = &mut self.blocks[block as usize];
            if found.users == 0 {
                self.idle.remove(&found.since);
            }
            found.users += 1;
            table.blocks.push(block);
            (table.known, table.node) = (table.known + 1, node);
        }
    }

    /// Lengthens a table to `blocks` blocks; false if there are not enough.
    pub(crate) fn extend(&mut self, table: &mut BlockTable, blocks: usize) -> bool {
        while table.blocks.len() < blocks {
            let Some(block) = self.free.pop().or_else(|| self.evict()) else { return false };
            self.blocks[block as usize].users = 1;
            table.blocks.push(block);
        }
        true
    }

    /// Puts the table's full blocks into the tree; `computed` are the sequence's tokens in the cache.
    pub(crate) fn publish(&mut self, table: &mut BlockTable, computed: &[u32]) {
        for tokens in &computed.as_chunks::<BLOCK_TOKENS>().0[table.known..] {
            let (key, block) = ((table.node, *tokens), table.blocks[table.known]);
            // Somebody else may have computed the same: the first stays, the second is private.
            let node = self.tree.get(&key).map(|(node, _)| *node).unwrap_or_else(|| {
                self.last_node += 1;
                self.tree.insert(key, (self.last_node, block));
                self.blocks[block as usize].key = Some(key);
                self.last_node
            });
            (table.known, table.node) = (table.known + 1, node);
        }
    }

    /// Gives a sequence's blocks back. Later blocks are of use to fewer: they go first when room is needed.
    pub(crate) fn release(&mut self, table: BlockTable) {
        for number in table.blocks.into_iter().rev() {
            self.clock += 1;
            let block = &mut self.blocks[number as usize];
            block.users -= 1;
            match (block.users, &block.key) {
                (0, Some(_)) => {
                    block.since = self.clock;
                    self.idle.insert(self.clock, number);
                }
                (0, None) => self.free.push(number),
                _ => {}
            }
        }
    }

    /// Forgets the block that has been idle for longest.
    fn evict(&mut self) -> Option<u32> {
        let (_, block) = self.idle.pop_first()?;
        if let Some(key) = self.blocks[block as usize].key.take() {
            self.tree.remove(&key);
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the pool must never do, whatever is asked of it: give a block to two writers, lose one, or find
    /// a block whose tokens are others.
    fn check(pool: &BlockPool, tables: &[(Vec<u32>, BlockTable)], written: &[Vec<u32>]) {
        let mut users = vec![0; pool.blocks.len()];
        for (tokens, table) in tables {
            for (place, &block) in table.blocks.iter().enumerate() {
                users[block as usize] += 1;
                let wanted = tokens.chunks(BLOCK_TOKENS).nth(place).unwrap();
                assert_eq!(written[block as usize], wanted, "block {block} holds other tokens");
            }
        }
        assert_eq!(users, pool.blocks.iter().map(|block| block.users).collect::<Vec<_>>());
        let unused = users.iter().filter(|users| **users == 0).count();
        assert_eq!(unused, pool.room(), "no block is lost");
    }

    proptest! {
        /// Sequences over an alphabet of two, so that beginnings are shared, in a pool that is too small.
        #[test]
        fn blocks_are_shared_and_never_mixed_up(
            requests in prop::collection::vec((prop::collection::vec(0u32..2, 1..5), any::<bool>()), 1..60),
        ) {
            let mut pool = BlockPool::new(9);
            let mut written = vec![Vec::new(); 9];
            let mut tables: Vec<(Vec<u32>, BlockTable)> = Vec::new();
            for (letters, ends) in requests {
                let tokens: Vec<u32> = letters.iter().flat_map(|letter| [*letter; BLOCK_TOKENS]).collect();
                let mut table = pool.find(&tokens);
                let found = table.blocks.len();
                if pool.extend(&mut table, letters.len()) {
                    for (place, &block) in table.blocks.iter().enumerate().skip(found) {
                        written[block as usize] = tokens[place * BLOCK_TOKENS..][..BLOCK_TOKENS].to_vec();
                    }
                    pool.publish(&mut table, &tokens);
                    tables.push((tokens, table));
                } else {
                    pool.release(table);
                    if let Some((_, oldest)) = (!tables.is_empty()).then(|| tables.remove(0)) {
                        pool.release(oldest);
                    }
                }
                if ends && let Some((_, table)) = tables.pop() {
                    pool.release(table);
                }
                check(&pool, &tables, &written);
            }
        }
    }

    #[test]
    fn what_was_used_last_is_forgotten_last() {
        let mut pool = BlockPool::new(3);
        let tokens = |letter: u32, blocks: usize| vec![letter; blocks * BLOCK_TOKENS];
        for letter in [1, 2] {
            let mut table = BlockTable::default();
            assert!(pool.extend(&mut table, 1));
            pool.publish(&mut table, &tokens(letter, 1));
            pool.release(table);
        }
        let again = pool.find(&tokens(1, 1));
        pool.release(again);
        let mut large = BlockTable::default();
        assert!(pool.extend(&mut large, 2), "one free block, one idle");
        let (mut first, second) = (pool.find(&tokens(1, 1)), pool.find(&tokens(2, 1)));
        assert_eq!((first.blocks.len(), second.blocks.len()), (1, 0));
        assert!(!pool.extend(&mut first, 2), "all blocks are in use");
    }
}
