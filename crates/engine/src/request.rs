//! What can be asked of the engine, and what is refused at once.

use std::sync::Arc;

use crate::engine::Limits;

/// A prompt and how to continue it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Token ids; not empty.
    pub prompt: Vec<u32>,
    /// Most tokens to generate. With 0 the prompt is computed and nothing is generated.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Ids that end the answer; they are counted, but not among its tokens.
    pub stop_ids: Arc<[u32]>,
    /// Ids that are never chosen, such as reserved ids without a name.
    pub masked_ids: Arc<[u32]>,
    /// Whether the logits of all prompt positions are wanted ([`crate::Event::PromptLogits`]).
    pub prompt_logits: bool,
}

/// How the next token is chosen from its logits. With the same logits and the same values here the choice
/// is the same, always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is the same as `greedy`. From 0 to 2.
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability are drawn from. Above 0, up to 1.
    pub top_p: f32,
    /// Decides the draws.
    pub seed: u64,
    /// Take the largest logit, whatever the rest says.
    pub greedy: bool,
}

impl Default for Sampling {
    /// Draws from the model's own distribution.
    fn default() -> Self {
        Sampling { temperature: 1.0, top_p: 1.0, seed: 0, greedy: false }
    }
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing to continue.
    #[error("the prompt has no tokens; it needs at least one")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("prompt token {index} is {id}; the vocabulary has ids 0 to {}", vocab_size.saturating_sub(1))]
    TokenId {
        /// Its place in the prompt.
        index: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The prompt leaves no room in the context.
    #[error("the prompt has {prompt_tokens} tokens; a context of {context_tokens} has room for {most}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that a sequence may have.
        context_tokens: usize,
        /// Tokens that this prompt may have.
        most: usize,
    },
    /// The temperature makes no sense.
    #[error("temperature is {temperature}; it must be from 0 to 2")]
    Temperature {
        /// What was asked for.
        temperature: f32,
    },
    /// The nucleus makes no sense.
    #[error("top_p is {top_p}; it must be above 0 and at most 1")]
    TopP {
        /// What was asked for.
        top_p: f32,
    },
    /// Everything is forbidden.
    #[error("all {vocab_size} ids are masked; at least one must be allowed")]
    AllMasked {
        /// Rows of the head.
        vocab_size: usize,
    },
    /// Too many requests wait.
    #[error("{waiting} requests are waiting already; try again later")]
    QueueFull {
        /// Room in the queue.
        waiting: usize,
    },
    /// The engine's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
}

impl Request {
    /// Whether the engine can compute this.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), SubmitError> {
        let Limits { vocab_size, context_tokens, .. } = *limits;
        let prompt_tokens = self.prompt.len();
        if prompt_tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(index) = self.prompt.iter().position(|id| *id as usize >= vocab_size) {
            return Err(SubmitError::TokenId { index, id: self.prompt[index], vocab_size });
        }
        let most = context_tokens - self.max_tokens.min(1);
        if prompt_tokens > most {
            return Err(SubmitError::PromptTooLong { prompt_tokens, context_tokens, most });
        }
        self.sampling.check()?;
        let mut masked: Vec<u32> =
            self.masked_ids.iter().copied().filter(|id| (*id as usize) < vocab_size).collect();
        masked.sort_unstable();
        masked.dedup();
        if masked.len() == vocab_size { Err(SubmitError::AllMasked { vocab_size }) } else { Ok(()) }
    }
}

impl Sampling {
    fn check(&self) -> Result<(), SubmitError> {
        let Sampling { temperature, top_p, .. } = *self;
        if !(0.0..=2.0).contains(&temperature) {
            return Err(SubmitError::Temperature { temperature });
        }
        // Not `contains`: 0 is outside, 1 inside, and NaN outside.
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SubmitError::TopP { top_p });
        }
        Ok(())
    }
}
