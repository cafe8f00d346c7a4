//! `tiktoken.model` and `tokenizer_config.json`, as Kimi K2's are.

use base64::{Engine, prelude::BASE64_STANDARD};
use k2_chat::tokenizer::{CONFIG_FILE, RANK_FILE};
use serde_json::{Map, Value, json};
use std::path::Path;

use super::BpeError;

/// K2-Instruct's special tokens by their distance from the ranks, and whether a reader who skips special tokens
/// skips them.
pub const SPECIALS: [(u32, &str, bool); 17] = [
    (0, "[BOS]", true),
    (1, "[EOS]", true),
    (2, "<|im_end|>", true),
    (3, "<|im_user|>", true),
    (4, "<|im_assistant|>", true),
    (6, "<|start_header_id|>", true),
    (7, "<|end_header_id|>", true),
    (9, "[EOT]", true),
    (10, "<|im_system|>", true),
    (11, "<|tool_calls_section_begin|>", false),
    (12, "<|tool_calls_section_end|>", false),
    (13, "<|tool_call_begin|>", false),
    (14, "<|tool_call_argument_begin|>", false),
    (15, "<|tool_call_end|>", false),
    (17, "<|im_middle|>", true),
    (254, "[UNK]", true),
    (255, "[PAD]", true),
];

/// Writes both files into a folder.
pub fn write(folder: &Path, tokens: &[Vec<u8>], model_max_length: usize) -> Result<(), BpeError> {
    std::fs::create_dir_all(folder).map_err(|error| BpeError::Io { path: folder.to_owned(), error })?;
    let ranks: String = tokens
        .iter()
        .enumerate()
        .map(|(rank, token)| format!("{} {rank}\n", BASE64_STANDARD.encode(token)))
        .collect();
    k2_weights::replace_file(&folder.join(RANK_FILE), |file| file.write_all(ranks.as_bytes()))?;
    let config = format!("{:#}\n", config(tokens.len() as u32, model_max_length));
    k2_weights::replace_file(&folder.join(CONFIG_FILE), |file| file.write_all(config.as_bytes()))?;
    Ok(())
}

fn config(ranks: u32, model_max_length: usize) -> Value {
    let entry = |&(offset, content, special): &(u32, &str, bool)| {
        let token = json!({
            "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
            "special": special,
        });
        ((ranks + offset).to_string(), token)
    };
    let decoder: Map<String, Value> = SPECIALS.iter().map(entry).collect();
    json!({
        "added_tokens_decoder": decoder,
        "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]", "pad_token": "[PAD]",
        "clean_up_tokenization_spaces": false,
        "model_max_length": model_max_length,
        "tokenizer_class": "TikTokenTokenizer",
    })
}
