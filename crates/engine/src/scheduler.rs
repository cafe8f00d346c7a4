//! Which sequences the next step computes, and how much of each.
//!
//! A step holds one token of every sequence that has begun its answer, and up to `prefill_chunk` tokens of
//! prompts beside them, so that running streams keep moving while a long prompt is read (chunked prefill of
//! Sarathi-Serve, arXiv 2403.02310); a prompt without company takes longer steps. Prompts of several groups and
//! users take turns (`turns`); a beginning that several have is computed once. When the cache is full, the last by
//! rank leaves it and is computed again later (recomputation, vLLM, arXiv 2309.06180); that changes no answer,
//! because a row's bits depend on the rows before it alone.

use std::collections::HashSet;
use std::sync::Arc;

use k2_model::KvCache;
use k2_model::kv_cache::BLOCK_TOKENS;

use crate::blocks::BlockPool;
use crate::engine::Limits;
use crate::event::FinishReason;
use crate::prefix_store::PrefixStore;
use crate::sequence::Sequence;
use crate::stats::{Counters, add, set};
use crate::turns::Turns;

/// So many times the usual tokens of a prompt are computed in a step that has no other sequence.
const ALONE: usize = 4;

/// The sequences of an engine and the blocks of its cache.
pub(crate) struct Scheduler {
    /// By rank: priority, then the order in which their turns came. The first never has to leave.
    running: Vec<Sequence>,
    /// New ones, and those that had to leave; in the order in which they came.
    waiting: Vec<Sequence>,
    pub(crate) pool: BlockPool,
    store: Option<PrefixStore>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
    /// Sequences whose turn has come.
    begun: u64,
    steps: u64,
    turns: Turns,
}

/// A running sequence's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its place among the running.
    pub(crate) sequence: usize,
    /// How many tokens.
    pub(crate) count: usize,
}

impl Scheduler {
    /// A cache of `blocks` blocks, at least as many as the longest sequence takes.
    pub(crate) fn new(
        limits: Arc<Limits>,
        blocks: usize,
        store: Option<PrefixStore>,
        counters: Arc<Counters>,
    ) -> Scheduler {
        Scheduler {
            running: Vec::new(),
            waiting: Vec::new(),
            pool: BlockPool::new(blocks),
            store,
            limits,
            counters,
            begun: 0,
            steps: 0,
            turns: Turns::default(),
        }
    }

    /// Takes a sequence in; its turn comes later.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push(sequence);
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// What the next step computes, by rank. Cancelled sequences end first.
    pub(crate) fn schedule(&mut self) -> Vec<Part> {
        self.retire_cancelled();
        self.admit();
        self.share();
        self.steps += 1;
        loop {
            let running = self.running.len();
            let parts = self.parts();
            // If those whose turn it was had to leave, the turn is the others'.
            if !parts.is_empty() || self.running.len() == running {
                return parts;
            }
        }
    }

    fn parts(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (place, count) in self.counts().into_iter().enumerate() {
            // Those behind may have left meanwhile.
            if place < self.running.len() && count > 0 && self.make_room(place, count) {
                parts.push(Part { sequence: place, count });
            }
        }
        parts
    }

    /// A token of each answer that has a block for it without anybody leaving the cache.
    pub(crate) fn answers(&mut self) -> Vec<Part> {
        let Scheduler { running, pool, .. } = self;
        let mut has_room = |sequence: &mut Sequence| {
            sequence.pending() == 1
                && !sequence.is_loading()
                && !sequence.is_cancelled()
                && sequence.reserve(1, pool)
        };
        let places = running
            .iter_mut()
            .enumerate()
            .filter_map(|(place, sequence)| has_room(sequence).then_some(Part { sequence: place, count: 1 }));
        places.collect()
    }

