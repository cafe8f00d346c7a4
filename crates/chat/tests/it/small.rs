//! A small tokenizer of the tests' own: byte-pair encoding trained on a paragraph, Kimi's special
//! tokens after the ranks. With it the suite is whole without the real one.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use k2_chat::{
    Tokenizer,
    pre_tokenizer::{Pattern, PreTokenizer},
    special::SpecialTokens,
    tiktoken,
};
use serde_json::json;

const TEXT: &str = "The user asks about the weather in Beijing and the tools are get_weather and search. \
    function functions functions.get_weather:0 functions.search:1 {\"city\": \"Beijing\", \"unit\": \"celsius\"} \
    the then there this that these those what when where which while who whose why with without would \
    system system user user assistant assistant tool tool Return of return of 北京 上海 你好 世界 天气 天气 天气 \
    Kimi answers questions, searches documents and writes programs; \
    don't won't it's I'm you're they've he'll she'd    for i in range(10):\n        print(i)\n    return i\n";

/// Fewer than the paragraph would give, so that there are 456 ranks and 475 ids.
const MERGES: usize = 200;

/// The special tokens in the order of their ids after the ranks; the name at 5 is left out.
pub(crate) const SPECIALS: [&str; 19] = [
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "",
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

/// The small tokenizer.
pub(crate) fn tokenizer() -> &'static Tokenizer {
    static SMALL: OnceLock<Tokenizer> = OnceLock::new();
    SMALL.get_or_init(|| {
        let vocabulary = tiktoken::parse(rank_file().as_bytes()).unwrap();
        let specials = SpecialTokens::from_config(config().as_bytes(), ranks().len() as u32, None).unwrap();
        Tokenizer::new(vocabulary, specials, Pattern::KimiK2).unwrap()
    })
}

/// The small tokenizer, and the real one where it is at hand.
pub(crate) fn tokenizers() -> impl Iterator<Item = &'static Tokenizer> {
    std::iter::once(tokenizer()).chain(crate::fixtures::kimi())
}

/// Its rank file.
pub(crate) fn rank_file() -> String {
    let line = |(rank, token): (usize, &Vec<u8>)| format!("{} {rank}\n", BASE64_STANDARD.encode(token));
    ranks().iter().enumerate().map(line).collect()
}

/// Its tokenizer_config.json.
pub(crate) fn config() -> String {
    let named = SPECIALS.iter().enumerate().filter(|(_, name)| !name.is_empty());
    let token =
        |name: &str| json!({"content": name, "special": !(name.contains("tool") || name.contains("think"))});
    let decoder: serde_json::Map<_, _> =
        named.map(|(i, name)| ((ranks().len() + i).to_string(), token(name))).collect();
    json!({ "added_tokens_decoder": decoder, "bos_token": "[BOS]" }).to_string()
}

/// Its ordinary tokens by rank: the bytes, then the most frequent pair again and again.
pub(crate) fn ranks() -> &'static [Vec<u8>] {
    static RANKS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    RANKS.get_or_init(|| {
        let mut ranks: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        let mut known: HashSet<Vec<u8>> = ranks.iter().cloned().collect();
        let mut words: Vec<Vec<Vec<u8>>> = Vec::new();
        let pre_tokenizer = PreTokenizer::new(Pattern::KimiK2).unwrap();
        pre_tokenizer.pieces(TEXT, |piece| words.push(piece.bytes().map(|byte| vec![byte]).collect()));
        while ranks.len() < 256 + MERGES {
            let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
            for pair in words.iter().flat_map(|word| word.windows(2)) {
                *counts.entry(pair.concat()).or_default() += 1;
            }
            counts.retain(|joined, _| !known.contains(joined));
            let Some((joined, _)) = counts.into_iter().max_by_key(|(joined, count)| (*count, joined.clone()))
            else {
                break;
            };
            for word in &mut words {
                let mut at = 0;
                while at + 1 < word.len() {
                    if word[at..at + 2].concat() == joined {
                        word.splice(at..at + 2, [joined.clone()]);
                    }
                    at += 1;
                }
            }
            known.insert(joined.clone());
            ranks.push(joined);
        }
        ranks
    })
}
