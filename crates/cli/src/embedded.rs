//! The model that ships inside the program: `models/tiny`, opened from the program's own bytes.

use k2_chat::pre_tokenizer::Pattern;
use k2_chat::special::SpecialTokens;
use k2_chat::{Template, Tokenizer, tiktoken};
use k2_weights::{Checkpoint, WeightsError};
use std::error::Error;

/// Its name where a model is named; clients know what a model can do by the beginning of its name.
pub(crate) const NAME: &str = "kimi-k2-tiny";

/// The turn format that it was trained on.
pub(crate) const TEMPLATE: Template = Template::K2Instruct;

const CONFIG: &[u8] = include_bytes!("../../../models/tiny/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../models/tiny/model.safetensors");
const RANKS: &[u8] = include_bytes!("../../../models/tiny/tiktoken.model");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../../models/tiny/tokenizer_config.json");
const CARD: &[u8] = include_bytes!("../../../models/tiny/README.md");

/// Every file of it, by the names of the official layout.
pub(crate) const FILES: [(&str, &[u8]); 5] = [
    ("config.json", CONFIG),
    ("model.safetensors", WEIGHTS),
    ("tiktoken.model", RANKS),
    ("tokenizer_config.json", TOKENIZER_CONFIG),
    ("README.md", CARD),
];

/// Its weights.
pub(crate) fn checkpoint() -> Result<Checkpoint, WeightsError> {
    Checkpoint::from_bytes(NAME, CONFIG, WEIGHTS)
}

/// Its tokenizer.
pub(crate) fn tokenizer() -> Result<Tokenizer, Box<dyn Error>> {
    let vocabulary = tiktoken::parse(RANKS)?;
    let specials = SpecialTokens::from_config(TOKENIZER_CONFIG, vocabulary.len(), None)?;
    Ok(Tokenizer::new(vocabulary, specials, Pattern::KimiK2)?)
}