    /// Says how things stand.
    pub(crate) fn count(&self) {
        let (used, idle, free) = self.pool.census();
        let paused = self.waiting.iter().filter(|sequence| sequence.has_begun()).count();
        let Counters { running, paused: left, blocks_used, blocks_idle, blocks_free, .. } = &*self.counters;
        let gauges = [running, left, blocks_used, blocks_idle, blocks_free];
        let values = [self.running.len(), paused, used, idle, free];
        gauges.into_iter().zip(values).for_each(|(gauge, value)| set(gauge, value));
    }

    /// A running sequence, and the blocks.
    pub(crate) fn at(&mut self, place: usize) -> (&mut Sequence, &mut BlockPool) {
        (&mut self.running[place], &mut self.pool)
    }

    /// The running sequences.
    pub(crate) fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Takes what the prefix store has read. Whether more will come.
    pub(crate) fn take_loaded(&mut self, cache: &mut KvCache) -> bool {
        let pool = &mut self.pool;
        let loading = self.running.iter_mut().filter(|sequence| sequence.is_loading());
        loading.fold(false, |waiting, sequence| {
            let before = sequence.usage().num_cached_tokens;
            sequence.take_loaded(pool, cache);
            add(&self.counters.num_cached_tokens, sequence.usage().num_cached_tokens - before);
            waiting | sequence.is_loading()
        })
    }

    /// Gives a running sequence's new blocks to the prefix store.
    pub(crate) fn store(&mut self, place: usize, cache: &KvCache) {
        if let Some(store) = &self.store {
            self.running[place].store(store, cache);
        }
    }

    /// Ends a running sequence; those behind it move up.
    pub(crate) fn finish(&mut self, place: usize, reason: FinishReason) {
        let mut sequence = self.running.remove(place);
        sequence.leave(&mut self.pool);
        sequence.finish(reason);
    }

    fn retire_cancelled(&mut self) {
        for place in (0..self.running.len()).rev() {
            if self.running[place].is_cancelled() {
                self.finish(place, FinishReason::Cancelled);
            }
        }
        let cancelled = self.waiting.extract_if(.., |sequence| sequence.is_cancelled());
        cancelled.for_each(|sequence| sequence.finish(FinishReason::Cancelled));
    }

    /// Begins sequences while there are places and room.
    fn admit(&mut self) {
        while self.running.len() < self.limits.max_sequences {
            let Some(next) = self.next_waiting() else { return };
            if !self.may_begin(&self.waiting[next]) {
                return;
            }
            let mut sequence = self.waiting.remove(next);
            self.turns.enter(&sequence, self.steps);
            if sequence.begin(self.begun, &mut self.pool, self.store.as_ref()) {
                self.begun += 1;
                add(&self.counters.prompt_tokens, sequence.usage().prompt_tokens);
                add(&self.counters.num_cached_tokens, sequence.usage().num_cached_tokens);
            }
            let place = self.running.partition_point(|running| running.rank() < sequence.rank());
            self.running.insert(place, sequence);
        }
    }

    /// Gives prompts that are being read what others have computed of them meanwhile.
    fn share(&mut self) {
        let Scheduler { running, pool, counters, .. } = self;
        for sequence in running.iter_mut().filter(|sequence| sequence.pending() > 1) {
            let counted = sequence.usage().num_cached_tokens;
            sequence.take_shared(pool);
            add(&counters.num_cached_tokens, sequence.usage().num_cached_tokens - counted);
        }
    }

    /// By priority; of equal ones those that had to leave, then those of groups with the fewest running, then
    /// those of users with the fewest, then those that came first.
    fn next_waiting(&self) -> Option<usize> {
        let key = |sequence: &Sequence| {
            let count = |name: fn(&Sequence) -> &str| {
                self.running.iter().filter(|running| name(running) == name(sequence)).count()
            };
            match sequence.has_begun() {
                true => (sequence.rank(), 0, 0),
                false => (sequence.rank(), count(Sequence::group), count(Sequence::user)),
            }
        };
        (0..self.waiting.len()).min_by_key(|place| key(&self.waiting[*place]))
    }

