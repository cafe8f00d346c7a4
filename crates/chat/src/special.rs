//! Special tokens: the ids after the ranks, and where they stand in a text.
//!
//! The table comes from `added_tokens_decoder` in the checkpoint's tokenizer_config.json and is
//! never assumed: K2-Instruct, K2-Thinking and K2.5 share the ranks and differ here. Kimi's code
//! names every id without an entry `<|reserved_token_{id}|>` and such a name is a special token
//! too. `"special": false` (tool-call and thinking markers) means that the token's text stays in
//! the output when special tokens are skipped.

use std::collections::{BTreeMap, HashMap};

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Deserialize;

/// Kimi's `num_reserved_special_tokens`: how many ids follow the ranks.
pub const NUM_RESERVED: u32 = 256;

/// More special tokens than any tokenizer has; an id further beyond the ranks is a damaged file,
/// not a reason to make millions of reserved names.
pub const MAX_SPECIAL: u32 = 8192;
/// More bytes than any special token's spelling has.
pub const MAX_CONTENT_BYTES: usize = 512;

/// Ids at which every Kimi release ends a turn, by name: the end of the message, and two guards.
const END_OF_TURN: [&str; 3] = ["<|im_end|>", "[EOS]", "[EOT]"];

/// Markers that are text to a reader who skips special tokens, for files that do not say
/// (GGUF has one type for all control tokens).
const KEPT_AS_TEXT: [&str; 7] = [
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<think>",
    "</think>",
];

/// One special token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// How it is spelled.
    pub content: String,
    /// True if skipping special tokens removes its text.
    pub skipped: bool,
    /// False for the ids that only have a reserved name; a sampler should never choose these.
    pub named: bool,
}

/// Special tokens by id and by spelling.
pub struct SpecialTokens {
    by_id: BTreeMap<u32, Special>,
    by_content: HashMap<String, u32>,
    /// Pattern number → id, in the order the finder was built.
    ids: Vec<u32>,
    finder: AhoCorasick,
}

/// Why a special-token table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecialTokensError {
    /// The file is not JSON of the expected shape.
    #[error(
        "not a tokenizer_config.json: {0}; expected an object with `added_tokens_decoder`, an object like {{\"163586\": {{\"content\": \"<|im_end|>\", \"special\": true}}}}"
    )]
    Json(#[from] serde_json::Error),
    /// A key of the table is no id.
    #[error("`added_tokens_decoder` has the key {key:?}; keys are token ids, decimal numbers")]
    BadId {
        /// The key.
        key: String,
    },
    /// An id that the ranks already use.
    #[error("special token {content:?} has id {id}, but ids below {ranks} are ordinary tokens")]
    InsideRanks {
        /// The id.
        id: u32,
        /// Spelling of the token.
        content: String,
        /// Number of ordinary tokens.
        ranks: u32,
    },
    /// An id that the model has no row for.
    #[error(
        "special token {content:?} has id {id}, but the model has only {vocab_size} rows (`vocab_size`), ids below that"
    )]
    BeyondModel {
        /// The id.
        id: u32,
        /// Spelling of the token.
        content: String,
        /// `vocab_size` of config.json.
        vocab_size: u32,
    },
    /// An id too far beyond the ranks.
    #[error("special token {content:?} has id {id}, {} ids after the {ranks} ordinary tokens; at most {MAX_SPECIAL} are accepted", id - ranks)]
    TooFar {
        /// The id.
        id: u32,
        /// Spelling of the token.
        content: String,
        /// Number of ordinary tokens.
        ranks: u32,
    },
    /// Too many tokens.
    #[error("{count} special tokens; at most {MAX_SPECIAL} are accepted")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A token without text, or with too much.
    #[error("special token {id} is spelled with {bytes} bytes; expected 1 to {MAX_CONTENT_BYTES}")]
    ContentLength {
        /// The id.
        id: u32,
        /// Length of `content`.
        bytes: usize,
    },
    /// Two ids with one spelling.
    #[error("special tokens {first} and {second} are both spelled {content:?}")]
    Duplicate {
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
        /// Their spelling.
        content: String,
    },
    /// The search automaton could not be built.
    #[error("special tokens cannot be searched for: {0}")]
    Search(#[from] aho_corasick::BuildError),
}

/// The part of tokenizer_config.json that is read.
#[derive(Deserialize)]
struct TokenizerConfig {
    added_tokens_decoder: BTreeMap<String, AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
}

