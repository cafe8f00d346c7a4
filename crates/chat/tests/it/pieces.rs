//! The pre-tokeniser and byte-pair encoding against slow, obvious twins.

use std::sync::LazyLock;

use k2_chat::{
    byte_pair::BytePairEncoder,
    long_text,
    pre_tokenizer::{Pattern, PreTokenizer},
    tiktoken,
    vocabulary::Vocabulary,
};
use proptest::prelude::*;

use crate::{properties::text, small};

/// The patterns as published, look-ahead and all, on one line.
const PUBLISHED: [(Pattern, &str); 2] = [
    (
        Pattern::KimiK2,
        r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (Pattern::Gpt2, r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
];

static BOTH: LazyLock<Vec<(PreTokenizer, fancy_regex::Regex)>> = LazyLock::new(|| {
    let compile = |(pattern, published): (Pattern, &str)| {
        (PreTokenizer::new(pattern).unwrap(), fancy_regex::Regex::new(published).unwrap())
    };
    PUBLISHED.into_iter().map(compile).collect()
});

fn check_pieces(text: &str) {
    for (fast, slow) in BOTH.iter() {
        let mut pieces = Vec::new();
        fast.pieces(text, |piece| pieces.push(piece));
        let expected: Vec<&str> = slow.find_iter(text).map(|found| found.unwrap().as_str()).collect();
        assert_eq!(pieces, expected, "{text:?}");
    }
}

#[test]
fn pieces_of_awkward_texts() {
    for text in [
        "",
        " ",
        "  ",
        "  x",
        "\t!",
        "\t\t!",
        " \n ",
        " \n x",
        "\r\n\r\n",
        "a\u{a0}\u{a0}b",
        "AあB C",
        "あBBBB",
        "\u{301}ABC",
        "X'ſ x'S don'T",
        "12〇34567",
        "〇12",
        "⺀!⺀",
        "ǅabc ʰA",
        "\u{85}\u{2028}x",
        "\u{1c}x\u{1f} y",
    ] {
        check_pieces(text);
    }
}

/// The merge as its definition says: of all neighbours the lowest rank, leftmost first.
fn merge_slowly(vocabulary: &Vocabulary, piece: &[u8]) -> Vec<u32> {
    let mut parts: Vec<Vec<u8>> = piece.iter().map(|&byte| vec![byte]).collect();
    loop {
        let rank = |i: usize| vocabulary.id(&parts[i..i + 2].concat()).map(|rank| (rank, i));
        let Some((_, i)) = (0..parts.len().saturating_sub(1)).filter_map(rank).min() else { break };
        let joined = parts[i..i + 2].concat();
        parts.splice(i..i + 2, [joined]);
    }
    parts.iter().map(|part| vocabulary.id(part).unwrap()).collect()
}

fn check_merge(piece: &[u8]) {
    let vocabulary = tiktoken::parse(small::rank_file().as_bytes()).unwrap();
    let expected = merge_slowly(&vocabulary, piece);
    let mut encoder = BytePairEncoder::new(&vocabulary);
    let (mut scan, mut heap) = (Vec::new(), Vec::new());
    encoder.scan(piece, &mut scan);
    encoder.heap(piece, &mut heap);
    assert_eq!(scan, expected, "scan {piece:?}");
    assert_eq!(heap, expected, "heap {piece:?}");
}

#[test]
fn every_token_is_itself() {
    let vocabulary = tiktoken::parse(small::rank_file().as_bytes()).unwrap();
    for (id, token) in small::ranks().iter().enumerate() {
        assert_eq!(merge_slowly(&vocabulary, token), [id as u32]);
        assert_eq!(vocabulary.bytes(id as u32), Some(&token[..]));
    }
    check_merge(b"");
}

/// Lengths in characters of the parts of a text made of (piece, times).
fn check_parts(pieces: &[(&str, usize)], expected: &[usize]) {
    let text: String = pieces.iter().map(|(piece, times)| piece.repeat(*times)).collect();
    let parts: Vec<&str> = long_text::split(&text).collect();
    assert_eq!(parts.concat(), text);
    assert_eq!(parts.iter().map(|part| part.chars().count()).collect::<Vec<_>>(), expected, "{pieces:?}");
}

#[test]
fn long_texts_are_cut_where_python_cuts() {
    check_parts(&[], &[]);
    check_parts(&[("a", 25_000)], &[25_000]);
    check_parts(&[("a", 25_001)], &[25_000, 1]);
    check_parts(&[("天", 50_001)], &[25_000, 25_000, 1]);
    check_parts(&[("a ", 20_000)], &[40_000]);
    check_parts(&[("a", 10), (" ", 25_001), ("b", 10)], &[25_010, 11]);
    check_parts(&[("a", 24_999), (" ", 1), ("a", 25_001)], &[50_000, 1]);
    // U+001C is white space to Python alone.
    check_parts(&[(" ", 20_000), ("\u{1c}", 5_001)], &[25_000, 1]);
    check_parts(&[("word ", 80_001)], &[400_000, 5]);
    // Runs are counted anew in each cut, and cuts do not move with the parts.
    check_parts(&[("word ", 79_998), ("a", 30_000)], &[400_000, 25_000, 4_990]);
    check_parts(&[("a", 400_001)], &[[25_000; 16].as_slice(), &[1]].concat());
}

proptest! {
    #[test]
    fn pieces_are_those_of_the_published_patterns(text in text(60)) {
        check_pieces(&text);
    }

    #[test]
    fn merges_follow_the_definition(text in "[a-z_ :.0-9A-D北京天气]{0,80}") {
        check_merge(text.as_bytes());
    }
}