    /// Whether a waiting sequence would not have to leave again at once, or comes before one that would.
    fn may_begin(&self, sequence: &Sequence) -> bool {
        let Some(last) = self.running.last() else { return true };
        let (needed, room) = (KvCache::blocks_for(sequence.pending()), self.pool.room());
        // What others use of its beginning takes no room; looking for it takes time.
        let fits = room > needed || room + sequence.num_shared_blocks(&self.pool) > needed;
        fits || sequence.priority() < last.priority()
    }

    /// How many tokens of each running sequence the step should hold.
    fn counts(&mut self) -> Vec<usize> {
        let mut counts = vec![0; self.running.len()];
        let mut prompts = Vec::new();
        for (place, sequence) in self.running.iter().enumerate() {
            match sequence.pending() {
                _ if sequence.is_loading() => {}
                1 => counts[place] = 1,
                _ => prompts.push((sequence.priority(), self.turns.last_of(sequence), place)),
            }
        }
        prompts.sort_unstable();
        let (mut left, mut computing) = (self.prompt_budget(), HashSet::new());
        for (.., place) in prompts {
            let sequence = &self.running[place];
            // The same beginning is computed once; the others take it in the next step.
            if sequence.next_key().is_some_and(|key| !computing.insert(key)) {
                continue;
            }
            counts[place] = sequence.pending().min(left);
            left -= counts[place];
            if counts[place] > 0 {
                self.turns.take(sequence, self.steps);
            }
        }
        self.draft(&mut counts, left);
        counts
    }

    /// Prompt tokens of the step. Where nobody else is kept waiting, a longer step is the cheaper one: each expert is read
    /// for more tokens, each latent decompressed for more rows. Not where all rows have logits: those are large.
    fn prompt_budget(&self) -> usize {
        let is_alone = self.running.len() == 1 && !self.running[0].wants_prompt_rows();
        self.limits.prefill_chunk.saturating_mul(if is_alone { ALONE } else { 1 })
    }

    /// Drafts take what prompts leave, `left` tokens, and blocks that nothing else in the step needs: nobody has to
    /// leave the cache for them.
    fn draft(&mut self, counts: &mut [usize], mut left: usize) {
        let counted = self.running.iter().zip(&*counts);
        let missing: usize = counted.map(|(sequence, count)| sequence.num_missing_blocks(*count)).sum();
        let mut spare = self.pool.room().saturating_sub(missing);
        for (sequence, count) in self.running.iter_mut().zip(counts) {
            if *count == 1 && sequence.pending() == 1 {
                let missing = sequence.num_missing_blocks(1);
                let drafts = sequence.draft(left.min(spare * BLOCK_TOKENS), self.limits.context_tokens);
                *count += drafts;
                left -= drafts;
                spare -= sequence.num_missing_blocks(*count) - missing;
            }
        }
    }

