//! One request on its way: its tokens so far, and where its events go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k2_model::kv_cache::BLOCK_TOKENS;
use k2_model::{Chunk, KvCache, LogitRows};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use crate::blocks::{BlockPool, BlockTable, Key};
use crate::caught::caught;
use crate::constraint::Constraint;
use crate::draft::Drafter;
use crate::engine::Limits;
use crate::event::{Event, FinishReason, Timings, Usage};
use crate::logprobs::logprobs;
use crate::prefix_store::{PrefixStore, StoredBlocks, rows};
use crate::request::Request;
use crate::row::runs;
use crate::sampler::{Choice, Sampler};

/// Prompt and answer so far. Prefill and decode are the same thing: tokens that are not computed yet.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Prompt, then the answer.
    tokens: Vec<u32>,
    /// What the cache knows each of them by.
    rows: Vec<u32>,
    /// How many of them are in the cache.
    num_computed_tokens: usize,
    /// Where in the cache.
    block_table: BlockTable,
    /// Its full blocks in the prefix store.
    stored: StoredBlocks,
    /// Guesses of the next tokens.
    drafter: Drafter,
    /// The last token and the drafts behind it, while a step computes them.
    drafted: Vec<u32>,
    /// Prompt positions whose logits, or what was made of them, have been given out.
    num_prompt_rows: usize,
    request: Request,
    sampler: Sampler,
    /// How far the answer has come in the request's grammar.
    constraint: Option<Box<dyn Constraint>>,
    events: UnboundedSender<Event>,
    cancelled: Arc<AtomicBool>,
    submitted: Instant,
    /// Its place in the queue, until its turn comes.
    queued: Option<OwnedSemaphorePermit>,
    /// The how manyth it was whose turn came; none before.
    begun: Option<u64>,
    /// Whether it has left the cache: what it finds there later may be its own.
    has_left: bool,
    /// What its grammar took since somebody asked for it.
    mask_time: Duration,
    timings: Timings,
    usage: Usage,
}

impl Sequence {
    pub(crate) fn new(
        mut request: Request,
        rows: Vec<u32>,
        events: UnboundedSender<Event>,
        cancelled: Arc<AtomicBool>,
        queued: Option<OwnedSemaphorePermit>,
        speculate: usize,
    ) -> Sequence {
        let sampler = Sampler::new(&request);
        let tokens = std::mem::take(&mut request.prompt);
        Sequence {
            usage: Usage { prompt_tokens: tokens.len(), ..Usage::default() },
            tokens,
            rows,
            num_computed_tokens: 0,
            block_table: BlockTable::default(),
            stored: StoredBlocks::default(),
            drafter: Drafter::new(speculate),
            drafted: Vec::new(),
            num_prompt_rows: 0,
            sampler,
            constraint: request.grammar.as_ref().map(|grammar| grammar.start()),
            request,
            events,
            cancelled,
            submitted: Instant::now(),
            queued,
            begun: None,
            has_left: false,
            mask_time: Duration::ZERO,
            timings: Timings::default(),
        }
    }

    /// Its turn has come: takes what the cache knows of it. The last token is computed in any case, for its
    /// logits. True if this is the first time; then `number` is its number from now on.
    pub(crate) fn begin(&mut self, number: u64, pool: &mut BlockPool, store: Option<&PrefixStore>) -> bool {
        if !self.wants_prompt_rows() {
            self.block_table = pool.find(self.before_last());
            self.num_computed_tokens = self.block_table.blocks.len() * BLOCK_TOKENS;
            self.stored.begin(store, &self.rows, self.block_table.blocks.len());
        }
        let first = self.begun.is_none();
        if first {
            self.begun = Some(number);
            self.queued = None;
            self.timings.queued = self.submitted.elapsed();
            self.usage.num_cached_tokens = self.num_computed_tokens;
        }
        self.tell_prefill();
        first
    }

    /// Tokens so far.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether its turn has come before.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Who comes first, smaller before larger: by priority, then as their turns came.
    pub(crate) fn rank(&self) -> (i32, u64) {
        (self.request.priority, self.begun.unwrap_or(u64::MAX))
    }

