//! What a continuation prints, and what is kept of it.

use std::error::Error;
use std::io::{self, Write};

use k2_chat::{Detokenizer, StopMatcher, Tokenizer};
use k2_engine::{Event, Events, FinishReason};

use super::ended::Ended;

/// What has come so far.
#[derive(Default)]
pub(super) struct Output {
    /// Whether it is printed as it comes.
    streams: bool,
    pub(super) ids: Vec<u32>,
    /// Little-endian f32.
    pub(super) logits: Vec<u8>,
    /// None: ids are printed.
    pub(super) text: Option<TextOutput>,
}

/// Tokens on their way to text.
pub(super) struct TextOutput {
    pub(super) tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    pub(super) text: String,
}

impl Output {
    pub(super) fn new(streams: bool, text: Option<TextOutput>) -> Output {
        Output { streams, text, ..Output::default() }
    }

    /// Takes all events of a request.
    pub(super) fn take(&mut self, mut events: Events) -> Result<Ended, Box<dyn Error>> {
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Prefill { .. } | Event::PromptLogprobs { .. } => {}
                Event::PromptLogits { rows, .. } => {
                    self.logits.extend(rows.iter().flat_map(|logit| logit.to_le_bytes()));
                }
                // More tokens may be on their way when a stop string has been seen.
                Event::Token { .. } if self.stopped() => {}
                Event::Token { id, .. } => {
                    self.token(id)?;
                    if self.stopped() {
                        events.canceller().cancel();
                    }
                }
                Event::Finished { reason, usage, timings } => {
                    self.end()?;
                    return Ok(Ended { reason: self.reason(reason)?, usage, timings });
                }
            }
        }
        Err("the engine stopped in the middle of an answer".into())
    }

    fn stopped(&self) -> bool {
        self.text.as_ref().is_some_and(|text| text.stop.stopped())
    }

    fn reason(&self, reason: FinishReason) -> Result<&'static str, String> {
        match reason {
            FinishReason::Failed(why) => Err(why),
            _ if self.stopped() => Ok("stop"),
            FinishReason::Stop(_) => Ok("stop"),
            FinishReason::Length => Ok("length"),
            FinishReason::Cancelled => Ok("cancelled"),
        }
    }

    fn token(&mut self, id: u32) -> Result<(), Box<dyn Error>> {
        self.ids.push(id);
        let piece = match self.text.as_mut() {
            Some(text) => {
                let piece = text.detokenizer.push(&text.tokenizer, id)?;
                text.add(|stop| stop.push(&piece))
            }
            None if self.ids.len() == 1 => id.to_string(),
            None => format!(",{id}"),
        };
        self.show(&piece)
    }

    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        if let Some(text) = self.text.as_mut() {
            let tail = text.detokenizer.finish();
            let piece = text.add(|stop| stop.push(&tail) + &stop.finish());
            self.show(&piece)?;
        }
        self.show("\n")
    }

    fn show(&self, piece: &str) -> Result<(), Box<dyn Error>> {
        if self.streams {
            let mut output = io::stdout().lock();
            output.write_all(piece.as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }
}

impl TextOutput {
    pub(super) fn new(tokenizer: Tokenizer, stop: StopMatcher) -> TextOutput {
        TextOutput { tokenizer, detokenizer: Detokenizer::new(), stop, text: String::new() }
    }

    /// Adds what the stop strings let through, and gives it back.
    fn add(&mut self, through: impl FnOnce(&mut StopMatcher) -> String) -> String {
        let piece = through(&mut self.stop);
        self.text.push_str(&piece);
        piece
    }
}
