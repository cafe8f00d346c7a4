//! The handle: starts the thread that owns the model, and submits requests to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use k2_model::{Config, KimiK2, KvCache};
use tokio::sync::mpsc::unbounded_channel;

use crate::event::Events;
use crate::request::{Request, SubmitError};
use crate::sequence::Sequence;
use crate::stats::{Counters, Stats};
use crate::worker::{Command, Worker};

/// A model that takes requests. Clones are handles to the same one; it ends when the last is dropped and
/// what was submitted is done.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: SyncSender<Command>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
}

/// Sizes of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Tokens that a sequence may have, prompt and answer together; no more than the model's
    /// `max_position_embeddings` are used. Memory is taken as they are written.
    pub context_tokens: usize,
    /// Tokens that the cache holds for all sequences together, those that nobody uses any more included; at
    /// least `context_tokens` are used.
    pub cache_tokens: usize,
    /// Prompt tokens computed in one step, beside one token of each sequence that has begun its answer.
    /// Results do not depend on it.
    pub prefill_chunk: usize,
    /// Sequences computed at the same time. Results do not depend on it.
    pub max_sequences: usize,
    /// Requests that may wait.
    pub max_waiting: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            context_tokens: 32_768,
            cache_tokens: 0,
            prefill_chunk: 256,
            max_sequences: 32,
            max_waiting: 64,
        }
    }
}

/// What requests are checked against, and what a step may hold.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) vocab_size: usize,
    pub(crate) context_tokens: usize,
    pub(crate) cache_tokens: usize,
    pub(crate) prefill_chunk: usize,
    pub(crate) max_sequences: usize,
    pub(crate) max_waiting: usize,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No room for a prompt and an answer.
    #[error("a context of {context_tokens} tokens is too small; at least 2 are needed")]
    Context {
        /// What was asked for.
        context_tokens: usize,
    },
    /// No step would ever compute anything.
    #[error("prefill_chunk is 0; at least 1 token must be computed in a step")]
    PrefillChunk,
    /// Nothing would ever be computed.
    #[error("max_sequences is 0; at least 1 sequence must be computed at a time")]
    MaxSequences,
    /// Nobody could ever wait.
    #[error("max_waiting is 0; at least 1 request must be able to wait")]
    MaxWaiting,
    /// The cache is beyond any memory.
    #[error("a cache of {cache_tokens} tokens takes {bytes} bytes, more than can be addressed")]
    CacheSize {
        /// What was asked for.
        cache_tokens: usize,
        /// Bytes for them.
        bytes: u128,
    },
    /// The operating system refused a thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Engine {
    /// Moves the model to a thread of its own.
    pub fn start(model: KimiK2, options: EngineOptions) -> Result<Engine, StartError> {
        let limits = Arc::new(options.limits(&model.config)?);
        let (commands, inbox) = sync_channel(options.max_waiting);
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(model, Arc::clone(&limits), Arc::clone(&counters));
        thread::Builder::new().name("k2-engine".into()).spawn(move || worker.run(&inbox))?;
        Ok(Engine { commands, limits, counters })
    }

    /// Queues a request, or says what is wrong with it.
    pub fn submit(&self, request: Request) -> Result<Events, SubmitError> {
        request.check(&self.limits)?;
        let (sender, receiver) = unbounded_channel();
        let events = Events { receiver, cancelled: Arc::new(AtomicBool::new(false)) };
        let sequence = Sequence::new(request, sender, Arc::clone(&events.cancelled));
        // Before the worker can lower it.
        self.counters.waiting.fetch_add(1, Relaxed);
        let sent = self.commands.try_send(Command::Submit(Box::new(sequence)));
        if sent.is_err() {
            self.counters.waiting.fetch_sub(1, Relaxed);
        }
        match sent {
            Ok(()) => Ok(events),
            Err(TrySendError::Full(_)) => Err(SubmitError::QueueFull { waiting: self.limits.max_waiting }),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Stopped),
        }
    }

    /// What it is doing now.
    pub fn stats(&self) -> Stats {
        self.counters.stats(self.limits.max_waiting)
    }

    /// Tokens that a sequence may have, prompt and answer together.
    pub fn context_tokens(&self) -> usize {
        self.limits.context_tokens
    }

    /// Numbers in a row of logits.
    pub fn vocab_size(&self) -> usize {
        self.limits.vocab_size
    }
}

impl EngineOptions {
    fn limits(&self, config: &Config) -> Result<Limits, StartError> {
        let context_tokens = self.context_tokens.min(config.max_position_embeddings);
        if context_tokens < 2 {
            return Err(StartError::Context { context_tokens });
        }
        if self.prefill_chunk == 0 {
            return Err(StartError::PrefillChunk);
        }
        if self.max_waiting == 0 {
            return Err(StartError::MaxWaiting);
        }
        if self.max_sequences == 0 {
            return Err(StartError::MaxSequences);
        }
        let cache_tokens = self.cache_tokens.max(context_tokens);
        let bytes = cache_tokens as u128 * KvCache::bytes_per_token(config) as u128;
        if bytes > isize::MAX as u128 / 2 {
            return Err(StartError::CacheSize { cache_tokens, bytes });
        }
        Ok(Limits {
            vocab_size: config.vocab_size,
            context_tokens,
            cache_tokens,
            prefill_chunk: self.prefill_chunk,
            max_sequences: self.max_sequences,
            max_waiting: self.max_waiting,
        })
    }
}
