//! Texts of a given length in tokens.

use k2_chat::Tokenizer;

use super::random::Random;

/// Words that are one token, with the blank before them, in every large vocabulary.
const WORDS: [&str; 24] = [
    " the", " of", " and", " to", " in", " for", " is", " on", " that", " by", " this", " with", " you",
    " it", " not", " or", " be", " are", " from", " at", " as", " your", " all", " have",
];

/// What one more token is made of, tried in turn.
const FILLERS: [&str; 5] = [" a", ".", "\n", "a", "-"];

/// A text of so many tokens: exactly with a tokenizer (as far as its merges allow), about so many without. Each index
/// has its own beginning, so that no text is found in a cache.
pub(super) fn text(
    random: &mut Random,
    index: usize,
    tokens: usize,
    tokenizer: Option<&Tokenizer>,
) -> String {
    let mut words = vec![format!("{:x}", random.next() ^ index as u64)];
    words.extend((0..tokens).map(|_| WORDS[random.next() as usize % WORDS.len()].to_owned()));
    match tokenizer {
        None => words[..tokens.max(1)].concat(),
        Some(tokenizer) => exact(&words, tokens, |text| tokenizer.encode(text, false).len()),
    }
}

/// As many of the words as fit, then fillers.
fn exact(words: &[String], tokens: usize, length: impl Fn(&str) -> usize) -> String {
    let fits = |count: usize| length(&words[..count].concat()) <= tokens;
    let (mut low, mut high) = (0, words.len());
    while low < high {
        let middle = usize::midpoint(low, high + 1);
        match fits(middle) {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    let mut text = words[..low].concat();
    let mut has = length(&text);
    while has < tokens {
        let longer = FILLERS.iter().map(|filler| text.clone() + filler).find(|text| length(text) == has + 1);
        let Some(longer) = longer else { break };
        text = longer;
        has += 1;
    }
    text
}
