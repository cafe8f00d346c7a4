//! Byte-pair encoding learned from text, and written as the files Kimi K2 keeps its tokenizer in.
//!
//! Merges are learned as usual (Sennrich et al., arXiv 1508.07909) over the pieces of K2's own pre-tokenizer,
//! with one restriction that is made for small models that copy: **a token consists of one kind of characters**.
//!
//! - One digit is one token. A number is copied digit by digit, whatever its length.
//! - A blank, quote or underscore never joins the letters behind it, so a name has the same tokens after a blank
//!   in the question, after a quote in JSON and after a comma in the answer. What gives the next token from an
//!   earlier occurrence (an induction head) compares token ids; with ` Lisbon` and `"Lis|bon` it would first have
//!   to learn for every token which others spell the same.
//! - Operators stay alone, because `318 * 42` is copied as `318*42`. Only the marks of JSON's structure join
//!   (`":{"`).
//!
//! The price is a token for each blank. It is paid back for frequent words: the most frequent lower-case words
//! get a second token with the blank in front. These have the last ranks, so they are made after all other
//! merges and never tear a word apart that only begins like one of them.

mod files;
mod merges;

pub use files::{SPECIALS, write};

use k2_chat::pre_tokenizer::{Pattern, PreTokenizer};
use k2_chat::render::RenderError;
use k2_chat::{RenderOptions, Template, render};
use std::collections::HashMap;
use std::path::PathBuf;

use crate::dialogues::{Generator, Scope};

/// How large the vocabulary becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Ordinary tokens: 256 bytes and what is merged from them.
    pub ranks: usize,
    /// How many of them are a frequent word with a blank in front.
    pub blank_words: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { ranks: 4096 - RESERVED, blank_words: 256 }
    }
}

/// Ids that follow the ranks, as in Kimi's tokenizers.
pub const RESERVED: usize = k2_chat::special::NUM_RESERVED as usize;

/// Why there is no new tokenizer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum BpeError {
    /// Too few tokens asked for.
    #[error("{ranks} tokens with {blank_words} blank words; the 256 bytes and those words need at least {}", 256 + 2 * blank_words)]
    TooFew { ranks: usize, blank_words: usize },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    /// A file could not be written.
    #[error(transparent)]
    Weights(#[from] k2_weights::WeightsError),
    /// A dialogue could not be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The pre-tokenizer did not compile.
    #[error("pre-tokenizer: {0}")]
    Pattern(String),
}

/// Counts the pieces of texts and learns tokens from them.
pub struct Trainer {
    pre_tokenizer: PreTokenizer,
    pieces: HashMap<String, u64>,
}

impl Trainer {
    /// A trainer that has seen no text.
    pub fn new() -> Result<Trainer, BpeError> {
        let pre_tokenizer =
            PreTokenizer::new(Pattern::KimiK2).map_err(|error| BpeError::Pattern(error.to_string()))?;
        Ok(Trainer { pre_tokenizer, pieces: HashMap::new() })
    }

    /// Counts a text's pieces.
    pub fn add(&mut self, text: &str) {
        let pieces = &mut self.pieces;
        self.pre_tokenizer.pieces(text, |piece| match pieces.get_mut(piece) {
            Some(count) => *count += 1,
            None => drop(pieces.insert(piece.to_owned(), 1)),
        });
    }

    /// Counts the pieces of the first dialogues of training, as the turn format prints them: what stands between
    /// control tokens, which are no text.
    pub fn add_dialogues(&mut self, generator: &Generator, count: u64) -> Result<(), BpeError> {
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
        for index in 0..count {
            let dialogue = generator.dialogue(Scope::TRAINING, index);
            let rendered = render(Template::K2Instruct, &dialogue.messages(), &dialogue.tools, options)?;
            let ends = rendered.markers.iter().map(|marker| marker.start).chain([rendered.text.len()]);
            let starts = std::iter::once(0).chain(rendered.markers.iter().map(|marker| marker.end));
            starts.zip(ends).for_each(|(start, end)| self.add(&rendered.text[start..end]));
        }
        Ok(())
    }

    /// The tokens by rank. There are fewer than asked for if the texts have no more that occur twice.
    pub fn train(&self, sizes: Sizes) -> Result<Vec<Vec<u8>>, BpeError> {
        let Sizes { ranks, blank_words } = sizes;
        if ranks < 256 + 2 * blank_words {
            return Err(BpeError::TooFew { ranks, blank_words });
        }
        // In a fixed order, whatever the hash table's.
        let mut pieces: Vec<(&str, u64)> =
            self.pieces.iter().map(|(piece, count)| (piece.as_str(), *count)).collect();
        pieces.sort_unstable();
        let mut tokens = merges::learn(&pieces, ranks - blank_words);
        tokens.extend(frequent_with_blank(&pieces, &tokens, blank_words));
        Ok(tokens)
    }
}

/// The most frequent ` word` and ` "` whose second part is a token.
fn frequent_with_blank(pieces: &[(&str, u64)], tokens: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let known: std::collections::HashSet<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
    let eligible = |piece: &str| {
        piece.strip_prefix(' ').is_some_and(|word| {
            let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            (is_word || word == "\"") && known.contains(word.as_bytes())
        })
    };
    let mut found: Vec<(u64, &str)> =
        pieces.iter().filter(|(piece, _)| eligible(piece)).map(|(piece, count)| (*count, *piece)).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().take(count).map(|(_, piece)| piece.as_bytes().to_vec()).collect()
}
