//! One request, from its first byte to the last of its answer: what the log and the metrics say of it.
//!
//! Never text of a prompt or an answer, nor messages of errors that quote it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use k2_engine::{Timings, Usage};

use crate::admission::Place;
use crate::error::ApiError;
use crate::metrics::{GrammarOutcome, Metrics};

tokio::task_local! {
    /// The request that a handler is working for.
    static CURRENT: Arc<Record>;
}

/// What is known of a request; it is logged and counted when the last of its owners lets go.
#[derive(Debug)]
pub(crate) struct Record {
    /// The answer has it too, as `x-request-id`.
    pub(crate) id: String,
    method: Method,
    endpoint: String,
    key: OnceLock<Arc<str>>,
    began: Instant,
    /// How long all of it may take.
    longest: Duration,
    status: AtomicU16,
    /// Whether the last byte of the answer was handed on.
    complete: AtomicBool,
    timed_out: AtomicBool,
    spent: Mutex<Spent>,
    /// Given back last of all.
    place: OnceLock<Place>,
    metrics: Arc<Metrics>,
}

/// What the engine spent on it, over all its answers.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    answers: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    queued: Duration,
    prefill: Duration,
    first_token: Option<Duration>,
}

impl Record {
    pub(crate) fn new(method: Method, endpoint: &str, longest: Duration, metrics: Arc<Metrics>) -> Record {
        Record {
            id: format!("req-{:016x}", RandomState::new().build_hasher().finish()),
            method,
            endpoint: endpoint.to_owned(),
            key: OnceLock::new(),
            began: Instant::now(),
            longest,
            status: AtomicU16::new(0),
            complete: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            spent: Mutex::default(),
            place: OnceLock::new(),
            metrics,
        }
    }

    /// Runs a handler for this request.
    pub(crate) async fn scope<F: Future>(self: Arc<Record>, handler: F) -> F::Output {
        CURRENT.scope(self, handler).await
    }

    /// Does work for this request on a thread of its own.
    pub(crate) fn sync_scope<T>(self: Arc<Record>, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// The request that the caller works for; none outside handlers.
    pub(crate) fn current() -> Option<Arc<Record>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Whose key it brought.
    pub(crate) fn set_key(&self, name: &Arc<str>) {
        // A request has one key.
        let _ = self.key.set(Arc::clone(name));
    }

    /// The name of its key; none where there are no keys.
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.key.get().cloned()
    }

    /// Keeps its place until the end.
    pub(crate) fn hold(&self, place: Place) {
        // A request has one place.
        let _ = self.place.set(place);
    }

    pub(crate) fn set_status(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Relaxed);
    }

    /// How long it may go on.
    pub(crate) fn time_left(&self) -> Duration {
        self.longest.saturating_sub(self.began.elapsed())
    }

    /// What is said when that is over.
    pub(crate) fn took_too_long(&self) -> ApiError {
        ApiError::took_too_long(self.longest)
    }

    /// The whole answer has been handed on.
    pub(crate) fn completed(&self) {
        self.complete.store(true, Relaxed);
    }

    /// It was cut because it took too long.
    pub(crate) fn timed_out(&self) {
        self.timed_out.store(true, Relaxed);
    }

    /// It wanted a grammar.
    pub(crate) fn grammar(&self, outcome: GrammarOutcome) {
        self.metrics.grammar(outcome);
    }

    /// The engine has finished one answer of it.
    pub(crate) fn answered(&self, usage: Usage, timings: Timings) {
        self.metrics.answered(usage, timings);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = spent.answers == 0;
        spent.answers += 1;
        spent.prompt_tokens += usage.prompt_tokens;
        spent.cached_tokens += usage.num_cached_tokens;
        spent.completion_tokens += usage.completion_tokens;
        spent.prefill += timings.prefill;
        if first {
            spent.queued = timings.queued;
            spent.first_token = timings.time_to_first_token;
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let key = self.key.get().map_or("-", |name| name);
        let status = self.status.load(Relaxed);
        let outcome = match (self.complete.load(Relaxed), self.timed_out.load(Relaxed)) {
            (_, true) => "timed out",
            (true, false) => "complete",
            (false, false) => "disconnected",
        };
        self.metrics.ended(&self.endpoint, status, key, outcome == "disconnected", self.began.elapsed());
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = |duration: Duration| duration.as_millis() as u64;
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    id = self.id, method = %self.method, endpoint = self.endpoint, key, status, outcome,
                    answers = spent.answers, prompt_tokens = spent.prompt_tokens,
                    cached_tokens = spent.cached_tokens, completion_tokens = spent.completion_tokens,
                    queued_ms = ms(spent.queued), prefill_ms = ms(spent.prefill),
                    first_token_ms = spent.first_token.map(ms), total_ms = ms(self.began.elapsed()),
                    "request"
                )
            };
        }
        match (self.method == Method::GET, status) {
            (_, 500..) => line!(warn),
            (true, _) => line!(debug),
            (false, _) => line!(info),
        }
    }
}
