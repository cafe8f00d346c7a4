//! The tokenizer of a GGUF file (keys `tokenizer.ggml.*`, github.com/ggml-org/ggml `docs/gguf.md`).
//!
//! Converters write the ordinary tokens in GPT-2's byte alphabet, one printable character per
//! byte, and add the list of merges that llama.cpp works by. Here the ranks are read back from the
//! token order, which is what the official tokenizer uses, so the ids are the official ones. The
//! merges are only checked: they must build tokens in id order, otherwise the ids are no ranks.

use crate::{
    pre_tokenizer::Pattern,
    special::{SpecialTokens, SpecialTokensError, reserved_name},
    tiktoken::{MAX_TOKEN_BYTES, MAX_TOKENS},
    vocabulary::Vocabulary,
};

/// The tokenizer metadata of a GGUF file, borrowed from whoever read it.
#[derive(Clone, Copy, Debug)]
pub struct GgufTokens<'a> {
    /// `tokenizer.ggml.model`, the kind of vocabulary; "gpt2" is byte-level BPE.
    pub model: &'a str,
    /// `tokenizer.ggml.pre`, the name of the pre-tokeniser.
    pub pre: &'a str,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: &'a [String],
    /// `tokenizer.ggml.token_type`, by id.
    pub token_types: &'a [i32],
    /// `tokenizer.ggml.merges`, "left right" each; may be empty.
    pub merges: &'a [String],
}

/// Why the tokenizer of a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufVocabularyError {
    /// Another kind of vocabulary.
    #[error("tokenizer.ggml.model is {model:?}; only \"gpt2\" (byte-level BPE) is supported")]
    Model {
        /// What the file says.
        model: String,
    },
    /// Another pre-tokeniser.
    #[error("tokenizer.ggml.pre is {pre:?}; supported are {}", Pattern::ALL.map(Pattern::name).join(", "))]
    Pre {
        /// What the file says.
        pre: String,
    },
    /// The two arrays do not belong together.
    #[error(
        "tokenizer.ggml.tokens has {tokens} entries and tokenizer.ggml.token_type {types}; they must be equally many"
    )]
    Lengths {
        /// Entries of `tokens`.
        tokens: usize,
        /// Entries of `token_type`.
        types: usize,
    },
    /// Too many tokens.
    #[error("tokenizer.ggml.tokens has {tokens} entries; at most {MAX_TOKENS} are accepted")]
    TooManyTokens {
        /// Entries of `tokens`.
        tokens: usize,
    },
    /// A token type outside the specification.
    #[error(
        "token {id} has type {found}; the types are 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte"
    )]
    TokenType {
        /// The id.
        id: usize,
        /// What the file says.
        found: i32,
    },
    /// An ordinary token with a character that stands for no byte.
    #[error(
        "token {id} is {token:?}; {character:?} is not in GPT-2's byte alphabet (a blank is 'Ġ', a line break 'Ċ')"
    )]
    NotByteAlphabet {
        /// The id.
        id: usize,
        /// The token.
        token: String,
        /// The character.
        character: char,
    },
    /// An ordinary token that is empty or too long.
    #[error("token {id} has {bytes} bytes; an ordinary token has 1 to {MAX_TOKEN_BYTES}")]
    TokenLength {
        /// The id.
        id: usize,
        /// Its length.
        bytes: usize,
    },
    /// The same token twice.
    #[error("tokens {first} and {second} are both {token:?}")]
    Duplicate {
        /// The lower id.
        first: u32,
        /// The higher id.
        second: usize,
        /// The token as written.
        token: String,
    },
    /// A byte without a token.
    #[error("no ordinary token is the single byte 0x{byte:02x}; all 256 bytes must be tokens")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A merge that does not make a token of the vocabulary.
    #[error(
        "merge {index} is {merge:?}; expected two tokens in GPT-2's byte alphabet with one blank between, which together are a token"
    )]
    Merge {
        /// Position in `merges`.
        index: usize,
        /// The merge as written.
        merge: String,
    },
    /// Merges in another order than the ids.
    #[error(
        "merge {index} makes token {id} after a merge that made token {after}; a vocabulary whose ids do not follow its merges is not supported"
    )]
    MergeOrder {
        /// Position in `merges`.
        index: usize,
        /// The token it makes.
        id: u32,
        /// The token the merge before made.
        after: u32,
    },
    /// The control tokens cannot be used.
    #[error(transparent)]
    Special(#[from] SpecialTokensError),
}

