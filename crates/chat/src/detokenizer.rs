//! Token bytes to text as they come, one token at a time.
//!
//! A token may end inside a UTF-8 sequence. What could still become a character is held back;
//! what cannot is replaced at once, one U+FFFD per maximal subpart (the Unicode Standard, section
//! 3.9), as Python's `errors="replace"` and [`String::from_utf8_lossy`] do. So all chunks together
//! are the text that decoding everything at once gives.

use crate::tokenizer::{Tokenizer, UnknownToken};

/// Turns a stream of tokens into a stream of text.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// Head of a UTF-8 sequence, at most 3 bytes between calls.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// A detokenizer at the start of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text that token `id` completes; may be empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, UnknownToken> {
        Ok(self.push_bytes(tokenizer.token_bytes(id)?))
    }

    /// The text that these bytes complete; may be empty.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = used + invalid.len() == self.pending.len();
            if invalid.is_empty() || (at_end && is_head(invalid)) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.pending.drain(..used);
        text
    }

    /// The end of the text: what was held back comes out as U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// True if more bytes could make this a character.
fn is_head(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
