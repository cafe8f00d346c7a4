//! Text ↔ token ids.
//!
//! A tokenizer is ordinary tokens, special tokens and a pre-tokeniser. It is read from the files of
//! a checkpoint (`tiktoken.model`, `tokenizer_config.json`) or from GGUF metadata; the code that
//! ships with checkpoints (tokenization_kimi.py) is what it has to agree with, id for id.

use std::{
    fs::{self, File},
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    byte_pair::BytePairEncoder,
    gguf_vocabulary::{self, GgufTokens, GgufVocabularyError},
    long_text,
    pre_tokenizer::{Pattern, PreTokenizer},
    special::{SpecialTokens, SpecialTokensError},
    tiktoken::{self, RankFileError},
    vocabulary::Vocabulary,
};

/// The rank file of a checkpoint.
pub const RANK_FILE: &str = "tiktoken.model";
/// The file with the special tokens.
pub const CONFIG_FILE: &str = "tokenizer_config.json";
/// No tokenizer file is larger; Kimi's rank file has 2.8 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Text to ids and back.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    specials: SpecialTokens,
    pre_tokenizer: PreTokenizer,
    n_vocab: u32,
}

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is missing or unreadable.
    #[error("{}: {source}; a tokenizer folder holds {RANK_FILE} and {CONFIG_FILE}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// What has the file's name.
        path: PathBuf,
    },
    /// A file is too large to be what its name says.
    #[error("{}: more than the {MAX_FILE_BYTES} bytes that are accepted", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The rank file is damaged.
    #[error("{}: {source}", path.display())]
    RankFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RankFileError,
    },
    /// The special tokens cannot be used.
    #[error("{}: {source}", path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SpecialTokensError,
    },
    /// The model has fewer rows than there are ordinary tokens.
    #[error("{} has {ranks} tokens, but the model has only {vocab_size} rows (`vocab_size` of config.json)", path.display())]
    VocabSize {
        /// The rank file.
        path: PathBuf,
        /// Tokens in it.
        ranks: u32,
        /// `vocab_size`.
        vocab_size: u32,
    },
    /// The metadata of a GGUF file cannot be used.
    #[error(transparent)]
    Gguf(#[from] GgufVocabularyError),
    /// The pre-tokeniser did not compile.
    #[error("pre-tokenizer: {0}")]
    Pattern(#[from] Box<regex_automata::meta::BuildError>),
}

/// An id that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token id {id} is not in the vocabulary; ids are 0 to {}", n_vocab.saturating_sub(1))]
pub struct UnknownToken {
    /// The id.
    pub id: u32,
    /// Number of ids.
    pub n_vocab: u32,
}

impl Tokenizer {
    /// Reads `tiktoken.model` and `tokenizer_config.json` of a checkpoint folder; where it has a
    /// `config.json` too, no id will reach that model's `vocab_size`.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join(RANK_FILE);
        let vocabulary = match tiktoken::parse(&read(&path)?) {
            Ok(vocabulary) => vocabulary,
            Err(source) => return Err(TokenizerError::RankFile { path, source }),
        };
        let (ranks, vocab_size) = (vocabulary.len(), vocab_size(dir));
        if let Some(vocab_size) = vocab_size.filter(|&rows| rows < ranks) {
            return Err(TokenizerError::VocabSize { path, ranks, vocab_size });
        }
        let path = dir.join(CONFIG_FILE);
        match SpecialTokens::from_config(&read(&path)?, ranks, vocab_size) {
            Ok(specials) => Self::new(vocabulary, specials, Pattern::KimiK2),
            Err(source) => Err(TokenizerError::Special { path, source }),
        }
    }

    /// A tokenizer from the metadata of a GGUF file.
    pub fn from_gguf(gguf: GgufTokens<'_>) -> Result<Self, TokenizerError> {
        let (vocabulary, specials, pattern) = gguf_vocabulary::read(gguf)?;
        Self::new(vocabulary, specials, pattern)
    }

    /// A tokenizer from its parts.
    pub fn new(
        vocabulary: Vocabulary,
        specials: SpecialTokens,
        pattern: Pattern,
    ) -> Result<Self, TokenizerError> {
        let n_vocab = vocabulary.len().max(specials.end());
        Ok(Self { vocabulary, specials, pre_tokenizer: PreTokenizer::new(pattern)?, n_vocab })
    }

    /// Number of ids; every id that encoding gives is below.
    pub fn n_vocab(&self) -> u32 {
        self.n_vocab
    }

    /// Number of ordinary tokens, whose ids come before those of the special ones.
    pub fn ranks(&self) -> u32 {
        self.vocabulary.len()
    }

    /// The special tokens.
    pub fn specials(&self) -> &SpecialTokens {
        &self.specials
    }

    /// The ids of `text`. With `allow_special`, special tokens spelled in the text become their ids;
    /// without, they are text like any other. Nothing is added before or after.
    pub fn encode(&self, text: &str, allow_special: bool) -> Vec<u32> {
        let mut encoder = SegmentEncoder::new(self, text.len());
        for part in long_text::split(text) {
            let mut at = 0;
            if allow_special {
                for (start, end, id) in self.specials.find(part) {
                    encoder.ordinary(&part[at..start]);
                    encoder.ids.push(id);
                    at = end;
                }
            }
            encoder.ordinary(&part[at..]);
        }
        encoder.ids
    }

    /// The ids of `text` in which exactly the ranges `markers` (in order, apart from each other) are
    /// special tokens and all else is ordinary text, whatever it spells. A marker that this
    /// vocabulary does not have is ordinary text too.
    pub fn encode_marked(&self, text: &str, markers: &[Range<usize>]) -> Vec<u32> {
        let mut encoder = SegmentEncoder::new(self, text.len());
        let mut markers = markers
            .iter()
            .filter_map(|range| Some((range.clone(), self.specials.id(text.get(range.clone())?)?)));
        let mut marker = markers.next();
        let (mut at, mut end) = (0, 0);
        for part in long_text::split(text) {
            end += part.len();
            while let Some((range, id)) = marker.clone().filter(|(range, _)| range.start < end) {
                encoder.ordinary(text.get(at..range.start).unwrap_or_default());
                encoder.ids.push(id);
                at = range.end;
                marker = markers.next();
            }
            // A marker across the cut stays whole here; `at` may then be past `end`.
            encoder.ordinary(text.get(at..end).unwrap_or_default());
            at = at.max(end);
        }
        encoder.ids
    }

    /// The bytes of a token, ordinary or special.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8], UnknownToken> {
        let special = || self.specials.get(id).map(|special| special.content.as_bytes());
        self.vocabulary.bytes(id).or_else(special).ok_or(UnknownToken { id, n_vocab: self.n_vocab })
    }

    /// The text of `ids`, special tokens spelled out; what is not UTF-8 is replaced by U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, UnknownToken> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// False for ids that a sampler should never choose: reserved names and ids without a token.
    pub fn is_named(&self, id: u32) -> bool {
        self.vocabulary.bytes(id).is_some() || self.specials.get(id).is_some_and(|special| special.named)
    }

    /// Ids that end a turn, sorted: those that do by their name, and `eos_token_id` (a number or a
    /// list) of config.json and of generation_config.json, which differ between copies.
    pub fn stop_ids(&self, configs: &[&serde_json::Value]) -> Vec<u32> {
        let of_config = |config: &&serde_json::Value| match &config["eos_token_id"] {
            serde_json::Value::Array(ids) => ids.clone(),
            id => vec![id.clone()],
        };
        let configured = configs.iter().flat_map(of_config).filter_map(|id| u32::try_from(id.as_u64()?).ok());
        let mut ids: Vec<u32> = self.specials.end_of_turn().chain(configured).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// Encodes segment after segment into one list of ids.
struct SegmentEncoder<'t> {
    pre_tokenizer: &'t PreTokenizer,
    byte_pairs: BytePairEncoder<'t>,
    ids: Vec<u32>,
}

