//! What becomes of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

/// Something happened to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt is being computed: when its turn has come, and after each step that leaves some of it.
    Prefill {
        /// Prompt tokens in the cache by now.
        num_computed_tokens: usize,
        /// Prompt and cached tokens of the request.
        usage: Usage,
    },
    /// Logits of prompt positions from `start` on, `[rows, vocab_size]`; only if they were asked for.
    PromptLogits {
        /// The first row's position.
        start: usize,
        /// One row after the other.
        rows: Vec<f32>,
    },
    /// How likely the next prompt tokens are, each after those before it; only if that was asked for. The
    /// first token of a prompt is never among them.
    PromptLogprobs {
        /// Ids and log-probabilities.
        tokens: Vec<(u32, Logprobs)>,
    },
    /// The next token.
    Token {
        /// Its id.
        id: u32,
        /// How likely it was, if that was asked for.
        logprobs: Option<Logprobs>,
    },
    /// The last event of every request.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
        /// How long.
        timings: Timings,
    },
}

/// Natural logarithms of the model's own probabilities at one place: before masks, penalties and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// That of the chosen token.
    pub chosen: f32,
    /// Those of the likeliest tokens, likeliest first (of equal ones the lower id); as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model chose this stop id.
    Stop(u32),
    /// `max_tokens` or the end of the context was reached.
    Length,
    /// Somebody cancelled it.
    Cancelled,
    /// It could not be computed; the engine goes on.
    Failed(String),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the cache already.
    pub num_cached_tokens: usize,
    /// Tokens chosen, the stop id included.
    pub completion_tokens: usize,
    /// How many of those in the answer had been drafted.
    pub num_accepted_tokens: usize,
}

/// Durations of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the first token; none if there was none.
    pub time_to_first_token: Option<Duration>,
    /// Waiting for its turn.
    pub queued: Duration,
    /// Computing the prompt.
    pub prefill: Duration,
    /// Computing the tokens after the first.
    pub decode: Duration,
}

/// The events of one request. Dropping this cancels the request.
#[derive(Debug)]
pub struct Events {
    pub(crate) receiver: UnboundedReceiver<Event>,
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Events {
    /// The next event; none after [`Event::Finished`].
    pub async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// As [`recv`](Self::recv), for threads outside any async runtime.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        self.receiver.blocking_recv()
    }

    /// Something that cancels the request from elsewhere; it still finishes with an event.
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.cancelled))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.canceller().cancel();
    }
}

/// Cancels a request.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// Ends the request before its next step.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
