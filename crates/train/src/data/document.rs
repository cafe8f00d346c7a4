//! A document: tokens, and how much it counts that each is predicted.
//!
//! Conversations are rendered by `chat` exactly as a server renders a request. What the assistant wrote lies
//! between `<|im_assistant|>…<|im_middle|>` and the next `<|im_end|>`; only that (with the `<|im_end|>`, or the
//! model would never stop) is in the loss. Since text never encodes to control tokens, the ids alone tell.

use k2_chat::{Message, RenderOptions, Template, Tokenizer, Tool, normalize, render};
use std::sync::Arc;

use super::DataError;
use crate::rng::Rng;

/// Tokens with their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// How much it counts that each is predicted from those before it; the first is never predicted.
    pub weights: Vec<f32>,
}

/// Makes documents with one tokenizer.
pub(super) struct Encoder {
    tokenizer: Arc<Tokenizer>,
    turn: Turn,
    prompt_weight: f32,
}

/// Ids of the tokens that bound the assistant's turns.
#[derive(Clone, Copy)]
struct Turn {
    assistant: u32,
    middle: u32,
    end: u32,
}

impl Encoder {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, prompt_weight: f32) -> Result<Encoder, DataError> {
        let id = |name| tokenizer.specials().id(name).ok_or(DataError::NoSpecial { name });
        let turn =
            Turn { assistant: id("<|im_assistant|>")?, middle: id("<|im_middle|>")?, end: id("<|im_end|>")? };
        Ok(Encoder { tokenizer, turn, prompt_weight })
    }

    /// A conversation in the turn format.
    pub(super) fn conversation(
        &self,
        mut messages: Vec<Message>,
        tools: &[Tool],
    ) -> Result<Document, String> {
        normalize(&mut messages);
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
        let rendered =
            render(Template::K2Instruct, &messages, tools, options).map_err(|error| error.to_string())?;
        let tokens = rendered.ids(&self.tokenizer);
        let weights = self.weights(&tokens);
        Ok(Document { tokens, weights })
    }

    /// Plain text, all of it in the loss.
    pub(super) fn text(&self, text: &str) -> Document {
        let mut tokens = self.tokenizer.encode(text, false);
        tokens.push(self.turn.end);
        Document { weights: vec![1.0; tokens.len()], tokens }
    }

    /// A line said twice; only the second time can be predicted.
    pub(super) fn twice(&self, line: &str) -> Document {
        self.said_twice(&self.tokenizer.encode(&format!("{line}\n"), false))
    }

    /// Row `index` of pieces of the vocabulary without any order, said twice.
    pub(super) fn pieces_twice(&self, seed: u64, index: u64) -> Document {
        let mut rng = Rng::numbered(seed, index);
        let pieces = self.tokenizer.ranks() as usize;
        let length = 8 + rng.below(56);
        let row: Vec<u32> = (0..length).map(|_| rng.below(pieces) as u32).collect();
        self.said_twice(&row)
    }

    fn said_twice(&self, once: &[u32]) -> Document {
        let mut weights = vec![0.0; once.len()];
        weights.resize(2 * once.len() + 1, 1.0);
        Document { tokens: [once, once, &[self.turn.end]].concat(), weights }
    }

    fn weights(&self, tokens: &[u32]) -> Vec<f32> {
        let Turn { assistant, middle, end } = self.turn;
        let (mut opened, mut speaking) = (false, false);
        let weight = |&token: &u32| {
            let weight = if speaking { 1.0 } else { self.prompt_weight };
            match token {
                _ if token == assistant => opened = true,
                _ if token == middle => speaking = std::mem::take(&mut opened),
                _ if token == end => speaking = false,
                _ => {}
            }
            weight
        };
        tokens.iter().map(weight).collect()
    }
}
