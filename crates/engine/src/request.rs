//! What can be asked of the engine, and what is refused at once.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::constraint::Grammar;
use crate::engine::Limits;
use crate::sampler::mix;

/// Most of the likeliest tokens that can be given out beside a chosen one, as in OpenAI's API.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// A prompt and how to continue it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Token ids; not empty.
    pub prompt: Vec<u32>,
    /// Most tokens to generate. With 0 the prompt is computed and nothing is generated.
    pub max_tokens: usize,
    /// Stop ids are not chosen before the answer has so many tokens, unless nothing else is allowed.
    pub min_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Added to the logits of these ids, each at most once.
    pub logit_bias: Arc<[(u32, f32)]>,
    /// What the answer has to follow, beside all of this.
    pub grammar: Option<Arc<dyn Grammar>>,
    /// Ids that end the answer; they are counted, but not among its tokens.
    pub stop_ids: Arc<[u32]>,
    /// Ids that are never chosen, such as reserved ids without a name.
    pub masked_ids: Arc<[u32]>,
    /// With each token the logarithm of its probability, and of so many of the likeliest.
    pub logprobs: Option<usize>,
    /// The same for each token of the prompt but the first ([`crate::Event::PromptLogprobs`]).
    pub prompt_logprobs: Option<usize>,
    /// Whether the logits of all prompt positions are wanted ([`crate::Event::PromptLogits`]).
    pub prompt_logits: bool,
    /// Smaller comes earlier (vLLM's meaning); from [`Request::PRIORITIES`]. It decides who gets a place, whose
    /// prompt is read first and who leaves a full cache last; answers do not depend on it.
    pub priority: i32,
    /// Who asks, as `group/user`: groups take turns, and under each its users. A name without `/` is a group of its
    /// own; requests without a name are of one user.
    pub user: Option<Arc<str>>,
}

/// How the next token is chosen from its logits. With the same logits and the same values here the choice
/// is the same, always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is the same as `greedy`. From 0 to 2.
    pub temperature: f32,
    /// Only so many of the likeliest tokens are drawn from; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability are drawn from. Above 0, up to 1.
    pub top_p: f32,
    /// Only tokens with at least this part of the likeliest one's probability are drawn from. From 0 to 1.
    pub min_p: f32,
    /// Logits of tokens in prompt or answer are divided by it where positive and multiplied where negative
    /// (CTRL, arXiv 1909.05858). Above 0, up to 2; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens in the answer so far. From -2 to 2.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens in the answer so far, once for each time. From -2 to 2.
    pub frequency_penalty: f32,
    /// Decides the draws.
    pub seed: u64,
    /// Take the largest logit, whatever the rest says.
    pub greedy: bool,
}

impl Default for Sampling {
    /// Draws from the model's own distribution.
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            greedy: false,
        }
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
    /// The threshold of the likeliest makes no sense.
    #[error("min_p is {min_p}; it must be from 0 to 1")]
    MinP {
        /// What was asked for.
        min_p: f32,
    },
    /// A penalty makes no sense.
    #[error("{name} is {penalty}; it must be {range}")]
    Penalty {
        /// Which one.
        name: &'static str,
        /// What was asked for.
        penalty: f32,
        /// What it may be.
        range: &'static str,
    },
    /// A bias outside the vocabulary or beyond sense.
    #[error("the bias of token {id} is {bias}; ids are 0 to {}, biases -100 to 100", vocab_size.saturating_sub(1))]
    LogitBias {
        /// The id.
        id: u32,
        /// What was asked for.
        bias: f32,
        /// Rows of the head.
        vocab_size: usize,
    },
    /// More probabilities than anybody needs.
    #[error("logprobs of {wanted} tokens at each place are wanted; at most {MAX_TOP_LOGPROBS} are given")]
    TopLogprobs {
        /// What was asked for.
        wanted: usize,
    },
    /// A priority beyond the range.
    #[error("priority is {priority}; it must be from {} to {}", Request::PRIORITIES.start(), Request::PRIORITIES.end())]
    Priority {
        /// What was asked for.
        priority: i32,
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
    /// The priorities that there are.
    pub const PRIORITIES: RangeInclusive<i32> = -100..=100;

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
        if !Self::PRIORITIES.contains(&self.priority) {
            return Err(SubmitError::Priority { priority: self.priority });
        }
        self.sampling.check()?;
        let wrong = |(id, bias): &&(u32, f32)| *id as usize >= vocab_size || !(-100.0..=100.0).contains(bias);
        if let Some(&(id, bias)) = self.logit_bias.iter().find(wrong) {
            return Err(SubmitError::LogitBias { id, bias, vocab_size });
        }
        if let Some(wanted) =
            self.logprobs.max(self.prompt_logprobs).filter(|wanted| *wanted > MAX_TOP_LOGPROBS)
        {
            return Err(SubmitError::TopLogprobs { wanted });
        }
        let mut masked: Vec<u32> =
            self.masked_ids.iter().copied().filter(|id| (*id as usize) < vocab_size).collect();
        masked.sort_unstable();
        masked.dedup();
        if masked.len() == vocab_size { Err(SubmitError::AllMasked { vocab_size }) } else { Ok(()) }
    }
}

impl Sampling {
    /// The same for one of several answers to a prompt: a seed of its own, derived from the common one. The
    /// first answer is the one that would come alone.
    pub fn of_answer(self, index: u64) -> Sampling {
        let seed = if index == 0 { self.seed } else { mix(self.seed.wrapping_add(index)) };
        Sampling { seed, ..self }
    }

    fn check(&self) -> Result<(), SubmitError> {
        let Sampling { temperature, top_p, min_p, .. } = *self;
        if !(0.0..=2.0).contains(&temperature) {
            return Err(SubmitError::Temperature { temperature });
        }
        // Not `contains`: 0 is outside, 1 inside, and NaN outside.
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SubmitError::TopP { top_p });
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(SubmitError::MinP { min_p });
        }
        self.check_penalties()
    }

    fn check_penalties(&self) -> Result<(), SubmitError> {
        let repetition = self.repetition_penalty;
        if !(repetition > 0.0 && repetition <= 2.0) {
            let (name, range) = ("repetition_penalty", "above 0 and at most 2");
            return Err(SubmitError::Penalty { name, penalty: repetition, range });
        }
        for (name, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if !(-2.0..=2.0).contains(&penalty) {
                return Err(SubmitError::Penalty { name, penalty, range: "from -2 to 2" });
            }
        }
        Ok(())
    }
}
