//! `k2 tokenize`: texts to ids and back, as JSON lines with the field names of the golden files.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use k2_chat::{Detokenizer, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::{json_lines, tokenizer};

/// Texts to token ids: {"text", "allow_special"} per line gives {"ids"}.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// Folder with tiktoken.model and tokenizer_config.json, or a GGUF file.
    #[arg(value_name = "DIR")]
    tokenizer: PathBuf,
    /// Ids to text: {"ids"} per line gives {"text", "chunks", "tail"}, a chunk being what a token completes.
    #[arg(long)]
    decode: bool,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    /// Whether special tokens spelled in the text become their ids.
    #[serde(default)]
    allow_special: bool,
}

#[derive(Deserialize, Serialize)]
struct Ids {
    ids: Vec<u32>,
}

#[derive(Serialize)]
struct Decoded {
    text: String,
    chunks: Vec<String>,
    tail: String,
}

/// Runs the command.
pub(crate) fn run(args: &TokenizeArgs) -> Result<(), Box<dyn Error>> {
    let tokenizer = tokenizer::open(&args.tokenizer)?;
    match args.decode {
        true => json_lines::answer_each(|Ids { ids }| decode(&tokenizer, &ids)),
        false => json_lines::answer_each(|Text { text, allow_special }| {
            Ok(Ids { ids: tokenizer.encode(&text, allow_special) })
        }),
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Decoded, Box<dyn Error>> {
    let mut detokenizer = Detokenizer::new();
    let chunks = ids.iter().map(|id| detokenizer.push(tokenizer, *id)).collect::<Result<Vec<String>, _>>()?;
    Ok(Decoded { text: tokenizer.decode(ids)?, chunks, tail: detokenizer.finish() })
}
