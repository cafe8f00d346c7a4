//! Cutting a text into the pieces that byte-pair encoding works on.
//!
//! The published patterns end in `\s+(?!\S)|\s+`. The look-ahead keeps them out of linear-time
//! regex engines, so these two alternatives are hand code here and the rest of the pattern is
//! matched by `regex-automata`, anchored where the last piece ended. The tests compare the result
//! with the whole published pattern in a backtracking engine.
//!
//! The look-ahead sees the end of the segment, so the caller cuts at special tokens first.

use regex_automata::{Anchored, Input, meta::Regex};

/// A pre-tokeniser known by the name GGUF files use for it (`tokenizer.ggml.pre`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every Kimi K2, K2.5, Kimi-VL and Moonlight tokenizer (`pat_str` in tokenization_kimi.py).
    KimiK2,
    /// GPT-2's, also the one of plain byte-level vocabularies.
    Gpt2,
}

impl Pattern {
    /// All patterns, for messages.
    pub const ALL: [Self; 2] = [Self::KimiK2, Self::Gpt2];

    /// The name in GGUF metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::KimiK2 => "kimi-k2",
            Self::Gpt2 => "gpt-2",
        }
    }

    /// The pattern with this GGUF name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pattern| pattern.name() == name)
    }

    /// The published pattern without its last two alternatives, [`WHITE_SPACE`].
    pub fn head(self) -> &'static str {
        match self {
            Self::KimiK2 => KIMI_K2,
            Self::Gpt2 => GPT_2,
        }
    }
}

/// One alternative per line; `(?x)` lets the pattern be written that way.
const KIMI_K2: &str = r"(?x)
    [\p{Han}]+
  | [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
  | [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
  | \p{N}{1,3}
  | \x20?[^\s\p{L}\p{N}]+[\r\n]*
  | \s*[\r\n]+";

const GPT_2: &str = r"(?x)
    's|'t|'re|'ve|'m|'ll|'d
  | \x20?\p{L}+
  | \x20?\p{N}+
  | \x20?[^\s\p{L}\p{N}]+";

/// What follows the head in the published patterns.
pub const WHITE_SPACE: &str = r"|\s+(?!\S)|\s+";

/// A compiled pattern.
pub struct PreTokenizer {
    head: Regex,
}

impl PreTokenizer {
    /// Compiles `pattern`; takes a few milliseconds.
    pub fn new(pattern: Pattern) -> Result<Self, Box<regex_automata::meta::BuildError>> {
        Ok(Self { head: Regex::new(pattern.head()).map_err(Box::new)? })
    }

    /// Calls `visit` with each piece of `segment`, in order; together they are `segment`.
    #[inline]
    pub fn pieces<'s>(&self, segment: &'s str, mut visit: impl FnMut(&'s str)) {
        let mut at = 0;
        while at < segment.len() {
            let input = Input::new(segment).range(at..).anchored(Anchored::Yes);
            let end = match self.head.search_half(&input) {
                Some(found) => found.offset(),
                None => at + white_space(&segment[at..]),
            };
            visit(&segment[at..end]);
            at = end;
        }
    }
}

/// Length of what `\s+(?!\S)|\s+` matches at the head of `rest`: a run of white space that leaves
/// its last character to the word that follows, unless it is the only one or nothing follows.
fn white_space(rest: &str) -> usize {
    let run = rest.len() - rest.trim_start().len();
    let last = rest[..run].chars().next_back().map_or(0, char::len_utf8);
    match run {
        // No alternative of the published patterns takes this character; it is a piece of its own.
        0 => rest.chars().next().map_or(rest.len(), char::len_utf8),
        _ if run == rest.len() || run == last => run,
        _ => run - last,
    }
}