    pub(crate) fn priority(&self) -> i32 {
        self.request.priority
    }

    /// Who asks, group and all; those without a name are one.
    pub(crate) fn user(&self) -> &str {
        self.request.user.as_deref().unwrap_or_default()
    }

    /// The user's group: the name up to the first `/`.
    pub(crate) fn group(&self) -> &str {
        self.user().split_once('/').map_or(self.user(), |(group, _)| group)
    }

    /// The time of its grammar's masks since the last call.
    pub(crate) fn take_mask_time(&mut self) -> Duration {
        std::mem::take(&mut self.mask_time)
    }

    /// Leaves the cache; what it computed may be found there again.
    pub(crate) fn leave(&mut self, pool: &mut BlockPool) {
        pool.release(std::mem::take(&mut self.block_table));
        self.stored.leave();
        self.has_left = true;
        self.drafted.clear();
        self.num_computed_tokens = 0;
    }

    /// Whether blocks of it are being read from the prefix store.
    pub(crate) fn is_loading(&self) -> bool {
        self.stored.is_loading()
    }

    /// Takes what has been read; without room for it, it is computed like anything else.
    pub(crate) fn take_loaded(&mut self, pool: &mut BlockPool, cache: &mut KvCache) {
        let before = self.num_computed_tokens;
        while let Some(block) = self.stored.next_loaded() {
            let place = self.num_computed_tokens / BLOCK_TOKENS;
            let fits = pool.extend(&mut self.block_table, place + 1);
            if !fits || !cache.import(self.block_table.blocks[place], rows(&block)) {
                self.stored.leave();
                break;
            }
            self.num_computed_tokens += BLOCK_TOKENS;
            pool.publish(&mut self.block_table, &self.rows[..self.num_computed_tokens]);
            if self.usage.completion_tokens == 0 && !self.has_left {
                self.usage.num_cached_tokens += BLOCK_TOKENS;
            }
        }
        if self.num_computed_tokens > before {
            self.tell_prefill();
        }
    }

    /// What its next block of the prompt will be known by: others may be about to compute the same one. None where
    /// every position is wanted, or where a block is begun.
    pub(crate) fn next_key(&self) -> Option<Key> {
        let shares = !self.wants_prompt_rows() && !self.is_loading();
        self.block_table.next_key(self.before_last()).filter(|_| shares)
    }

    /// Takes what others have computed of its prompt since its turn came.
    pub(crate) fn take_shared(&mut self, pool: &mut BlockPool) {
        if self.next_key().is_none() {
            return;
        }
        let before = self.num_computed_tokens;
        let last = self.tokens.len() - 1;
        pool.follow(&mut self.block_table, &self.rows[..last]);
        self.num_computed_tokens = self.block_table.blocks.len() * BLOCK_TOKENS;
        let taken = self.num_computed_tokens - before;
        if taken > 0 && self.usage.completion_tokens == 0 && !self.has_left {
            self.usage.num_cached_tokens += taken;
            self.tell_prefill();
        }
    }

    /// All rows but the last, which is computed in any case, for its logits.
    fn before_last(&self) -> &[u32] {
        &self.rows[..self.rows.len() - 1]
    }

    /// Gives full blocks that are new to the prefix store, as many as it takes now.
    pub(crate) fn store(&mut self, store: &PrefixStore, cache: &KvCache) {
        let full = self.num_computed_tokens / BLOCK_TOKENS;
        self.stored.store(store, cache, &self.rows, &self.block_table.blocks[..full]);
    }

