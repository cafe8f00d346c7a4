//! A model with room for the cases, and the clock around its steps.

use std::ops::Range;
use std::time::{Duration, Instant};

use k2_model::attention_form::decompressed_rows;
use k2_model::kv_cache::BLOCK_TOKENS;
use k2_model::{AttentionForm, BatchError, CacheDtype, Chunk, KimiK2, KvCache, LogitRows, Scratch};

use super::case::{Case, Phase};
use super::work::Work;

/// What is the same for all cases.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Prompt tokens of one step.
    pub(super) prefill_chunk: usize,
    /// Whether all rows of a prompt get logits.
    pub(super) prompt_logits: bool,
    pub(super) cache_dtype: CacheDtype,
}

/// Sequences of random tokens. The token of a sequence at a position is always the same, so what has been computed
/// once for one case is a context for the next.
pub(super) struct Session<'m> {
    model: &'m KimiK2,
    cache: KvCache,
    scratch: Scratch,
    settings: Settings,
    tokens: Vec<Vec<u32>>,
    block_tables: Vec<Vec<u32>>,
    /// Positions of each sequence that the cache holds.
    filled: Vec<usize>,
}

/// Bytes that the cache of the cases takes.
pub(super) fn cache_bytes(model: &KimiK2, cases: &[Case], settings: Settings) -> u64 {
    let blocks: u64 = lengths(cases).iter().map(|tokens| tokens.div_ceil(BLOCK_TOKENS) as u64).sum();
    let block_bytes = BLOCK_TOKENS * KvCache::bytes_per_token(&model.config, settings.cache_dtype);
    blocks.saturating_mul(block_bytes as u64)
}

/// Tokens of each sequence.
fn lengths(cases: &[Case]) -> Vec<usize> {
    let sequences = cases.iter().map(|case| case.batch).max().unwrap_or(0);
    let mut lengths = vec![0; sequences];
    for case in cases {
        for length in &mut lengths[..case.batch] {
            *length = (*length).max(case.depth + case.len);
        }
    }
    lengths
}

impl<'m> Session<'m> {
    /// Room for the largest of the cases; an error if one is longer than the model's context.
    pub(super) fn new(
        model: &'m KimiK2,
        cases: &[Case],
        settings: Settings,
    ) -> Result<Session<'m>, BatchError> {
        let max_position_embeddings = model.config.max_position_embeddings;
        let lengths = lengths(cases);
        if let Some(&tokens) = lengths.iter().find(|tokens| **tokens > max_position_embeddings) {
            return Err(BatchError::TooLong { tokens, max_position_embeddings });
        }
        let mut blocks = 0..u32::MAX;
        let block_tables: Vec<Vec<u32>> = lengths
            .iter()
            .map(|tokens| blocks.by_ref().take(tokens.div_ceil(BLOCK_TOKENS)).collect())
            .collect();
        let mut random = Random(1);
        let mut token = || (random.next() % model.config.vocab_size as u64) as u32;
        Ok(Session {
            model,
            cache: KvCache::new(&model.config, block_tables.iter().map(Vec::len).sum(), settings.cache_dtype),
            scratch: Scratch::default(),
            settings,
            tokens: lengths.iter().map(|tokens| (0..*tokens).map(|_| token()).collect()).collect(),
            block_tables,
            filled: vec![0; lengths.len()],
        })
    }

    /// Threads of the model.
    pub(super) fn threads(&self) -> usize {
        self.model.pool.threads()
    }

    /// Bytes and operations of a case.
    pub(super) fn work(&self, case: Case) -> Work {
        Work::of(self.model, case, self.settings)
    }

    /// Computes a case and says how long it took; the context before it is not counted.
    pub(super) fn run(&mut self, case: Case) -> Result<Duration, BatchError> {
        for sequence in 0..case.batch {
            if self.filled[sequence] < case.depth {
                self.prefill(sequence, self.filled[sequence], case.depth)?;
            }
        }
        let (start, end) = (Instant::now(), case.depth + case.len);
        match case.phase {
            Phase::Prefill => self.prefill(0, case.depth, end)?,
            Phase::Decode => (case.depth..end).try_for_each(|position| self.decode(case.batch, position))?,
        }
        Ok(start.elapsed())
    }

    /// The tokens from one position to another, the logits of the last or of all.
    fn prefill(&mut self, sequence: usize, first: usize, end: usize) -> Result<(), BatchError> {
        let boundary = decompressed_rows(&self.model.config, first..end).end;
        for start in (first..end).step_by(self.settings.prefill_chunk) {
            let next = end.min(start + self.settings.prefill_chunk);
            let chunk = |rows: Range<usize>, form| Chunk {
                tokens: &self.tokens[sequence][rows.clone()],
                start: rows.start,
                block_table: &self.block_tables[sequence],
                logits: match (self.settings.prompt_logits, rows.end == end) {
                    (true, _) => LogitRows::All,
                    (false, true) => LogitRows::Last,
                    (false, false) => LogitRows::None,
                },
                form,
            };
            let middle = boundary.clamp(start, next);
            let parts =
                [(start..middle, AttentionForm::Decompressed), (middle..next, AttentionForm::Absorbed)];
            let parts = parts.into_iter().filter(|(rows, _)| !rows.is_empty());
            let chunks: Vec<Chunk<'_>> = parts.map(|(rows, form)| chunk(rows, form)).collect();
            self.model.forward(&mut self.cache, &chunks, &mut self.scratch, None)?;
            self.filled[sequence] = self.filled[sequence].max(next);
        }
        Ok(())
    }

    /// One token of each of the first `batch` sequences.
    fn decode(&mut self, batch: usize, position: usize) -> Result<(), BatchError> {
        let chunk = |sequence: usize| Chunk {
            tokens: &self.tokens[sequence][position..=position],
            start: position,
            block_table: &self.block_tables[sequence],
            logits: LogitRows::Last,
            form: AttentionForm::Absorbed,
        };
        let chunks: Vec<Chunk<'_>> = (0..batch).map(chunk).collect();
        self.model.forward(&mut self.cache, &chunks, &mut self.scratch, None)?;
        for filled in &mut self.filled[..batch] {
            *filled = (*filled).max(position + 1);
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
