//! The loop: one owner of model, cache and scratch, and the sequences that it computes.
//!
//! A step is schedule → forward → sample → emit. Sequences are computed in the order in which they came.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use k2_model::{BatchError, Chunk, KimiK2, KvCache, Scratch};

use crate::engine::Limits;
use crate::event::FinishReason;
use crate::sequence::Sequence;

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
    /// The cache blocks of the sequence that runs: all of them.
    block_table: Vec<u32>,
    limits: Arc<Limits>,
    prefill_chunk: usize,
}

impl Worker {
    pub(crate) fn new(model: KimiK2, limits: Arc<Limits>, prefill_chunk: usize) -> Worker {
        let blocks = KvCache::blocks_for(limits.context_tokens);
        Worker {
            cache: KvCache::new(&model.config, blocks),
            scratch: Scratch::default(),
            block_table: (0..blocks as u32).collect(),
            limits,
            prefill_chunk,
            model,
        }
    }

    /// Works until all handles are gone.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        while let Ok(Command::Submit(sequence)) = inbox.recv() {
            self.serve(*sequence);
        }
    }

    /// Steps until the sequence ends.
    fn serve(&mut self, mut sequence: Sequence) {
        sequence.begin();
        let reason = loop {
            if sequence.is_cancelled() {
                break FinishReason::Cancelled;
            }
            // A bug in a step must not take the engine with it: this request fails, the next begins anew.
            let step = catch_unwind(AssertUnwindSafe(|| self.step(&mut sequence)));
            match step {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(reason))) => break reason,
                Ok(Err(error)) => break FinishReason::Failed(error.to_string()),
                Err(panic) => {
                    self.scratch = Scratch::default();
                    break FinishReason::Failed(message(panic.as_ref()));
                }
            }
        };
        sequence.finish(reason);
    }

    /// Computes the sequence's next tokens, and chooses one when none is left to compute.
    fn step(&mut self, sequence: &mut Sequence) -> Result<Option<FinishReason>, BatchError> {
        let began = Instant::now();
        let (start, tokens) = sequence.pending(self.prefill_chunk);
        let count = tokens.len();
        let logits = sequence.logit_rows(start + count);
        let chunk = Chunk { tokens, start, block_table: &self.block_table, logits };
        let rows = self.model.forward(&mut self.cache, &[chunk], &mut self.scratch, None)?;
        let end = sequence.computed(count, rows, &self.limits);
        sequence.took(began.elapsed());
        Ok(end)
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("internal error in the forward pass: {said}")
}