impl SpecialTokens {
    /// Reads tokenizer_config.json. `ranks` is the number of ordinary tokens, `vocab_size` that of
    /// config.json where one is at hand.
    ///
    /// Ids run to the highest entry, or to Kimi's `ranks + 256` where the model has rows for them,
    /// and those without an entry get their reserved names. No id reaches `vocab_size`: the first
    /// 0711 tokenizer named two ids past the embedding.
    pub fn from_config(json: &[u8], ranks: u32, vocab_size: Option<u32>) -> Result<Self, SpecialTokensError> {
        let config: TokenizerConfig = serde_json::from_slice(json)?;
        let mut by_id = BTreeMap::new();
        for (key, token) in config.added_tokens_decoder {
            let Ok(id) = key.parse::<u32>() else { return Err(SpecialTokensError::BadId { key }) };
            let content = token.content;
            match vocab_size {
                _ if id < ranks => return Err(SpecialTokensError::InsideRanks { id, content, ranks }),
                _ if id - ranks >= MAX_SPECIAL => {
                    return Err(SpecialTokensError::TooFar { id, content, ranks });
                }
                Some(vocab_size) if id >= vocab_size => {
                    return Err(SpecialTokensError::BeyondModel { id, content, vocab_size });
                }
                _ => by_id.insert(id, Special { content, skipped: token.special, named: true }),
            };
        }
        let highest = by_id.last_key_value().map_or(ranks, |(&id, _)| id + 1);
        let end =
            vocab_size.map_or(highest, |rows| highest.max(rows.min(ranks.saturating_add(NUM_RESERVED))));
        for id in ranks..end {
            by_id.entry(id).or_insert_with(|| reserved(id));
        }
        Self::new(by_id)
    }

    /// A table from the control tokens of a GGUF vocabulary, which do not say whether skipping
    /// removes them: the tool-call and thinking markers stay, as in the official tables.
    pub fn from_control_tokens(
        tokens: impl IntoIterator<Item = (u32, String)>,
    ) -> Result<Self, SpecialTokensError> {
        let special = |(id, content): (u32, String)| {
            let skipped = !KEPT_AS_TEXT.contains(&content.as_str());
            let named = content != reserved_name(id);
            (id, Special { content, skipped, named })
        };
        Self::new(tokens.into_iter().map(special).collect())
    }

    fn new(by_id: BTreeMap<u32, Special>) -> Result<Self, SpecialTokensError> {
        if by_id.len() > MAX_SPECIAL as usize {
            return Err(SpecialTokensError::TooMany { count: by_id.len() });
        }
        let mut by_content = HashMap::with_capacity(by_id.len());
        for (&id, Special { content, .. }) in &by_id {
            if !(1..=MAX_CONTENT_BYTES).contains(&content.len()) {
                return Err(SpecialTokensError::ContentLength { id, bytes: content.len() });
            }
            if let Some(first) = by_content.insert(content.clone(), id) {
                return Err(SpecialTokensError::Duplicate { first, second: id, content: content.clone() });
            }
        }
        // Where one spelling begins another, the longer one is meant.
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(by_id.values().map(|special| &special.content))?;
        Ok(Self { ids: by_id.keys().copied().collect(), by_id, by_content, finder })
    }

    /// The special token with this id.
    pub fn get(&self, id: u32) -> Option<&Special> {
        self.by_id.get(&id)
    }

    /// The id of the special token spelled like this.
    pub fn id(&self, content: &str) -> Option<u32> {
        self.by_content.get(content).copied()
    }

    /// All special tokens by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Special)> {
        self.by_id.iter().map(|(&id, special)| (id, special))
    }

    /// One more than the highest id, 0 for an empty table.
    pub fn end(&self) -> u32 {
        self.by_id.last_key_value().map_or(0, |(&id, _)| id + 1)
    }

    /// Ids that end a turn by their name, where this table has them.
    pub fn end_of_turn(&self) -> impl Iterator<Item = u32> {
        END_OF_TURN.into_iter().filter_map(|name| self.id(name))
    }

    /// The special tokens spelled in `text`, from the left: start, end and id of each.
    pub fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize, u32)> + 'a {
        self.finder
            .find_iter(text)
            .map(|found| (found.start(), found.end(), self.ids[found.pattern().as_usize()]))
    }
}

/// What Kimi's code calls an id without a name.
pub fn reserved_name(id: u32) -> String {
    format!("<|reserved_token_{id}|>")
}

fn reserved(id: u32) -> Special {
    Special { content: reserved_name(id), skipped: true, named: false }
}
