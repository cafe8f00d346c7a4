//! A document: tokens, and how much it counts that each is predicted.
//!
//! Conversations are rendered by `chat` exactly as a server renders a request. What the assistant wrote lies
//! between `<|im_assistant|>…<|im_middle|>` and the next `<|im_end|>`; only that (with the `<|im_end|>`, or the
//! model would never stop) is in the loss. Since text never encodes to control tokens, the ids alone tell.
//!
//! Where the form has reasoning, it is the assistant's own as well. A prompt keeps only that of the turns since the
//! last answer, so each answer of a conversation is a document with its own reasoning, behind a history without.

use k2_chat::{Message, RenderOptions, Rendered, Role, Template, Tokenizer, Tool, normalize, render};
use std::ops::Range;
use std::sync::Arc;

use super::DataError;
use crate::dialogues::Dialogue;
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
    template: Template,
    turn: Turn,
    token_weights: TokenWeights,
}

/// How much the tokens of a conversation count; what the assistant says, 1.
#[derive(Clone, Copy)]
pub(super) struct TokenWeights {
    /// Of what others say, on average.
    pub prompt: f32,
    /// Share of those tokens that is drawn; the others cost nothing.
    pub prompt_sample: f32,
    /// Of the first token of each of the assistant's turns.
    pub first: f32,
}

/// Ids of the tokens that bound the assistant's turns.
#[derive(Clone, Copy)]
struct Turn {
    assistant: u32,
    middle: u32,
    end: u32,
}

/// What a turn with reasoning begins and goes on with.
const THINK: [&str; 2] = ["<think>", "</think>"];

impl Encoder {
    pub(super) fn new(
        tokenizer: Arc<Tokenizer>,
        template: Template,
        token_weights: TokenWeights,
    ) -> Result<Encoder, DataError> {
        let id = |name| tokenizer.specials().id(name).ok_or(DataError::NoSpecial { name });
        let turn =
            Turn { assistant: id("<|im_assistant|>")?, middle: id("<|im_middle|>")?, end: id("<|im_end|>")? };
        if template.form().thinking {
            THINK.into_iter().try_for_each(|name| id(name).map(drop))?;
        }
        Ok(Encoder { tokenizer, template, turn, token_weights })
    }

    /// A dialogue in the turn format; nobody thinks in it.
    pub(super) fn dialogue(&self, dialogue: &Dialogue) -> Result<Document, String> {
        let mut messages = dialogue.messages();
        normalize(&mut messages);
        self.rendered(&messages, &vec![1.0; messages.len()], 0, &[], &dialogue.tools)
    }

    /// A conversation in the turn format: one document, or one for each answer if there is reasoning. `weights` says how
    /// much each message counts if it is the assistant's.
    pub(super) fn conversation(
        &self,
        mut messages: Vec<Message>,
        weights: &[f32],
        tools: &[Tool],
    ) -> Result<Vec<Document>, String> {
        normalize(&mut messages);
        let take = |message: &mut Message| message.reasoning_content.take().unwrap_or_default();
        let thoughts: Vec<String> = messages.iter_mut().map(take).collect();
        let thinks = self.template.form().thinking && thoughts.iter().any(|thought| !thought.is_empty());
        if !thinks {
            return Ok(vec![self.rendered(&messages, weights, 0, &[], tools)?]);
        }
        let document = |part: Range<usize>| {
            self.rendered(&messages[..part.end], weights, part.start, &thoughts[part], tools)
        };
        let is_learned = |part: &Range<usize>| {
            part.clone().any(|message| speaks(&messages[message]) && weights[message] > 0.0)
        };
        answers(&messages).into_iter().filter(is_learned).map(document).collect()
    }

    /// Messages, of which those from `first` on are to be learned, with what was thought in each of these.
    fn rendered(
        &self,
        messages: &[Message],
        weights: &[f32],
        first: usize,
        thoughts: &[String],
        tools: &[Tool],
    ) -> Result<Document, String> {
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
        let mut rendered =
            render(self.template, messages, tools, options).map_err(|error| error.to_string())?;
        let (history, learned) = messages.split_at(first);
        let known = history.iter().filter(|message| speaks(message)).count();
        let thoughts = learned.iter().zip(thoughts).filter(|(message, _)| speaks(message));
        think(&mut rendered, known, thoughts.map(|(_, thought)| thought.as_str()).collect());
        let tokens = rendered.ids(&self.tokenizer);
        let turns = messages.iter().zip(weights).enumerate().filter(|(_, (message, _))| speaks(message));
        let turns = turns.map(|(index, (_, weight))| (index >= first).then_some(*weight));
        let weights = self.weights(&tokens, turns);
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

    /// `turns` are the weights of the assistant's turns; one without is history, as what others say.
    fn weights(&self, tokens: &[u32], mut turns: impl Iterator<Item = Option<f32>>) -> Vec<f32> {
        let Turn { assistant, middle, end } = self.turn;
        let TokenWeights { prompt, prompt_sample, first } = self.token_weights;
        let mut rng = Rng::numbered(tokens.len() as u64, tokens.iter().map(|&token| u64::from(token)).sum());
        let mut of_prompt = || match rng.uniform() < f64::from(prompt_sample) {
            true => prompt / prompt_sample,
            false => 0.0,
        };
        let (mut opened, mut speaking, mut begins) = (false, None, false);
        let weight = |&token: &u32| {
            let weight = match (speaking, std::mem::take(&mut begins)) {
                (Some(turn), true) => turn * first,
                (Some(turn), false) => turn,
                (None, _) => of_prompt(),
            };
            match token {
                _ if token == assistant => opened = true,
                _ if token == middle => {
                    speaking = if std::mem::take(&mut opened) { turns.next().flatten() } else { None };
                    begins = true;
                }
                _ if token == end => speaking = None,
                _ => {}
            }
            weight
        };
        tokens.iter().map(weight).collect()
    }
}

fn speaks(message: &Message) -> bool {
    message.role == Role::Assistant
}

/// The messages up to each answer, from the one before on, and what comes after the last.
fn answers(messages: &[Message]) -> Vec<Range<usize>> {
    let is_answer = |message: &Message| speaks(message) && message.calls().is_empty();
    let is_end = |end: &usize| *end == messages.len() || is_answer(&messages[end - 1]);
    let mut start = 0;
    let parts = (1..=messages.len()).filter(is_end).map(|end| std::mem::replace(&mut start, end)..end);
    parts.filter(|part| messages[part.clone()].iter().any(speaks)).collect()
}

/// Puts into each turn of the assistant, from number `known` on, what it thought.
fn think(rendered: &mut Rendered, known: usize, thoughts: Vec<&str>) {
    let turns: Vec<_> = rendered.turns.iter().skip(known).map(|turn| turn.start).zip(thoughts).collect();
    // The last first: what lies before stays where it is.
    for (start, thought) in turns.into_iter().rev() {
        let at = start + THINK[0].len();
        rendered.text.insert_str(at, thought);
        for marker in rendered.markers.iter_mut().filter(|marker| marker.start >= at) {
            *marker = marker.start + thought.len()..marker.end + thought.len();
        }
    }
}
