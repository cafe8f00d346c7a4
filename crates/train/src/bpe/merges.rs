//! The merges: again and again the most frequent pair of neighbours becomes a token.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A pair is merged only if it occurs so often.
const LEAST: u64 = 2;

type Pair = (u32, u32);

/// The 256 bytes and the tokens merged from them, at most `ranks`.
pub(super) fn learn(pieces: &[(&str, u64)], ranks: usize) -> Vec<Vec<u8>> {
    let mut state = State::new(pieces);
    while state.tokens.len() < ranks {
        let Some((Reverse(count), pair)) = state.next() else { break };
        debug_assert!(count >= LEAST);
        state.merge(pair);
    }
    state.tokens
}

struct State {
    tokens: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, u32>,
    /// Each piece as tokens, and how often it occurs.
    pieces: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Pieces that have, or had, the pair.
    places: HashMap<Pair, Vec<u32>>,
    /// Pairs by count, none below its own; entries whose count is out of date are passed over.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl State {
    fn new(pieces: &[(&str, u64)]) -> State {
        let tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
        let ids = tokens.iter().cloned().zip(0..).collect();
        let bytes = |text: &str| text.bytes().map(u32::from).collect();
        let pieces = pieces.iter().map(|(text, count)| (bytes(text), *count)).collect();
        let mut state = State {
            tokens,
            ids,
            pieces,
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        (0..state.pieces.len()).for_each(|piece| state.count(piece));
        state.queue = state.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
        state
    }

    /// The most frequent pair; of equal ones the one with the lowest ids.
    fn next(&mut self) -> Option<(Reverse<u64>, Pair)> {
        while let Some(entry) = self.queue.pop() {
            let (count, Reverse(pair)) = entry;
            match self.counts.get(&pair) {
                Some(&now) if now == count && count >= LEAST => return Some((Reverse(count), pair)),
                // Pieces that have lost the pair did not queue it again.
                Some(&now) if now < count && now >= LEAST => {
                    while self.queue.peek() == Some(&entry) {
                        self.queue.pop();
                    }
                    self.queue.push((now, Reverse(pair)));
                }
                _ => {}
            }
        }
        None
    }

    /// Joins the pair in every piece.
    fn merge(&mut self, pair: Pair) {
        let joined = [self.tokens[pair.0 as usize].as_slice(), &self.tokens[pair.1 as usize]].concat();
        // Two ways of making the same bytes are one token.
        let next = self.tokens.len() as u32;
        let id = *self.ids.entry(joined.clone()).or_insert(next);
        if id == next {
            self.tokens.push(joined);
        }
        for piece in self.places.remove(&pair).unwrap_or_default() {
            let piece = piece as usize;
            if self.pieces[piece].0.windows(2).any(|two| (two[0], two[1]) == pair) {
                self.uncount(piece);
                join(&mut self.pieces[piece].0, pair, id);
                self.count(piece);
                self.requeue(piece);
            }
        }
    }

    fn uncount(&mut self, piece: usize) {
        let (tokens, times) = &self.pieces[piece];
        for two in tokens.windows(2) {
            if let Some(count) = self.counts.get_mut(&(two[0], two[1])) {
                *count -= times;
            }
        }
    }

    fn count(&mut self, piece: usize) {
        let (tokens, times) = &self.pieces[piece];
        for two in tokens.windows(2) {
            if may_join(&self.tokens[two[0] as usize], &self.tokens[two[1] as usize]) {
                *self.counts.entry((two[0], two[1])).or_default() += times;
                let places = self.places.entry((two[0], two[1])).or_default();
                if places.last() != Some(&(piece as u32)) {
                    places.push(piece as u32);
                }
            }
        }
    }

    fn requeue(&mut self, piece: usize) {
        for two in self.pieces[piece].0.windows(2) {
            if let Some(count) = self.counts.get(&(two[0], two[1])) {
                self.queue.push((*count, Reverse((two[0], two[1]))));
            }
        }
    }
}

fn join(tokens: &mut Vec<u32>, pair: Pair, id: u32) {
    let mut joined = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let here = at + 1 < tokens.len() && (tokens[at], tokens[at + 1]) == pair;
        joined.push(if here { id } else { tokens[at] });
        at += if here { 2 } else { 1 };
    }
    *tokens = joined;
}

#[derive(PartialEq)]
enum Class {
    Letters,
    /// The marks of JSON.
    Structure,
    White,
    /// Digits and all other marks.
    Alone,
}

fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => Class::Letters,
        b'{' | b'}' | b'[' | b']' | b'"' | b':' | b',' => Class::Structure,
        b' ' | b'\n' | b'\r' | b'\t' => Class::White,
        _ => Class::Alone,
    }
}

/// Tokens are of one class, so their neighbouring bytes tell.
fn may_join(left: &[u8], right: &[u8]) -> bool {
    let (Some(left), Some(right)) = (left.last(), right.first()) else { return false };
    class(*left) == class(*right) && class(*left) != Class::Alone
}
