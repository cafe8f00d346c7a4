//! The rank file `tiktoken.model`: one ordinary token per line, base64 of its bytes, a blank, its
//! rank (github.com/openai/tiktoken, `load_tiktoken_bpe`). Kimi's has 163,584 lines, ranks counting
//! up from 0 without gaps, every single byte among them. The same is asked of any other file; what
//! is wrong with a line is said with its number.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::vocabulary::Vocabulary;

/// More lines than any vocabulary has.
pub const MAX_TOKENS: usize = 1 << 20;
/// More bytes than any token has; Kimi's longest is 256.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// Why a rank file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RankFileError {
    /// A line without the two fields.
    #[error(
        "line {line} is {text:?}; expected the base64 of a token's bytes, one blank and its rank, like \"IQ== 0\""
    )]
    NotTwoFields {
        /// Line number from 1.
        line: usize,
        /// Head of the line.
        text: String,
    },
    /// The first field does not decode.
    #[error(
        "line {line}: {text:?} is not base64 ({source}); expected something like \"IQ==\" for the byte 0x21"
    )]
    NotBase64 {
        /// Line number from 1.
        line: usize,
        /// Head of the field.
        text: String,
        /// What the decoder said.
        source: base64::DecodeError,
    },
    /// A token without bytes.
    #[error("line {line}: the token has no bytes; every token has at least one")]
    EmptyToken {
        /// Line number from 1.
        line: usize,
    },
    /// A token that is too long.
    #[error("line {line}: the token has {bytes} bytes; at most {MAX_TOKEN_BYTES} are accepted")]
    LongToken {
        /// Line number from 1.
        line: usize,
        /// Length of the token.
        bytes: usize,
    },
    /// A rank that is not the next one.
    #[error("line {line}: rank {found:?} where {expected} is due; ranks count up from 0 without gaps")]
    WrongRank {
        /// Line number from 1.
        line: usize,
        /// The second field.
        found: String,
        /// The rank that should stand there.
        expected: u32,
    },
    /// The same token twice.
    #[error("line {line}: the token of rank {first} again; every token stands there once")]
    Duplicate {
        /// Line number from 1.
        line: usize,
        /// Rank of the first.
        first: u32,
    },
    /// Too many lines.
    #[error("line {line}: more than {MAX_TOKENS} tokens")]
    TooManyTokens {
        /// Line number from 1.
        line: usize,
    },
    /// A byte that no text with it could be encoded without.
    #[error("{tokens} tokens and none is the single byte 0x{byte:02x}; all 256 bytes must be tokens")]
    MissingByte {
        /// The byte.
        byte: u8,
        /// Number of tokens read.
        tokens: u32,
    },
}

/// Reads the text of a rank file.
pub fn parse(file: &[u8]) -> Result<Vocabulary, RankFileError> {
    // A line has 8 bytes at the least ("IQ== 0\n"), most have 17.
    let mut vocabulary = Vocabulary::with_capacity((file.len() / 16).min(MAX_TOKENS));
    let mut token = Vec::new();
    for (number, line) in file.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            parse_line(line, number + 1, &mut token, &mut vocabulary)?;
        }
    }
    match vocabulary.missing_byte() {
        Some(byte) => Err(RankFileError::MissingByte { byte, tokens: vocabulary.len() }),
        None => Ok(vocabulary),
    }
}

fn parse_line(
    text: &[u8],
    line: usize,
    token: &mut Vec<u8>,
    vocabulary: &mut Vocabulary,
) -> Result<(), RankFileError> {
    let expected = vocabulary.len();
    if expected as usize >= MAX_TOKENS {
        return Err(RankFileError::TooManyTokens { line });
    }
    let Some(blank) = text.iter().position(|&byte| byte == b' ') else {
        return Err(RankFileError::NotTwoFields { line, text: head(text) });
    };
    let (base64, rank) = (&text[..blank], &text[blank + 1..]);
    token.clear();
    BASE64_STANDARD.decode_vec(base64, token).map_err(|source| RankFileError::NotBase64 {
        line,
        text: head(base64),
        source,
    })?;
    if std::str::from_utf8(rank).ok().and_then(|rank| rank.parse().ok()) != Some(expected) {
        return Err(RankFileError::WrongRank { line, found: head(rank), expected });
    }
    match token.len() {
        0 => Err(RankFileError::EmptyToken { line }),
        bytes if bytes > MAX_TOKEN_BYTES => Err(RankFileError::LongToken { line, bytes }),
        _ => vocabulary.push(token).map_err(|first| RankFileError::Duplicate { line, first }),
    }
}

/// Enough of a damaged line to recognise it.
fn head(text: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = String::from_utf8_lossy(&text[..text.len().min(SHOWN * 4)]).into_owned();
    if text.chars().count() > SHOWN { text.chars().take(SHOWN).chain(['…']).collect() } else { text }
}
