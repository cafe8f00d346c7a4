//! A tokenizer for the targets that need one: single bytes, a few merges, Kimi's special tokens.

use k2_chat::pre_tokenizer::Pattern;
use k2_chat::special::SpecialTokens;
use k2_chat::{Tokenizer, tiktoken};
use std::sync::LazyLock;

const SPECIALS: [&str; 19] = [
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|start_header_id|>",
    "[EOT]",
    "<|im_system|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|im_middle|>",
    "<think>",
    "</think>",
    "<|media_pad|>",
    "[UNK]",
    "[PAD]",
];

/// After the 256 bytes: in base64 "th", "the", " the", "fu", "0", two bytes of 你, "你", "  ".
const MERGES: [&str; 7] = ["dGg=", "dGhl", "IHRoZQ==", "ZnU=", "5L0=", "5L2g", "ICA="];

pub(crate) static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let bytes = (0..=255u8).map(base64_of);
    let tokens: Vec<String> = bytes.chain(MERGES.iter().map(|&merge| merge.to_owned())).collect();
    let lines = tokens.iter().enumerate().map(|(rank, token)| format!("{token} {rank}\n"));
    let ranks = tokens.len() as u32;
    let special = |(id, content): (usize, &&str)| {
        (
            format!("{}", ranks as usize + id),
            serde_json::json!({ "content": content, "special": !content.contains("tool") }),
        )
    };
    let decoder: serde_json::Map<_, _> = SPECIALS.iter().enumerate().map(special).collect();
    let config = serde_json::json!({ "added_tokens_decoder": decoder }).to_string();
    let vocabulary = tiktoken::parse(lines.collect::<String>().as_bytes()).expect("a rank file");
    let specials = SpecialTokens::from_config(config.as_bytes(), ranks, None).expect("special tokens");
    Tokenizer::new(vocabulary, specials, Pattern::KimiK2).expect("a tokenizer")
});

/// One byte in base64: two digits and two signs of padding.
fn base64_of(byte: u8) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |six: u8| char::from(DIGITS[usize::from(six & 63)]);
    format!("{}{}==", digit(byte >> 2), digit(byte << 4))
}
