//! What is served: one model with its tokenizer and turn format.

use std::sync::Arc;

use k2_chat::{GrammarCompiler, Template, Tokenizer, Turns};
use k2_engine::Engine;

use crate::limits::Limits;
use crate::params::Params;

/// A running model and what turns HTTP's words into its ids.
pub struct Served {
    /// The model's name in requests and answers.
    pub model_name: String,
    /// The model.
    pub engine: Engine,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// The turn format.
    pub template: Template,
    /// Tools and schemas to what may come next.
    pub grammars: GrammarCompiler,
    /// The model's own turns.
    pub turns: Turns,
    /// Which values the parameters of a request may have.
    pub params: Params,
    /// Ids that end a turn.
    pub stop_ids: Arc<[u32]>,
    /// Ids that are never chosen.
    pub masked_ids: Arc<[u32]>,
    /// Temperature of requests that name none.
    pub temperature: f32,
    /// `top_p` of requests that name none.
    pub top_p: f32,
    /// How much a request may ask for.
    pub limits: Limits,
    /// Whether headers that agents put before a system prompt stay, although they differ each time.
    pub keep_agent_headers: bool,
}

impl Served {
    /// Most answers to one request, no more than may wait: all of them are submitted at once.
    pub(crate) fn most_answers(&self, most: usize) -> usize {
        most.min(self.engine.stats().max_waiting as usize)
    }
}
