//! A model with a cache and sequences in it: what the tests drive.

use k2_model::kv_cache::BLOCK_TOKENS;
use k2_model::{AttentionForm, CacheDtype, Chunk, KimiK2, KvCache, LogitRows, Scratch, Trace};

/// Several sequences in one cache. Their blocks are dealt out in turns, so that none lies in order.
pub(crate) struct Sequences<'m> {
    model: &'m KimiK2,
    pub(crate) cache: KvCache,
    scratch: Scratch,
    pub(crate) block_tables: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    /// The form of the rows of the next steps; absorbed unless set otherwise.
    pub(crate) form: AttentionForm,
    /// Which rows of the next steps' pieces get logits; all unless set otherwise.
    pub(crate) logits: LogitRows,
}

impl<'m> Sequences<'m> {
    /// `count` sequences of up to `tokens` tokens each.
    pub(crate) fn new(model: &'m KimiK2, count: usize, tokens: usize) -> Sequences<'m> {
        Sequences::with(model, count, tokens, CacheDtype::F32)
    }

    /// The same, with latents in some format.
    pub(crate) fn with(model: &'m KimiK2, count: usize, tokens: usize, dtype: CacheDtype) -> Sequences<'m> {
        let each = tokens.div_ceil(BLOCK_TOKENS);
        let last = (count * each) as u32 - 1;
        let table = |sequence| (0..each).map(|block| last - (block * count + sequence) as u32).collect();
        Sequences {
            model,
            cache: KvCache::new(&model.config, count * each, dtype),
            scratch: Scratch::default(),
            block_tables: (0..count).map(table).collect(),
            lengths: vec![0; count],
            form: AttentionForm::default(),
            logits: LogitRows::All,
        }
    }

    /// Says that a sequence's first tokens are in the cache.
    pub(crate) fn begin_at(&mut self, sequence: usize, tokens: usize) {
        self.lengths[sequence] = tokens;
    }

    /// One step: the next tokens of some sequences. The rows' logits, in order.
    pub(crate) fn step(&mut self, pieces: &[(usize, &[u32])], trace: Option<&mut Trace>) -> Vec<f32> {
        let chunks: Vec<Chunk<'_>> = pieces
            .iter()
            .map(|&(sequence, tokens)| Chunk {
                tokens,
                start: self.lengths[sequence],
                block_table: &self.block_tables[sequence],
                logits: self.logits,
                form: self.form,
            })
            .collect();
        let logits = self.model.forward(&mut self.cache, &chunks, &mut self.scratch, trace).unwrap().to_vec();
        for (sequence, tokens) in pieces {
            self.lengths[*sequence] += tokens.len();
        }
        logits
    }

    /// Greedy continuation of a sequence whose last row's logits are given: tokens, and the logits each
    /// was picked from.
    pub(crate) fn greedy(
        &mut self,
        sequence: usize,
        mut logits: Vec<f32>,
        count: usize,
    ) -> (Vec<u32>, Vec<f32>) {
        let (mut tokens, mut rows) = (Vec::new(), Vec::new());
        while tokens.len() < count {
            let token = argmax(&logits);
            tokens.push(token);
            rows.extend_from_slice(&logits);
            if tokens.len() < count {
                logits = self.step(&[(sequence, &[token])], None);
            }
        }
        (tokens, rows)
    }
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> u32 {
    let best = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, best) as u32
}