impl<'t> SegmentEncoder<'t> {
    fn new(tokenizer: &'t Tokenizer, text_bytes: usize) -> Self {
        Self {
            pre_tokenizer: &tokenizer.pre_tokenizer,
            byte_pairs: BytePairEncoder::new(&tokenizer.vocabulary),
            ids: Vec::with_capacity(text_bytes / 4),
        }
    }

    fn ordinary(&mut self, segment: &str) {
        self.pre_tokenizer.pieces(segment, |piece| self.byte_pairs.encode(piece.as_bytes(), &mut self.ids));
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let failed = |source| TokenizerError::Read { path: path.to_owned(), source };
    // Before it is opened: opening a pipe would wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(TokenizerError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    // Not by the file's length: some files grow.
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(TokenizerError::TooLarge { path: path.to_owned() }),
        false => Ok(bytes),
    }
}

/// `vocab_size` of the folder's config.json (K2.5 keeps it under `text_config`). A folder with
/// tokenizer files alone is fine; a damaged config is for its own reader to complain about.
fn vocab_size(dir: &Path) -> Option<u32> {
    let config: serde_json::Value = serde_json::from_slice(&read(&dir.join("config.json")).ok()?).ok()?;
    let text_config = config.get("text_config").unwrap_or(&config);
    u32::try_from(text_config.get("vocab_size")?.as_u64()?).ok()
}
