//! The tokenizer of a GGUF file gives the ids of the official one.

use std::collections::HashMap;

use k2_chat::{GgufTokens, Tokenizer};
use serde_json::Value;

use crate::{fixtures, small};

/// GGUF metadata as a converter writes it.
pub(crate) struct Owned {
    pub(crate) model: String,
    pub(crate) pre: String,
    pub(crate) tokens: Vec<String>,
    pub(crate) types: Vec<i32>,
    pub(crate) merges: Vec<String>,
}

impl Owned {
    /// The metadata of `tokenizer`: ordinary tokens in GPT-2's alphabet, named special tokens as
    /// control, reserved ones as control or as "[PAD…]" fillers.
    pub(crate) fn new(tokenizer: &Tokenizer, fillers: bool) -> Self {
        let (mut tokens, mut types) = (Vec::new(), Vec::new());
        let mut ranks = HashMap::new();
        for id in 0..tokenizer.n_vocab() {
            let bytes = tokenizer.token_bytes(id).unwrap();
            match tokenizer.specials().get(id) {
                Some(special) if fillers && !special.named => {
                    tokens.push(format!("[PAD{id}]"));
                    types.push(5);
                }
                Some(special) => {
                    tokens.push(special.content.clone());
                    types.push(3);
                }
                None => {
                    tokens.push(alphabet(bytes));
                    types.push(1);
                    ranks.insert(bytes, id);
                }
            }
        }
        let merges = merges(tokenizer, &ranks);
        Self { model: "gpt2".to_owned(), pre: "kimi-k2".to_owned(), tokens, types, merges }
    }

    pub(crate) fn borrow(&self) -> GgufTokens<'_> {
        let Self { model, pre, tokens, types, merges } = self;
        GgufTokens { model, pre, tokens, token_types: types, merges }
    }
}

/// The two parts that make each token when only earlier ranks may be used.
fn merges(tokenizer: &Tokenizer, ranks: &HashMap<&[u8], u32>) -> Vec<String> {
    let two_parts = |id: u32| {
        let token = tokenizer.token_bytes(id).unwrap();
        let mut parts: Vec<&[u8]> = token.chunks(1).collect();
        let joined = |parts: &[&[u8]], i: usize| {
            let start = parts[..i].concat().len();
            &token[start..start + parts[i].len() + parts[i + 1].len()]
        };
        while parts.len() > 2 {
            let rank = |i: usize| ranks.get(joined(&parts, i)).map(|&rank| (rank, i));
            let (_, i) = (0..parts.len() - 1).filter_map(rank).filter(|&(rank, _)| rank < id).min()?;
            let pair = joined(&parts, i);
            parts.splice(i..i + 2, [pair]);
        }
        (parts.len() == 2).then(|| format!("{} {}", alphabet(parts[0]), alphabet(parts[1])))
    };
    (0..ranks.len() as u32).filter_map(two_parts).collect()
}

/// GPT-2's `bytes_to_unicode`, as its definition says.
fn alphabet(bytes: &[u8]) -> String {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others: Vec<u8> = (0..=255).filter(|byte| !printable(byte)).collect();
    let letter = |byte: &u8| match others.iter().position(|other| other == byte) {
        Some(n) => char::from_u32(256 + n as u32).unwrap(),
        None => char::from(*byte),
    };
    bytes.iter().map(letter).collect()
}

fn check(official: &Tokenizer, texts: &[String], fillers: bool) {
    let gguf = Owned::new(official, fillers);
    assert!(gguf.merges.len() > 150);
    let tokenizer = Tokenizer::from_gguf(gguf.borrow()).unwrap();
    assert_eq!(tokenizer.n_vocab(), official.n_vocab());
    for text in texts {
        for allow_special in [false, true] {
            assert_eq!(
                tokenizer.encode(text, allow_special),
                official.encode(text, allow_special),
                "{text:?}"
            );
        }
    }
    for id in 0..official.n_vocab() {
        assert_eq!(tokenizer.token_bytes(id), official.token_bytes(id));
        assert_eq!(tokenizer.is_named(id), official.is_named(id), "{id}");
        let skipped = |tokenizer: &Tokenizer| tokenizer.specials().get(id).map(|special| special.skipped);
        assert_eq!(skipped(&tokenizer), skipped(official), "{id}");
    }
}

#[test]
fn small() {
    let texts = [
        "",
        "the weather",
        "get_weather:0 北京",
        "a<|im_end|>b[PAD461]",
        "<|reserved_token_461|>",
        "\u{0}\u{7f}\u{ad}",
    ];
    for fillers in [false, true] {
        check(small::tokenizer(), &texts.map(str::to_owned), fillers);
    }
}

#[test]
fn real() {
    let Some(official) = fixtures::kimi() else { return };
    let text =
        |line: &String| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().map(str::to_owned);
    let texts: Vec<String> = fixtures::lines("tokenizer").iter().filter_map(text).collect();
    check(official, &texts, true);
}

#[test]
fn plain_gpt2_vocabularies_work_too() {
    let mut gguf = Owned::new(small::tokenizer(), false);
    gguf.pre = "gpt-2".to_owned();
    let tokenizer = Tokenizer::from_gguf(gguf.borrow()).unwrap();
    // GPT-2 keeps any number of digits together, Kimi three at most.
    let digits = "1".repeat(4);
    assert_eq!(tokenizer.decode(&tokenizer.encode(&digits, false)).unwrap(), digits);
    assert_eq!(tokenizer.encode(" the weather", false), small::tokenizer().encode(" the weather", false));
}