    /// Finds blocks for a sequence, those of the last by rank if need be. False: it is the last, and waits.
    fn make_room(&mut self, place: usize, count: usize) -> bool {
        loop {
            if self.running[place].reserve(count, &mut self.pool) {
                return true;
            }
            let Some(mut last) = self.running.pop() else { return false };
            last.leave(&mut self.pool);
            add(&self.counters.preemptions, 1);
            self.waiting.push(last);
            if place == self.running.len() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use k2_model::CacheDtype;
    use proptest::prelude::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::event::Event;
    use crate::request::Request;

    const VOCAB: usize = 2;

    fn limits(prefill_chunk: usize, max_sequences: usize, blocks: usize) -> Arc<Limits> {
        let cache_tokens = blocks * BLOCK_TOKENS;
        Arc::new(Limits {
            vocab_size: VOCAB,
            context_tokens: cache_tokens,
            cache_tokens,
            prefill_chunk,
            patience: Duration::ZERO,
            max_sequences,
            max_waiting: 64,
            cache_dtype: CacheDtype::F32,
            repack: false,
            speculate: 0,
        })
    }

    /// A request of a user: no other of another length begins like it.
    fn request(user: &str, priority: i32, prompt_tokens: usize, max_tokens: usize) -> Request {
        let mut prompt = vec![user.as_bytes()[0].into(); prompt_tokens];
        prompt[0] = prompt_tokens as u32;
        Request { prompt, max_tokens, priority, user: Some(user.into()), ..Request::default() }
    }

    fn add(scheduler: &mut Scheduler, request: Request) -> UnboundedReceiver<Event> {
        add_drafting(scheduler, request, 0)
    }

    fn add_drafting(
        scheduler: &mut Scheduler,
        request: Request,
        speculate: usize,
    ) -> UnboundedReceiver<Event> {
        let (sender, receiver) = unbounded_channel();
        let (rows, cancelled) = (request.prompt.clone(), Arc::new(AtomicBool::new(false)));
        scheduler.add(Sequence::new(request, rows, sender, cancelled, None, speculate));
        receiver
    }

    /// One step without a model; (user, tokens) of its parts.
    fn step(scheduler: &mut Scheduler) -> Vec<(String, usize)> {
        let parts = scheduler.schedule();
        let named = |part: &Part| (scheduler.running()[part.sequence].user().to_owned(), part.count);
        let named = parts.iter().map(named).collect();
        for part in parts.iter().rev() {
            let limits = Arc::clone(&scheduler.limits);
            let (sequence, pool) = scheduler.at(part.sequence);
            if let Some(reason) = sequence.computed(part.count, &vec![0.0; part.count * VOCAB], &limits, pool)
            {
                scheduler.finish(part.sequence, reason);
            }
        }
        named
    }

    /// The parts of the first steps.
    fn check(max_sequences: usize, blocks: usize, requests: &[Request], expected: &[&[(&str, usize)]]) {
        let mut scheduler = Scheduler::new(limits(64, max_sequences, blocks), blocks, None, Arc::default());
        let _receivers: Vec<_> = requests.iter().map(|r| add(&mut scheduler, r.clone())).collect();
        for (number, expected) in expected.iter().enumerate() {
            let found = step(&mut scheduler);
            let found: Vec<_> = found.iter().map(|(user, count)| (user.as_str(), *count)).collect();
            assert_eq!(found, *expected, "step {number} of {requests:?}");
        }
    }

    #[test]
    fn prompts_of_users_take_turns_beside_the_answers() {
        let requests =
            [request("a", 0, 130, 9), request("a", 0, 70, 9), request("b", 0, 100, 9), request("c", 0, 1, 9)];
        let expected: [&[(&str, usize)]; 5] = [
            &[("a", 64), ("c", 1)],
            &[("b", 64), ("c", 1)],
            &[("a", 64), ("c", 1)],
            // b's last 36 tokens leave 28: a's first prompt has 2 left, its second takes the rest.
            &[("a", 2), ("b", 36), ("c", 1), ("a", 26)],
            &[("a", 1), ("b", 1), ("c", 1), ("a", 44)],
        ];
        check(8, 64, &requests, &expected);
    }

    #[test]
    fn a_prompt_alone_takes_longer_steps() {
        check(8, 64, &[request("a", 0, 300, 9)], &[&[("a", 256)], &[("a", 44)], &[("a", 1)]]);
        let with_logits = Request { prompt_logits: true, ..request("a", 0, 100, 9) };
        check(8, 64, &[with_logits], &[&[("a", 64)], &[("a", 36)]]);
    }

    /// Prompts of a step each, that end with it, beside a long one: nobody is new by a fresh name or by an end.
    #[test]
    fn short_prompts_do_not_keep_a_long_one_waiting() {
        let take_turns = |short: [&'static str; 3], long: &'static str| {
            let fills_a_step = |(user, id)| Request { prompt: vec![id; 64], ..request(user, 0, 64, 1) };
            let mut requests: Vec<Request> = short.into_iter().zip(2..).map(fills_a_step).collect();
            requests.insert(1, request(long, 0, 192, 1));
            let users = short.into_iter().flat_map(|short| [short, long]);
            let expected: Vec<[(&str, usize); 1]> = users.map(|user| [(user, 64)]).collect();
            let expected: Vec<&[(&str, usize)]> = expected.iter().map(|parts| &parts[..]).collect();
            check(2, 64, &requests, &expected);
        };
        take_turns(["a", "a", "a"], "b");
        take_turns(["a/1", "a/2", "a/3"], "b");
        take_turns(["a/1", "a/2", "a/3"], "a/9");
    }

    /// The same prompt to its length.
    fn counting(user: &str, len: usize) -> Request {
        Request { prompt: (0..len as u32).collect(), ..request(user, 0, len, 2) }
    }

    /// Five blocks: a has four, of which b shares three.
    #[test]
    fn what_others_have_of_a_beginning_takes_no_room() {
        let requests = [request("x", 0, 1, 1), counting("a", 100), counting("b", 100)];
        let expected: [&[(&str, usize)]; 4] =
            [&[("x", 1), ("a", 64)], &[("a", 36)], &[("a", 1), ("b", 4)], &[("b", 1)]];
        check(2, 5, &requests, &expected);
    }

    /// Of three blocks that are left b's prompt takes two, so a's drafts get one and not the two that they could use.
    #[test]
    fn nobody_leaves_the_cache_for_drafts() {
        let mut scheduler = Scheduler::new(limits(128, 8, 7), 7, None, Arc::default());
        let repeats = Request { prompt: vec![0; 40], masked_ids: [1].into(), ..request("a", 0, 40, 200) };
        let _a = add_drafting(&mut scheduler, repeats, 64);
        for count in [40, 1 + 2, 1 + 4, 1 + 8, 1 + 16, 1 + 32] {
            assert_eq!(step(&mut scheduler), [("a".to_owned(), count)]);
        }
        let _b = add(&mut scheduler, request("b", 0, 40, 9));
        assert_eq!(step(&mut scheduler), [("a".to_owned(), 1 + 32), ("b".to_owned(), 40)]);
    }

    #[test]
    fn a_beginning_that_several_have_is_computed_once() {
        let requests = [counting("a", 70), counting("b", 70), counting("c", 65), counting("d", 9)];
        let expected: [&[(&str, usize)]; 4] = [
            &[("a", 64)],
            &[("a", 6), ("b", 6), ("c", 1), ("d", 9)],
            &[("a", 1), ("b", 1), ("c", 1), ("d", 1)],
            &[],
        ];
        check(8, 64, &requests, &expected);
    }

    #[test]
    fn smaller_priorities_come_first() {
        let requests = [request("a", 0, 100, 9), request("b", -1, 70, 9), request("c", 1, 10, 9)];
        let expected: [&[(&str, usize)]; 3] =
            [&[("b", 64)], &[("b", 6), ("a", 58)], &[("b", 1), ("a", 42), ("c", 10)]];
        check(8, 64, &requests, &expected);
    }

    #[test]
    fn places_go_to_groups_and_users_with_the_fewest() {
        let requests =
            [request("a", 0, 2, 2), request("a", 0, 2, 2), request("a", 0, 2, 2), request("b", 0, 2, 2)];
        let expected: [&[(&str, usize)]; 5] =
            [&[("a", 2), ("b", 2)], &[("a", 1), ("b", 1)], &[("a", 2), ("a", 2)], &[("a", 1), ("a", 1)], &[]];
        check(2, 64, &requests, &expected);
        let requests = ["a/1", "a/1", "a/2", "b"].map(|user| request(user, 0, 2, 1));
        let expected: [&[(&str, usize)]; 2] = [&[("a/1", 2), ("b", 2), ("a/2", 2)], &[("a/1", 2)]];
        check(3, 64, &requests, &expected);
    }

    /// Four blocks: a's answer needs the fourth, so b leaves, and comes back when a has ended.
    #[test]
    fn the_last_leaves_when_the_cache_is_full() {
        let requests = [request("a", 0, 64, 2), request("b", 0, 30, 9)];
        let expected: [&[(&str, usize)]; 4] =
            [&[("a", 64)], &[("a", 1), ("b", 30)], &[("b", 1)], &[("b", 1)]];
        check(8, 4, &requests, &expected);
        let requests = [request("a", 0, 64, 3), request("b", 0, 33, 9)];
        let expected: [&[(&str, usize)]; 4] = [&[("a", 64)], &[("a", 1)], &[("a", 1)], &[("b", 33)]];
        check(8, 4, &requests, &expected);
    }

    #[test]
    fn cancelled_sequences_end_before_the_next_step_wherever_they_are() {
        let mut scheduler = Scheduler::new(limits(64, 1, 8), 8, None, Arc::default());
        let mut receivers: Vec<_> =
            ["a", "b", "c"].map(|user| add(&mut scheduler, request(user, 0, 10, 100))).into();
        assert_eq!(step(&mut scheduler), [("a".to_owned(), 10)]);
        receivers.drain(..2);
        assert_eq!(step(&mut scheduler), [("c".to_owned(), 10)]);
        receivers.clear();
        assert_eq!(step(&mut scheduler), []);
        assert!(scheduler.is_idle());
        assert_eq!(scheduler.pool.room(), 8);
    }

    proptest! {
        /// Whatever comes: no step is larger than allowed, no running answer is left out but for want of room,
        /// everything ends, and all blocks come back.
        #[test]
        fn everything_ends_within_its_budget(
            requests in prop::collection::vec((0..3usize, -1..2i32, 1..100usize, 0..60usize, 0..4usize), 1..24),
            prefill_chunk in 1..70usize,
            max_sequences in 1..9usize,
        ) {
            let blocks = 6;
            let mut scheduler = Scheduler::new(limits(prefill_chunk, max_sequences, blocks), blocks, None, Arc::default());
            let mut receivers = Vec::new();
            for (user, priority, prompt, answer, steps) in requests {
                receivers.push(add(&mut scheduler, request(["a", "b", "c"][user], priority, prompt, answer)));
                (0..steps).for_each(|_| { step(&mut scheduler); });
            }
            let mut steps = 0;
            while !scheduler.is_idle() {
                let answering = scheduler.running().iter().filter(|s| s.pending() == 1).count();
                let full = scheduler.pool.room() <= answering;
                let parts = scheduler.schedule();
                let of_prompts: usize = parts.iter().map(|p| p.count).filter(|count| *count > 1).sum();
                let most = if scheduler.running().len() == 1 { ALONE * prefill_chunk } else { prefill_chunk };
                prop_assert!(of_prompts <= most);
                prop_assert!(full || parts.len() >= answering);
                prop_assert!(!parts.is_empty(), "no step is empty");
                for part in parts.iter().rev() {
                    let limits = Arc::clone(&scheduler.limits);
                    let (sequence, pool) = scheduler.at(part.sequence);
                    if let Some(reason) = sequence.computed(part.count, &[0.0; VOCAB], &limits, pool) {
                        scheduler.finish(part.sequence, reason);
                    }
                }
                steps += 1;
                prop_assert!(steps < 100_000, "it does not end");
            }
            prop_assert_eq!(scheduler.pool.room(), blocks);
            for mut receiver in receivers {
                let mut last = None;
                while let Ok(event) = receiver.try_recv() { last = Some(event); }
                prop_assert!(matches!(last, Some(Event::Finished { reason: FinishReason::Length, .. })), "{last:?}");
            }
        }
    }
}
