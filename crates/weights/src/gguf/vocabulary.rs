//! The tokenizer of a GGUF file, as its metadata has it. What it means is the `chat` crate's business.

use super::{GgufError, Metadata};

/// The keys under `tokenizer.`, typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: `gpt2` for byte-level BPE.
    pub model: String,
    /// `tokenizer.ggml.pre`: the pre-tokeniser's name, `kimi-k2`.
    pub pre: Option<String>,
    /// Token texts by id, bytes written as GPT-2 does.
    pub tokens: Vec<String>,
    /// llama.cpp's token types by id: 1 normal, 3 control, 4 user-defined, 5 unused, 6 byte. May be empty.
    pub token_types: Vec<i32>,
    /// BPE merges, best first: two texts with a space between. May be empty.
    pub merges: Vec<String>,
    /// Beginning of text.
    pub bos_token_id: Option<u32>,
    /// End of text.
    pub eos_token_id: Option<u32>,
    /// End of turn.
    pub eot_token_id: Option<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
    /// Whether an encoded text begins with bos.
    pub add_bos_token: Option<bool>,
    /// A Jinja template; kept as text, never run.
    pub chat_template: Option<String>,
}

/// The vocabulary of a file, if it has one.
pub fn vocabulary(metadata: &Metadata) -> Result<Option<GgufVocabulary>, GgufError> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let Some(model) = metadata.optional_text("tokenizer.ggml.model")? else { return Ok(None) };
    let Some(tokens) = texts(metadata, TOKENS)? else { return Ok(None) };
    let token_types = token_types(metadata, tokens.len())?;
    let id = |name: &str| token_id(metadata, name, tokens.len());
    Ok(Some(GgufVocabulary {
        model,
        pre: metadata.optional_text("tokenizer.ggml.pre")?,
        token_types,
        merges: texts(metadata, "tokenizer.ggml.merges")?.unwrap_or_default(),
        bos_token_id: id("bos")?,
        eos_token_id: id("eos")?,
        eot_token_id: id("eot")?,
        pad_token_id: id("padding")?,
        add_bos_token: metadata.optional_bool("tokenizer.ggml.add_bos_token")?,
        chat_template: metadata.optional_text("tokenizer.chat_template")?,
        tokens,
    }))
}

fn texts(metadata: &Metadata, key: &str) -> Result<Option<Vec<String>>, GgufError> {
    let Some(array) = metadata.optional_array(key)? else { return Ok(None) };
    array.texts(key).unwrap_or_else(|| Err(metadata.wrong(key, "an array of texts"))).map(Some)
}

fn token_types(metadata: &Metadata, tokens: usize) -> Result<Vec<i32>, GgufError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(array) = metadata.optional_array(KEY)? else { return Ok(Vec::new()) };
    let types = array.ints().ok_or_else(|| metadata.wrong(KEY, "an array of 32-bit integers"))?;
    match types.len() == tokens {
        true => Ok(types),
        false => Err(metadata.wrong(KEY, "as many types as there are tokens")),
    }
}

fn token_id(metadata: &Metadata, name: &str, tokens: usize) -> Result<Option<u32>, GgufError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match metadata.optional_uint(&key)? {
        None => Ok(None),
        Some(id) if id < tokens as u64 => Ok(Some(id as u32)),
        Some(_) => Err(metadata.wrong(&key, "the id of one of the tokens")),
    }
}