/// What the metadata holds: ordinary tokens, special tokens, pattern.
pub fn read(gguf: GgufTokens<'_>) -> Result<(Vocabulary, SpecialTokens, Pattern), GgufVocabularyError> {
    if gguf.model != "gpt2" {
        return Err(GgufVocabularyError::Model { model: gguf.model.to_owned() });
    }
    let pattern =
        Pattern::from_name(gguf.pre).ok_or_else(|| GgufVocabularyError::Pre { pre: gguf.pre.to_owned() })?;
    let (tokens, types) = (gguf.tokens.len(), gguf.token_types.len());
    if tokens != types {
        return Err(GgufVocabularyError::Lengths { tokens, types });
    }
    if tokens > MAX_TOKENS {
        return Err(GgufVocabularyError::TooManyTokens { tokens });
    }
    let (vocabulary, control) = read_tokens(gguf)?;
    if let Some(byte) = vocabulary.missing_byte() {
        return Err(GgufVocabularyError::MissingByte { byte });
    }
    check_merges(gguf.merges, &vocabulary)?;
    Ok((vocabulary, SpecialTokens::from_control_tokens(control)?, pattern))
}

/// `llama_token_type` of llama.cpp.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

fn read_tokens(gguf: GgufTokens<'_>) -> Result<(Vocabulary, Vec<(u32, String)>), GgufVocabularyError> {
    let mut vocabulary = Vocabulary::with_capacity(gguf.tokens.len());
    let mut control = Vec::new();
    let mut bytes = Vec::new();
    for (id, (token, &token_type)) in gguf.tokens.iter().zip(gguf.token_types).enumerate() {
        bytes.clear();
        match token_type {
            NORMAL | BYTE => {
                to_bytes(token, &mut bytes).map_err(|character| GgufVocabularyError::NotByteAlphabet {
                    id,
                    token: token.clone(),
                    character,
                })?;
                if !(1..=MAX_TOKEN_BYTES).contains(&bytes.len()) {
                    return Err(GgufVocabularyError::TokenLength { id, bytes: bytes.len() });
                }
            }
            UNKNOWN | CONTROL | USER_DEFINED => control.push((id as u32, token.clone())),
            // "[PAD163600]" is a converter's filler; the official name of such an id is reserved.
            UNUSED => control.push((id as u32, reserved_name(id as u32))),
            found => return Err(GgufVocabularyError::TokenType { id, found }),
        }
        vocabulary.push(&bytes).map_err(|first| GgufVocabularyError::Duplicate {
            first,
            second: id,
            token: token.clone(),
        })?;
    }
    Ok((vocabulary, control))
}

fn check_merges(merges: &[String], vocabulary: &Vocabulary) -> Result<(), GgufVocabularyError> {
    let mut after = None;
    let mut bytes = Vec::new();
    for (index, merge) in merges.iter().enumerate() {
        bytes.clear();
        let made = merge.split_once(' ').and_then(|(left, right)| {
            to_bytes(left, &mut bytes).ok()?;
            to_bytes(right, &mut bytes).ok()?;
            vocabulary.id(&bytes)
        });
        let Some(id) = made else {
            return Err(GgufVocabularyError::Merge { index, merge: merge.clone() });
        };
        match after {
            // Equal ids are two ways to make one token.
            Some(after) if id < after => return Err(GgufVocabularyError::MergeOrder { index, id, after }),
            _ => after = Some(id),
        }
    }
    Ok(())
}

/// Appends the bytes that a token in GPT-2's alphabet stands for, or says which character stands
/// for none.
fn to_bytes(token: &str, bytes: &mut Vec<u8>) -> Result<(), char> {
    for character in token.chars() {
        bytes.push(byte_of(character).ok_or(character)?);
    }
    Ok(())
}

/// GPT-2's `bytes_to_unicode` backwards. Printable Latin-1 characters stand for themselves; the 68
/// other bytes were given the characters from U+0100 on, in order.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8), // 0x00..=0x20
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8), // 0x7f..=0xa0
        0x143 => Some(0xad),
        _ => None,
    }
}
