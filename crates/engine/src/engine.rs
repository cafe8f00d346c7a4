//! The handle: starts the thread that owns the model, and submits requests to it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use k2_model::{CacheDtype, Config, KimiK2, KvCache};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use crate::event::Events;
use crate::prefix_store::{Directory, PrefixStore, PrefixStoreError, PrefixStoreOptions};
use crate::request::{Request, SubmitError};
use crate::row::{AnswerMarkers, rows_of_prompt};
use crate::sequence::Sequence;
use crate::stats::{Counters, Stats};
use crate::worker::{Command, Worker};

/// A model that takes requests. Clones are handles to the same one; it ends when the last is dropped and
/// what was submitted is done.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: SyncSender<Command>,
    /// One permit for each request that may wait.
    queue: Arc<Semaphore>,
    limits: Arc<Limits>,
    config: Config,
    answers: Option<AnswerMarkers>,
    counters: Arc<Counters>,
    store: Option<Arc<Directory>>,
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
    /// Prompt tokens computed in one step, beside one token of each sequence that has begun its answer; four times as
    /// many of a prompt that is alone, unless its logits are wanted.
    /// Results do not depend on it.
    pub prefill_chunk: usize,
    /// How long answers wait for a step of a prompt before they have steps of their own between its layers, where it takes much
    /// longer than that; zero for a step after every layer. Results do not depend on it.
    pub patience: Duration,
    /// Sequences computed at the same time. Results do not depend on it.
    pub max_sequences: usize,
    /// Requests that may wait.
    pub max_waiting: usize,
    /// How the cache keeps latents. Results depend on it.
    pub cache_dtype: CacheDtype,
    /// Most tokens that are drafted from earlier copies and checked in one step with the next one; 0 for none.
    /// Results do not depend on it.
    pub speculate: usize,
    /// How answers of earlier turns are told from the rest of a prompt, so that their rows are computed as they were then,
    /// and found where they were kept. Results depend on it as the order of a sum does.
    pub answers: Option<AnswerMarkers>,
    /// Whether weights are rearranged for speed, in memory of their own, while nobody waits for an answer and for a
    /// tenth of the time while somebody does. Results do not depend on it.
    pub repack: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            context_tokens: 32_768,
            cache_tokens: 0,
            prefill_chunk: 256,
            patience: Duration::from_millis(300),
            max_sequences: 32,
            max_waiting: 64,
            cache_dtype: CacheDtype::default(),
            speculate: 0,
            answers: None,
            repack: false,
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
    pub(crate) patience: Duration,
    pub(crate) max_sequences: usize,
    pub(crate) max_waiting: usize,
    pub(crate) cache_dtype: CacheDtype,
    pub(crate) speculate: usize,
    pub(crate) repack: bool,
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
    /// Nobody could ever wait, or more than can be counted.
    #[error("max_waiting is {max_waiting}; from 1 to {} requests may wait", Semaphore::MAX_PERMITS)]
    MaxWaiting {
        /// What was asked for.
        max_waiting: usize,
    },
    /// More drafts than could ever pay.
    #[error("speculate is {speculate}; at most {} tokens can be drafted", EngineOptions::MOST_DRAFTS)]
    Speculate {
        /// What was asked for.
        speculate: usize,
    },
    /// The cache is beyond any memory.
    #[error("a cache of {cache_tokens} tokens takes {bytes} bytes, more than can be addressed")]
    CacheSize {
        /// What was asked for.
        cache_tokens: usize,
        /// Bytes for them.
        bytes: u128,
    },
    /// Beginnings cannot be kept on disk.
    #[error(transparent)]
    PrefixStore(#[from] PrefixStoreError),
    /// The operating system refused a thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Engine {
    /// Moves the model to a thread of its own.
    pub fn start(model: KimiK2, options: EngineOptions) -> Result<Engine, StartError> {
        Engine::start_with(model, options, None)
    }

    /// The same, with beginnings of sequences kept on disk.
    pub fn start_with(
        model: KimiK2,
        options: EngineOptions,
        store: Option<&PrefixStoreOptions>,
    ) -> Result<Engine, StartError> {
        let limits = Arc::new(options.limits(&model.config)?);
        let config = model.config.clone();
        let store = store.map(|store| PrefixStore::open(store, &model, &limits)).transpose()?;
        let (commands, inbox) = sync_channel(options.max_waiting);
        let queue = Arc::new(Semaphore::new(options.max_waiting));
        let directory = store.as_ref().map(PrefixStore::directory);
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(model, Arc::clone(&limits), store, Arc::clone(&counters));
        thread::Builder::new().name("k2-engine".into()).spawn(move || worker.run(&inbox))?;
        Ok(Engine { commands, queue, limits, config, answers: options.answers, counters, store: directory })
    }

    /// Queues a request, or says what is wrong with it.
    pub fn submit(&self, request: Request) -> Result<Events, SubmitError> {
        request.check(&self.limits)?;
        let full = SubmitError::QueueFull { waiting: self.limits.max_waiting };
        let Ok(queued) = Arc::clone(&self.queue).try_acquire_owned() else { return Err(full) };
        let (sender, receiver) = unbounded_channel();
        let events = Events { receiver, cancelled: Arc::new(AtomicBool::new(false)) };
        let rows = rows_of_prompt(&self.config, self.answers.as_ref(), &request.prompt);
        let sequence = Sequence::new(
            request,
            rows,
            sender,
            Arc::clone(&events.cancelled),
            Some(queued),
            self.limits.speculate,
        );
        match self.commands.try_send(Command::Submit(Box::new(sequence))) {
            Ok(()) => Ok(events),
            Err(TrySendError::Full(_)) => Err(full),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Stopped),
        }
    }

    /// What it is doing now.
    pub fn stats(&self) -> Stats {
        let max_waiting = self.limits.max_waiting;
        let waiting = max_waiting - self.queue.available_permits();
        self.counters.stats(waiting, max_waiting, self.store.as_ref().map(|store| store.stats()))
    }

    /// Waits until what finished requests left for the prefix store is on the disk: for the end of a program.
    /// False if it takes longer than `longest`.
    pub fn flush(&self, longest: Duration) -> bool {
        self.store.as_ref().is_none_or(|store| store.flush(longest))
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
    /// The largest [`speculate`](Self::speculate): beyond it a step is slower than what copies save.
    pub const MOST_DRAFTS: usize = 64;

    /// Bytes of the cache that a model of this config gets.
    pub fn cache_bytes(&self, config: &Config) -> u128 {
        let context_tokens = self.context_tokens.min(config.max_position_embeddings);
        let cache_tokens = self.cache_tokens.max(context_tokens);
        cache_tokens as u128 * KvCache::bytes_per_token(config, self.cache_dtype) as u128
    }

    fn limits(&self, config: &Config) -> Result<Limits, StartError> {
        let context_tokens = self.context_tokens.min(config.max_position_embeddings);
        if context_tokens < 2 {
            return Err(StartError::Context { context_tokens });
        }
        if self.prefill_chunk == 0 {
            return Err(StartError::PrefillChunk);
        }
        if self.max_waiting == 0 || self.max_waiting > Semaphore::MAX_PERMITS {
            return Err(StartError::MaxWaiting { max_waiting: self.max_waiting });
        }
        if self.max_sequences == 0 {
            return Err(StartError::MaxSequences);
        }
        if self.speculate > Self::MOST_DRAFTS {
            return Err(StartError::Speculate { speculate: self.speculate });
        }
        let (cache_tokens, bytes) = (self.cache_tokens.max(context_tokens), self.cache_bytes(config));
        if bytes > isize::MAX as u128 / 2 {
            return Err(StartError::CacheSize { cache_tokens, bytes });
        }
        Ok(Limits {
            vocab_size: config.vocab_size,
            context_tokens,
            cache_tokens,
            prefill_chunk: self.prefill_chunk,
            patience: self.patience,
            max_sequences: self.max_sequences,
            max_waiting: self.max_waiting,
            repack: self.repack,
            cache_dtype: self.cache_dtype,
            speculate: self.speculate,
        })
    }
}
