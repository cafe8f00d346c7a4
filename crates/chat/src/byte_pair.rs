//! Byte-pair encoding of one piece (Sennrich et al., arXiv 1508.07909, as tiktoken does it).
//!
//! Start from single bytes; of all neighbours whose joined bytes are a token, join the pair with
//! the lowest rank, leftmost first; repeat until no pair is a token. A piece that is a token as a
//! whole is that token at once. Two implementations with one meaning: `scan` looks at every pair
//! each time and wins on short pieces; `heap` keeps the candidates in a priority queue, so a
//! hostile piece of 25,000 characters costs n log n instead of n².

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::vocabulary::Vocabulary;

/// Pieces longer than this many bytes go through the heap. Measured with Kimi's ranks the two cross
/// at 30 bytes of Chinese, 90 of base64, 190 of code or of one repeated letter.
const SCAN_MAX: usize = 96;

/// No token: the rank of a pair that cannot be joined.
const NONE: u32 = u32::MAX;

/// Encodes pieces with one vocabulary, keeping its working memory from piece to piece.
pub struct BytePairEncoder<'v> {
    vocabulary: &'v Vocabulary,
    parts: Vec<Part>,
    nodes: Vec<Node>,
    candidates: BinaryHeap<Reverse<Candidate>>,
}

impl<'v> BytePairEncoder<'v> {
    /// An encoder for `vocabulary`, in which every single byte must be a token.
    pub fn new(vocabulary: &'v Vocabulary) -> Self {
        Self { vocabulary, parts: Vec::new(), nodes: Vec::new(), candidates: BinaryHeap::new() }
    }

    /// Appends the tokens of `piece` to `ids`.
    #[inline]
    pub fn encode(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        if let Some(id) = self.vocabulary.id(piece) {
            ids.push(id);
        } else if piece.len() <= SCAN_MAX {
            self.scan(piece, ids);
        } else {
            self.heap(piece, ids);
        }
    }

    /// The short way: find the lowest pair by looking at all of them.
    pub fn scan(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        parts.extend((0..piece.len()).map(|start| Part { start, rank: NONE }));
        for i in 0..parts.len() {
            parts[i].rank = self.rank_of_pair(piece, &parts, i);
        }
        while let Some((i, _)) =
            parts.iter().enumerate().filter(|(_, part)| part.rank != NONE).min_by_key(|(_, part)| part.rank)
        {
            parts.remove(i + 1);
            parts[i].rank = self.rank_of_pair(piece, &parts, i);
            if i > 0 {
                parts[i - 1].rank = self.rank_of_pair(piece, &parts, i - 1);
            }
        }
        for i in 0..parts.len() {
            let end = parts.get(i + 1).map_or(piece.len(), |next| next.start);
            self.push_token(&piece[parts[i].start..end], ids);
        }
        self.parts = parts;
    }

    /// The long way: a linked list of parts and a queue of the pairs that may be joined.
    pub fn heap(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        self.nodes.clear();
        self.candidates.clear();
        let n = piece.len();
        self.nodes.extend((0..n).map(|i| Node { end: i + 1, previous: i.wrapping_sub(1) }));
        for start in 0..n {
            self.add_candidate(piece, start);
        }
        while let Some(Reverse(Candidate { start, end, .. })) = self.candidates.pop() {
            // The queue is never cleaned: a pair is stale when its left part has been swallowed
            // or its right part has grown or gone.
            let middle = self.nodes[start].end;
            if middle == DEAD || middle >= end || self.nodes[middle].end != end {
                continue;
            }
            self.nodes[start].end = end;
            self.nodes[middle].end = DEAD;
            if end < n {
                self.nodes[end].previous = start;
            }
            self.add_candidate(piece, start);
            if start > 0 {
                self.add_candidate(piece, self.nodes[start].previous);
            }
        }
        let mut start = 0;
        while start < n {
            let end = self.nodes[start].end;
            self.push_token(&piece[start..end], ids);
            start = end;
        }
    }

    /// Rank of the pair that begins with part `i`.
    fn rank_of_pair(&self, piece: &[u8], parts: &[Part], i: usize) -> u32 {
        if i + 1 >= parts.len() {
            return NONE;
        }
        let end = parts.get(i + 2).map_or(piece.len(), |part| part.start);
        self.vocabulary.id(&piece[parts[i].start..end]).unwrap_or(NONE)
    }

    /// Queues the pair that begins with the part at `start`, if its bytes are a token.
    fn add_candidate(&mut self, piece: &[u8], start: usize) {
        let middle = self.nodes[start].end;
        if middle >= piece.len() {
            return;
        }
        let end = self.nodes[middle].end;
        if let Some(rank) = self.vocabulary.id(&piece[start..end]) {
            self.candidates.push(Reverse(Candidate { rank, start, end }));
        }
    }

    fn push_token(&self, bytes: &[u8], ids: &mut Vec<u32>) {
        // Parts are single bytes or joined tokens, and readers check that every byte is a token.
        ids.extend(self.vocabulary.id(bytes));
    }
}

/// A part of the piece in `scan`; it ends where the next begins.
struct Part {
    start: usize,
    /// Rank of this part joined with the next.
    rank: u32,
}

/// A part in `heap`, found at the index where it starts.
struct Node {
    end: usize,
    previous: usize,
}

/// `Node::end` of a part that was joined to the one before it.
const DEAD: usize = 0;

/// A pair that may be joined. Ordered by rank, then from the left.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    start: usize,
    end: usize,
}
