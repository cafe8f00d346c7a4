//! Sequences of token ids through the model: requests go in, events come out.
//!
//! One thread owns model and cache. [`Engine::submit`] checks a [`Request`] and puts it into a
//! bounded queue; what becomes of it arrives as [`Events`]. A step is schedule → forward → sample → emit,
//! over all running sequences together; what they share is computed once. Text is the business of `k2-chat`: the engine maps ids to
//! ids.

mod blocks;
mod caught;
mod constraint;
mod draft;
mod engine;
mod event;
mod logprobs;
pub mod prefix_store;
mod request;
mod row;
mod sampler;
mod scheduler;
mod sequence;
mod stats;
mod step;
mod turns;
mod worker;

pub use constraint::{Constraint, Grammar};
pub use engine::{Engine, EngineOptions, StartError};
pub use event::{Canceller, Event, Events, FinishReason, Logprobs, Timings, Usage};
pub use k2_model::CacheDtype;
pub use prefix_store::{PrefixStoreError, PrefixStoreOptions};
pub use request::{MAX_TOP_LOGPROBS, Request, Sampling, SubmitError};
pub use row::AnswerMarkers;
pub use sampler::{Choice, Sampler, SamplerError};
pub use stats::{PrefixStoreStats, Stats};