    /// Whether nobody wants the rest.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.events.is_closed()
    }

    /// Tokens that are not computed yet.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.num_computed_tokens
    }

    /// Blocks that others use and that it would share if it began now.
    pub(crate) fn num_shared_blocks(&self, pool: &BlockPool) -> usize {
        if self.wants_prompt_rows() { 0 } else { pool.in_use(self.before_last()) }
    }

    /// Blocks that the next `count` tokens need beside those that it has.
    pub(crate) fn num_missing_blocks(&self, count: usize) -> usize {
        KvCache::blocks_for(self.num_computed_tokens + count).saturating_sub(self.block_table.blocks.len())
    }

    /// Drafts tokens behind the last one, for the next step; how many.
    pub(crate) fn draft(&mut self, room: usize, context_tokens: usize) -> usize {
        let left = self.request.max_tokens.saturating_sub(self.usage.completion_tokens + 1);
        let room = room.min(left).min(context_tokens - self.tokens.len());
        self.drafted.clear();
        let drafts = self.drafter.draft(&self.tokens, room);
        if let (Some(last), false) = (self.tokens.last(), drafts.is_empty()) {
            self.drafted.push(*last);
            self.drafted.extend(&drafts);
        }
        drafts.len()
    }

    /// Finds room for the next `count` tokens; false if there is none.
    pub(crate) fn reserve(&mut self, count: usize, pool: &mut BlockPool) -> bool {
        pool.extend(&mut self.block_table, KvCache::blocks_for(self.num_computed_tokens + count))
    }

    /// The next `count` tokens, for a step; those behind the last one are drafts. A chunk for each run of rows in one
    /// form.
    pub(crate) fn chunks(&self, count: usize) -> impl Iterator<Item = Chunk<'_>> {
        let (start, end) = (self.num_computed_tokens, self.num_computed_tokens + count);
        let (tokens, rows) = match count > self.pending() {
            true => (&self.drafted[..count], &self.drafted[..count]),
            false => (&self.tokens[start..end], &self.rows[start..end]),
        };
        let logits = self.logit_rows(end);
        runs(rows).map(move |(run, form)| Chunk {
            tokens: &tokens[run.clone()],
            start: start + run.start,
            block_table: &self.block_table.blocks,
            logits: if logits == LogitRows::Last && run.end < count { LogitRows::None } else { logits },
            form,
        })
    }

    /// Which rows of a step that ends at position `end` are needed.
    fn logit_rows(&self, end: usize) -> LogitRows {
        let of_prompt = self.wants_prompt_rows() && self.num_computed_tokens < self.usage.prompt_tokens;
        if of_prompt || end > self.tokens.len() {
            LogitRows::All
        } else if end == self.tokens.len() && self.request.max_tokens > 0 {
            LogitRows::Last
        } else {
            LogitRows::None
        }
    }

    /// Takes the results of a step over `count` tokens, `[rows, vocab_size]`, and says whether it was the
    /// last.
    pub(crate) fn computed(
        &mut self,
        count: usize,
        logits: &[f32],
        limits: &Limits,
        pool: &mut BlockPool,
    ) -> Option<FinishReason> {
        let drafts = count.saturating_sub(self.pending());
        self.give_prompt_rows(count - drafts, logits, limits.vocab_size);
        self.num_computed_tokens += count - drafts;
        let end = if self.num_computed_tokens < self.tokens.len() {
            self.tell_prefill();
            None
        } else if self.request.max_tokens == 0 {
            Some(FinishReason::Length)
        } else {
            let first = logits.len().saturating_sub((1 + drafts) * limits.vocab_size);
            self.choose_all(drafts, &logits[first..], limits)
        };
        pool.publish(&mut self.block_table, &self.rows[..self.num_computed_tokens]);
        end
    }

    /// Adds the time of a step. The one that ends in the first token still belongs to the prompt.
    pub(crate) fn took(&mut self, duration: Duration) {
        let prefill = self.usage.completion_tokens <= 1;
        *(if prefill { &mut self.timings.prefill } else { &mut self.timings.decode }) += duration;
    }

    /// Sends the last event.
    pub(crate) fn finish(mut self, reason: FinishReason) {
        let (usage, timings) = (self.usage, self.timings);
        self.emit(Event::Finished { reason, usage, timings });
    }

    /// How far the prompt is, unless the answer has begun.
    fn tell_prefill(&mut self) {
        if self.usage.completion_tokens == 0 {
            let (num_computed_tokens, usage) = (self.num_computed_tokens, self.usage);
            self.emit(Event::Prefill { num_computed_tokens, usage });
        }
    }

    /// Rows of prompt positions that have not been given out: after a pause the same ones come again.
    fn give_prompt_rows(&mut self, count: usize, logits: &[f32], vocab_size: usize) {
        let (first, start) = (self.num_computed_tokens, self.num_prompt_rows);
        let end = self.usage.prompt_tokens.min(first + count);
        if !self.wants_prompt_rows() || start >= end {
            return;
        }
        self.num_prompt_rows = end;
        let rows = &logits[(start - first) * vocab_size..(end - first) * vocab_size];
        if let Some(count) = self.request.prompt_logprobs {
            // A row is about the token that follows it.
            let followers = self.tokens[start + 1..self.usage.prompt_tokens.min(end + 1)].iter();
            let tokens = followers.zip(rows.chunks_exact(vocab_size));
            let tokens = tokens.map(|(id, row)| (*id, logprobs(row, *id, count))).collect();
            self.emit(Event::PromptLogprobs { tokens });
        }
        if self.request.prompt_logits {
            self.emit(Event::PromptLogits { start, rows: rows.to_vec() });
        }
    }

    /// Whether the logits of every prompt position are needed.
    pub(crate) fn wants_prompt_rows(&self) -> bool {
        self.request.prompt_logits || self.request.prompt_logprobs.is_some()
    }

    /// Appends the token that follows the last one, and those behind it as long as the drafts are what was
    /// chosen; `rows` are those of the last token and of the drafts.
    fn choose_all(&mut self, drafts: usize, rows: &[f32], limits: &Limits) -> Option<FinishReason> {
        let (mut rows, mut right) = (rows.chunks_exact(limits.vocab_size), 0);
        let end = loop {
            let end = self.choose(rows.next()?, limits.context_tokens);
            if end.is_some() || right == drafts || self.tokens.last() != self.drafted.get(right + 1) {
                break end;
            }
            // The draft's own row is in the cache, and is right.
            right += 1;
            self.num_computed_tokens += 1;
        };
        if drafts > 0 {
            self.drafter.verified(drafts, right);
            self.usage.num_accepted_tokens += right;
        }
        end
    }

    /// Appends the token that follows a row.
    fn choose(&mut self, row: &[f32], context_tokens: usize) -> Option<FinishReason> {
        // A grammar is a large piece of somebody else's code. After a panic the sequence ends: neither it nor the
        // sampler is asked again, and blocks are none of their business.
        let sampled = caught("choice of a token", || self.sample(row));
        let Choice { id, logprobs } = match sampled.and_then(|choice| choice) {
            Ok(choice) => choice,
            Err(why) => return Some(FinishReason::Failed(why)),
        };
        self.usage.completion_tokens += 1;
        self.timings.time_to_first_token.get_or_insert_with(|| self.submitted.elapsed());
        if self.request.stop_ids.contains(&id) {
            return Some(FinishReason::Stop(id));
        }
        self.tokens.push(id);
        self.rows.push(id);
        self.emit(Event::Token { id, logprobs });
        let full =
            self.usage.completion_tokens == self.request.max_tokens || self.tokens.len() == context_tokens;
        full.then_some(FinishReason::Length)
    }

    /// The token that follows; the grammar hears of it unless it ends the answer.
    fn sample(&mut self, row: &[f32]) -> Result<Choice, String> {
        let allowed = match &mut self.constraint {
            Some(constraint) => {
                let began = Instant::now();
                let allowed = constraint.allowed();
                self.mask_time += began.elapsed();
                allowed?
            }
            None => None,
        };
        let choice = self.sampler.next(row, allowed).map_err(|error| error.to_string())?;
        match &mut self.constraint {
            Some(constraint) if !self.request.stop_ids.contains(&choice.id) => {
                constraint.accept(choice.id)?
            }
            _ => {}
        }
        Ok(choice)
    }

    fn emit(&mut self, event: Event) {
        // Nobody listens any more: the next step finds the sequence cancelled.
        let _ = self.events.send(event);
    }
}
