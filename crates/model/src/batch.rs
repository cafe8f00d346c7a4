//! What one step computes: pieces of several sequences.

use std::ops::Range;

use crate::attention_form::AttentionForm;
use crate::config::Config;
use crate::kv_cache::{BLOCK_TOKENS, KvCache};

/// The next tokens of one sequence: a whole prompt, a part of one, or a single token. A step may hold several of a
/// sequence, if they follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Token ids; not empty.
    pub tokens: &'a [u32],
    /// Position of the first of them: how many tokens of the sequence are in the cache already.
    pub start: usize,
    /// The sequence's cache blocks in order, enough for `start + tokens.len()` tokens.
    pub block_table: &'a [u32],
    /// Which rows get logits.
    pub logits: LogitRows,
    /// In which form its rows attend.
    pub form: AttentionForm,
}

/// Rows of a chunk that the head is computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// None: more of the prompt follows.
    None,
    /// The last one.
    Last,
    /// All of them.
    All,
}

/// Why a batch cannot be computed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// A chunk without tokens.
    #[error("a chunk has no tokens")]
    Empty,
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    TokenId {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The sequence would be longer than the model was made for.
    #[error("{tokens} tokens are more than the context of {max_position_embeddings}")]
    TooLong {
        /// Tokens in all.
        tokens: usize,
        /// The config's limit.
        max_position_embeddings: usize,
    },
    /// The block table does not cover the tokens.
    #[error("{blocks} cache blocks hold {room} tokens, {tokens} are needed")]
    TooFewBlocks {
        /// Blocks in the table.
        blocks: usize,
        /// Tokens that they hold.
        room: usize,
        /// Tokens in all.
        tokens: usize,
    },
    /// A block that the cache does not have.
    #[error("cache block {block} does not exist, there are {blocks}")]
    Block {
        /// The block.
        block: u32,
        /// Blocks of the cache.
        blocks: usize,
    },
}

/// Checked chunks, their tokens one row each.
pub(crate) struct Batch<'a> {
    pub chunks: &'a [Chunk<'a>],
}

impl<'a> Batch<'a> {
    pub(crate) fn new(
        chunks: &'a [Chunk<'a>],
        config: &Config,
        cache: &KvCache,
    ) -> Result<Batch<'a>, BatchError> {
        chunks.iter().try_for_each(|chunk| chunk.check(config, cache.blocks()))?;
        Ok(Batch { chunks })
    }

    pub(crate) fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.tokens.len()).sum()
    }

    /// Chunk and position of every row.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (&'a Chunk<'a>, usize)> {
        self.chunks.iter().flat_map(|chunk| (0..chunk.tokens.len()).map(move |i| (chunk, chunk.start + i)))
    }

    /// Each chunk with the number of its first row.
    pub(crate) fn chunks_with_rows(&self) -> impl Iterator<Item = (usize, &'a Chunk<'a>)> {
        self.chunks.iter().scan(0, |row, chunk| {
            let first = *row;
            *row += chunk.tokens.len();
            Some((first, chunk))
        })
    }

    /// Chunks of the rows that get logits alone; their keys are those of the whole batch.
    pub(crate) fn chunks_with_logits(&self) -> Vec<Chunk<'a>> {
        let of = |chunk: &Chunk<'a>| {
            let rows = chunk.rows_with_logits();
            Chunk { start: chunk.start + rows.start, tokens: &chunk.tokens[rows], ..*chunk }
        };
        self.chunks.iter().map(of).filter(|chunk| !chunk.tokens.is_empty()).collect()
    }

    /// Numbers of the rows that get logits, ascending.
    pub(crate) fn logit_rows(&self) -> Vec<usize> {
        let of = |(first, chunk): (usize, &Chunk<'_>)| chunk.rows_with_logits().map(move |row| first + row);
        self.chunks_with_rows().flat_map(of).collect()
    }
}

impl Chunk<'_> {
    /// Which of its rows get logits.
    pub fn rows_with_logits(&self) -> Range<usize> {
        let len = self.tokens.len();
        match self.logits {
            LogitRows::None => len..len,
            LogitRows::Last => len.saturating_sub(1)..len,
            LogitRows::All => 0..len,
        }
    }

    fn check(&self, config: &Config, blocks: usize) -> Result<(), BatchError> {
        if self.tokens.is_empty() {
            return Err(BatchError::Empty);
        }
        if let Some(&id) = self.tokens.iter().find(|id| **id as usize >= config.vocab_size) {
            return Err(BatchError::TokenId { id, vocab_size: config.vocab_size });
        }
        let tokens = self.start.saturating_add(self.tokens.len());
        let max_position_embeddings = config.max_position_embeddings;
        if tokens > max_position_embeddings {
            return Err(BatchError::TooLong { tokens, max_position_embeddings });
        }
        let room = self.block_table.len() * BLOCK_TOKENS;
        if room < tokens {
            return Err(BatchError::TooFewBlocks { blocks: self.block_table.len(), room, tokens });
        }
        match self.block_table.iter().find(|block| **block as usize >= blocks) {
            Some(&block) => Err(BatchError::Block { block, blocks }),
            None => Ok(()),
        }
    }
}
