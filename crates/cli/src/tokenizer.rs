//! Tokenizers and turn formats, from wherever a checkpoint keeps them.

use std::error::Error;
use std::path::Path;

use k2_chat::tokenizer::RANK_FILE;
use k2_chat::{GgufTokens, Template, Tokenizer};
use k2_weights::{Checkpoint, GgufVocabulary};
use serde_json::Value;

/// The tokenizer of a folder with the official files, of a GGUF file, or of a folder that holds one.
pub(crate) fn open(path: &Path) -> Result<Tokenizer, Box<dyn Error>> {
    if has_official_files(path) {
        return Ok(Tokenizer::from_dir(path)?);
    }
    let checkpoint = Checkpoint::open(path, &mut |_| ())?;
    of_gguf(vocabulary(&checkpoint, path)?)
}

/// The tokenizer in a GGUF file's metadata.
pub(crate) fn of_gguf(vocabulary: &GgufVocabulary) -> Result<Tokenizer, Box<dyn Error>> {
    Ok(Tokenizer::from_gguf(GgufTokens {
        model: &vocabulary.model,
        pre: vocabulary.pre.as_deref().unwrap_or_default(),
        tokens: &vocabulary.tokens,
        token_types: &vocabulary.token_types,
        merges: &vocabulary.merges,
    })?)
}

/// The turn format that a folder asks for, a GGUF file, or a folder that holds one.
pub(crate) fn template(path: &Path) -> Result<Template, Box<dyn Error>> {
    if has_official_files(path) {
        return Ok(Template::from_dir(path)?);
    }
    let checkpoint = Checkpoint::open(path, &mut |_| ())?;
    template_of_gguf(vocabulary(&checkpoint, path)?, checkpoint.config())
}

fn vocabulary<'c>(checkpoint: &'c Checkpoint, path: &Path) -> Result<&'c GgufVocabulary, Box<dyn Error>> {
    let none = || format!("{}: this GGUF file has no tokenizer (`tokenizer.ggml.model`)", path.display());
    Ok(checkpoint.gguf_vocabulary().ok_or_else(none)?)
}

/// The turn format that a GGUF file asks for.
pub(crate) fn template_of_gguf(
    vocabulary: &GgufVocabulary,
    config: &Value,
) -> Result<Template, Box<dyn Error>> {
    let thinks = vocabulary.tokens.iter().any(|token| token == "<think>");
    Ok(Template::detect(vocabulary.chat_template.as_deref(), config["model_type"].as_str(), thinks)?)
}

/// A folder with the official files, or one that should have them.
fn has_official_files(path: &Path) -> bool {
    path.is_dir() && (path.join(RANK_FILE).exists() || !holds_gguf(path))
}

fn holds_gguf(folder: &Path) -> bool {
    let Ok(entries) = folder.read_dir() else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "gguf"))
}
