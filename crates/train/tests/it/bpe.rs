//! The tokenizer learned here is one that `chat` loads, and it copies well.

use k2_chat::{Template, Tokenizer};
use k2_train::bpe::{self, BpeError, RESERVED, SPECIALS, Sizes, Trainer};
use k2_train::dialogues::Generator;
use k2_train::rng::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const SIZES: Sizes = Sizes { ranks: 1024, blank_words: 64 };

/// A small tokenizer learned from dialogues, in a folder.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("k2-train-tokenizer-{}", std::process::id()));
        bpe::write(&folder, &tokens(), 1024).unwrap();
        folder
    })
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(folder()).unwrap()
}

fn tokens() -> Vec<Vec<u8>> {
    let mut trainer = Trainer::new().unwrap();
    trainer.add_dialogues(&Generator::new(1).unwrap(), 600).unwrap();
    trainer.train(SIZES).unwrap()
}

#[test]
fn the_same_texts_give_the_same_tokens() {
    let tokens = tokens();
    assert_eq!(tokens.len(), SIZES.ranks);
    assert_eq!(tokens, self::tokens());
}

#[test]
fn chat_reads_what_is_written() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.n_vocab() as usize, SIZES.ranks + RESERVED);
    for (offset, name, skipped) in SPECIALS {
        let id = SIZES.ranks as u32 + offset;
        assert_eq!(tokenizer.specials().id(name), Some(id));
        assert_eq!(tokenizer.specials().get(id).map(|special| special.skipped), Some(skipped), "{name}");
    }
    let stop: Vec<u32> = tokenizer.stop_ids(&[]);
    assert!(stop.contains(&tokenizer.specials().id("<|im_end|>").unwrap()));
    assert_eq!(Template::from_dir(folder()).unwrap(), Template::K2Instruct);
    for text in ["Größe 12.5 — 北京!", "a\n  b\t", "{\"x\": [1, 2]}", ""] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true)).unwrap(), text);
    }
}

#[test]
fn a_token_is_one_kind_of_characters() {
    for token in tokens().iter().filter(|token| token.len() > 1) {
        let letters = token.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
        let structure = token.iter().all(|byte| b"{}[]\":,".contains(byte));
        let white = token.iter().all(u8::is_ascii_whitespace);
        let blank_word =
            token[0] == b' ' && (token[1..].iter().all(u8::is_ascii_lowercase) || &token[1..] == b"\"");
        assert!(letters || structure || white || blank_word, "{:?}", String::from_utf8_lossy(token));
    }
}

#[test]
fn values_have_the_same_tokens_wherever_they_stand() {
    let tokenizer = tokenizer();
    let encode = |text: &str| tokenizer.encode(text, false);
    for value in
        ["Lisbon", "Wrocław", "Zorvek-Lin", "Mara Vell", "XK-4821", "26", "16.16", "qRtZ7", "318*42", "北京"]
    {
        let copied = encode(value);
        for around in
            ["in {}?", "{\"city\": \"{}\"}", "{\"city\":\"{}\",\"x\":1}", "is {}.", "({})", "to {}\n"]
        {
            let (before, after) = around.rsplit_once("{}").unwrap();
            let ids = encode(&format!("{before}{value}{after}"));
            let found = ids.windows(copied.len()).any(|window| window == copied);
            assert!(found, "{value:?} in {around:?}: {ids:?} without {copied:?}");
        }
    }
    assert_eq!(encode("123456").len(), 6, "a digit is a token");
}

#[test]
fn a_vocabulary_too_small_for_the_bytes_is_refused() {
    let sizes = Sizes { ranks: 300, blank_words: 30 };
    let error = Trainer::new().unwrap().train(sizes).unwrap_err();
    assert!(matches!(error, BpeError::TooFew { ranks: 300, blank_words: 30 }), "{error}");
    let few = Trainer::new().unwrap().train(Sizes { ranks: 300, blank_words: 0 }).unwrap();
    assert_eq!(few.len(), 256, "nothing was seen, so there are the bytes alone");
}

/// Tokens learned with all pairs counted anew for each.
fn counted_anew(words: &[(String, usize)], ranks: usize) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let mut words: Vec<(Vec<usize>, usize)> =
        words.iter().map(|(word, times)| (word.bytes().map(usize::from).collect(), *times)).collect();
    while tokens.len() < ranks {
        let mut counts = BTreeMap::new();
        for (ids, times) in &words {
            ids.windows(2).for_each(|two| *counts.entry([two[0], two[1]]).or_insert(0) += times);
        }
        // Of equally frequent ones the one with the lowest ids.
        let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        let Some((pair, _)) = most.filter(|(_, count)| *count >= 2) else { break };
        let joined = [tokens[pair[0]].as_slice(), &tokens[pair[1]]].concat();
        let known = tokens.iter().position(|token| *token == joined);
        let id = known.unwrap_or(tokens.len());
        if known.is_none() {
            tokens.push(joined);
        }
        for (ids, _) in &mut words {
            let mut at = 0;
            while at + 1 < ids.len() {
                if ids[at..at + 2] == pair {
                    ids.splice(at..at + 2, [id]);
                }
                at += 1;
            }
        }
    }
    tokens
}

#[test]
fn merges_are_those_of_counting_anew() {
    let word = |rng: &mut Rng| -> String {
        (0..2 + rng.below(7)).map(|_| ['a', 'b', 'c', 'd'][rng.below(4)]).collect()
    };
    let random = |seed| -> Vec<(String, usize)> {
        let mut rng = Rng::new(seed);
        (0..120).map(|_| (word(&mut rng), 1 + rng.below(20))).collect()
    };
    let sinking = [("abd", 10), ("ab", 10), ("bd", 5)].map(|(word, times)| (word.to_owned(), times));
    for words in (0..20).map(random).chain([sinking.to_vec()]) {
        let mut trainer = Trainer::new().unwrap();
        for (word, times) in &words {
            (0..*times).for_each(|_| trainer.add(word));
        }
        let tokens = trainer.train(Sizes { ranks: 500, blank_words: 0 }).unwrap();
        let wanted = counted_anew(&words, 500);
        assert_eq!(tokens[256..], wanted[256..], "{words:?}");
    }
}
