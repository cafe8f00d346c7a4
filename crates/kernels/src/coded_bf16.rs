//! BF16 weights in twelve bits, the same numbers: a byte of sign and fraction, and four bits for the exponent.
//!
//! Of the eight bits that an exponent has, trained weights use less than three (T. Zhang et al., DFloat11, arXiv
//! 2504.11651, who code them by Huffman). Here a block of 128 numbers of a row keeps its largest exponent, the base, and for
//! each number how far it lies below: 0 to 14, or 15 for zeros and subnormal numbers, which have none. A block with a
//! number further away is kept whole. Every block has its place, so rows are cut and read as before, at three
//! quarters of the bytes.

use bytes::Bytes;
use std::ops::Range;

use crate::huge_pages::{CACHE_LINE, Lines};
use crate::interleaved::PARTS;
use crate::matrix::{Matrix, Storage};
use crate::pool::{Disjoint, Parts, Pool};
use crate::prefetch::prefetch_second_level;

/// Numbers of a block.
pub(crate) const BLOCK: usize = 128;

/// Numbers that kernels widen together: of two such halves one has the lower bits of the codes, one the upper.
pub(crate) const HALF: usize = BLOCK / 2;

/// Bytes of a block: signs and fractions, then codes.
pub(crate) const BLOCK_BYTES: usize = BLOCK + HALF;

/// Bytes of a block that is kept whole.
pub(crate) const WHOLE_BYTES: usize = 2 * BLOCK;

/// The base of a block that is kept whole, in whose place stands its number among those; as an exponent it is that of NaN and infinity.
pub(crate) const WHOLE: u8 = u8::MAX;

/// The code of an exponent of zero.
const ZERO: u8 = 15;

/// Matrices of which more than one block in so many has to be kept whole stay as they are.
const WHOLE_PER: usize = 8;

/// The upper bits of the exponents that the 16 codes stand for under a base, and as many lowest bits: the bytes of a number but
/// for its sign and fraction.
pub(crate) static EXPONENTS: [[u8; 32]; 256] = {
    let mut tables = [[0; 32]; 256];
    let mut base = 0;
    while base < 256 {
        let mut code = 0;
        while code < ZERO as usize {
            let exponent = (base as u8).wrapping_sub(code as u8);
            tables[base][code] = exponent >> 1;
            tables[base][16 + code] = exponent << 7;
            code += 1;
        }
        base += 1;
    }
    tables
};

/// The stored parts of a matrix or of some of its rows.
#[derive(Clone, Copy)]
pub(crate) struct Coded<'a> {
    pub(crate) blocks: &'a [[u8; BLOCK_BYTES]],
    pub(crate) bases: &'a [u8],
    pub(crate) whole: &'a [[u8; WHOLE_BYTES]],
}

/// A block as it is stored.
#[derive(Clone, Copy)]
pub(crate) enum Block<'a> {
    /// Signs, fractions and codes, and what the codes stand for.
    Coded(&'a [u8; BLOCK_BYTES], &'a [u8; 32]),
    /// Numbers in their order.
    Whole(&'a [u8; WHOLE_BYTES]),
}

impl<'a> Coded<'a> {
    pub(crate) fn new(blocks: &'a [u8], bases: &'a [u8], whole: &'a [u8]) -> Coded<'a> {
        Coded { blocks: blocks.as_chunks().0, bases, whole: whole.as_chunks().0 }
    }

    /// The blocks of a row and their bases.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, blocks: usize) -> (&'a [[u8; BLOCK_BYTES]], &'a [u8]) {
        let here = row * blocks..(row + 1) * blocks;
        (&self.blocks[here.clone()], &self.bases[here])
    }

    /// Block `number`, counted row after row.
    #[inline(always)]
    pub(crate) fn block(&self, number: usize) -> Block<'a> {
        match self.bases[number] {
            WHOLE => self.whole_block(number),
            base => Block::Coded(&self.blocks[number], &EXPONENTS[usize::from(base)]),
        }
    }

    /// Those that follow are asked for, as nobody else foresees them.
    #[inline(never)]
    fn whole_block(&self, number: usize) -> Block<'a> {
        const AHEAD: usize = 4;
        let at = self.number_among_whole(number);
        let later = self.whole.as_ptr().wrapping_add(at + AHEAD);
        prefetch_second_level(later.cast(), WHOLE_BYTES);
        Block::Whole(&self.whole[at])
    }

    fn number_among_whole(&self, number: usize) -> usize {
        u32::from_le_bytes(self.blocks[number].as_chunks().0[0]) as usize
    }

    /// How many whole blocks there have to be.
    pub(crate) fn needed_whole(&self) -> usize {
        let numbers = self.bases.iter().enumerate().filter(|(_, base)| **base == WHOLE);
        numbers.map(|(number, _)| self.number_among_whole(number) + 1).max().unwrap_or(0)
    }
}

/// Where number `k` of a half lies in it, so that bytes put side by side in lanes of 128 bits come out as vectors of 16
/// neighbours: fours of each of the four groups of 16, even places in the first and third, odd ones in the others.
#[inline(always)]
pub(crate) const fn place(k: usize) -> usize {
    let (group, lane) = (k / 16, k % 16);
    lane / 4 * 16 + group / 2 * 8 + group % 2 + lane % 4 * 2
}

/// Whether [`code`] may code this matrix: BF16 in whole blocks.
pub fn can_code(w: &Matrix) -> bool {
    w.rows() > 0 && w.cols() > 0 && w.cols().is_multiple_of(BLOCK) && matches!(w.storage(), Storage::Bf16(_))
}

/// The most bytes that [`code`] makes of a matrix.
pub fn most_bytes(w: &Matrix) -> usize {
    let blocks = w.rows() * w.cols() / BLOCK;
    blocks * (BLOCK_BYTES + 1) + blocks / WHOLE_PER * WHOLE_BYTES
}

/// Codes the matrices that can be, into one new buffer in huge pages; the others stay as they are, and those with too many
/// blocks that would have to be kept whole.
pub fn code(pool: &Pool, matrices: &mut [&mut Matrix]) {
    let sources: Vec<Source> = matrices.iter().filter_map(|w| Source::of(w)).collect();
    let counts = count_whole(pool, &sources);
    let mut end = 0;
    let plans: Vec<Option<Plan>> = sources
        .iter()
        .zip(counts.chunks(PARTS))
        .map(|(source, counts)| Plan::new(source, counts, &mut end))
        .collect();
    let mut buffer = Lines::zeros(end);
    let out = Disjoint::new(&mut buffer);
    pool.run_parts(Parts::Alike { matrices: sources.len(), parts: PARTS }, |number, part| {
        if let Some(plan) = &plans[number] {
            plan.write(&sources[number], part, &out);
        }
    });
    let buffer = Bytes::from_owner(buffer);
    for (w, plan) in matrices.iter_mut().filter(|w| can_code(w)).zip(plans) {
        if let Some(plan) = plan {
            **w = w.stored_as(plan.storage(&buffer));
        }
    }
}

/// A matrix before.
struct Source {
    numbers: Bytes,
    rows: usize,
    blocks_of_row: usize,
}

impl Source {
    fn of(w: &Matrix) -> Option<Source> {
        match w.storage() {
            Storage::Bf16(numbers) if can_code(w) => {
                Some(Source { numbers: numbers.clone(), rows: w.rows(), blocks_of_row: w.cols() / BLOCK })
            }
            _ => None,
        }
    }

    /// The number of the first block of a part, which begins with a row.
    fn first(&self, part: usize) -> usize {
        self.rows * part / PARTS * self.blocks_of_row
    }

    fn blocks(&self, part: usize) -> &[[u8; WHOLE_BYTES]] {
        &self.numbers.as_chunks().0[self.first(part)..self.first(part + 1)]
    }
}

/// How many blocks of each part of each matrix have to be kept whole.
fn count_whole(pool: &Pool, sources: &[Source]) -> Vec<usize> {
    let mut counts = vec![0; sources.len() * PARTS];
    let out = Disjoint::new(&mut counts);
    pool.run_parts(Parts::Alike { matrices: sources.len(), parts: PARTS }, |number, part| {
        let whole = sources[number].blocks(part).iter().filter(|block| base(block).is_none()).count();
        // SAFETY: each part has a place of its own; the counts outlive the loop.
        unsafe { out.slice(number * PARTS + part, 1) }.copy_from_slice(&[whole]);
    });
    counts
}

/// Where the parts of a matrix go.
struct Plan {
    /// Where blocks, bases and whole blocks lie.
    blocks: Range<usize>,
    bases: Range<usize>,
    whole: Range<usize>,
    /// The first whole block of each part.
    first_whole: Vec<usize>,
}

impl Plan {
    /// Behind `end`, which moves; none if too much would have to be kept whole.
    fn new(source: &Source, counts: &[usize], end: &mut usize) -> Option<Plan> {
        let (blocks, kept) = (source.first(PARTS), counts.iter().sum::<usize>());
        if kept > blocks / WHOLE_PER || u32::try_from(kept).is_err() {
            return None;
        }
        let mut next = |len: usize| {
            let start = end.next_multiple_of(CACHE_LINE);
            *end = start + len;
            start..*end
        };
        let (blocks, bases) = (next(blocks * BLOCK_BYTES), next(blocks));
        let first_whole =
            counts.iter().scan(0, |sum, count| Some(std::mem::replace(sum, *sum + count))).collect();
        Some(Plan { blocks, bases, whole: next(kept * WHOLE_BYTES), first_whole })
    }

    fn write(&self, source: &Source, part: usize, out: &Disjoint<u8>) {
        let (first, blocks, mut kept) = (source.first(part), source.blocks(part), self.first_whole[part]);
        // SAFETY: blocks and bases of a part lie at places of their own; the buffer outlives the loop over the parts.
        let (coded, bases) = unsafe {
            let coded = out.slice(self.blocks.start + first * BLOCK_BYTES, blocks.len() * BLOCK_BYTES);
            (coded, out.slice(self.bases.start + first, blocks.len()))
        };
        for ((numbers, coded), found) in blocks.iter().zip(coded.as_chunks_mut().0).zip(bases) {
            *found = base(numbers).unwrap_or(WHOLE);
            if *found == WHOLE {
                coded[..4].copy_from_slice(&(kept as u32).to_le_bytes());
                // SAFETY: as above, of whole blocks.
                unsafe { out.slice(self.whole.start + kept * WHOLE_BYTES, WHOLE_BYTES) }
                    .copy_from_slice(numbers);
                kept += 1;
            } else {
                code_block(numbers, *found, coded);
            }
        }
    }

    fn storage(self, buffer: &Bytes) -> Storage {
        let [blocks, bases, whole] = [self.blocks, self.bases, self.whole].map(|part| buffer.slice(part));
        Storage::CodedBf16 { blocks, bases, whole }
    }
}

/// The exponent of a number.
#[inline(always)]
fn exponent(number: [u8; 2]) -> u8 {
    (u16::from_le_bytes(number) >> 7) as u8
}

/// The largest exponent, if all others can be said from there.
fn base(block: &[u8; WHOLE_BYTES]) -> Option<u8> {
    let numbers: &[[u8; 2]] = block.as_chunks().0;
    let base = numbers.iter().fold(0, |most, number| exponent(*number).max(most));
    let far = |number: &[u8; 2]| {
        let exponent = exponent(*number);
        u8::from(exponent > 0 && base - exponent >= ZERO)
    };
    (base < WHOLE && numbers.iter().fold(0, |any, number| any | far(number)) == 0).then_some(base)
}

/// Writes a block that is zeros so far.
fn code_block(block: &[u8; WHOLE_BYTES], base: u8, out: &mut [u8; BLOCK_BYTES]) {
    let numbers: &[[u8; 2]] = block.as_chunks().0;
    for (half, numbers) in numbers.as_chunks::<HALF>().0.iter().enumerate() {
        let fractions = numbers.map(|number| number[1] & 0x80 | number[0] & 0x7f);
        let codes = numbers.map(|number| match exponent(number) {
            0 => ZERO,
            exponent => base - exponent,
        });
        for k in 0..HALF {
            out[half * HALF + place(k)] = fractions[k];
            out[BLOCK + place(k)] |= codes[k] << (4 * half);
        }
    }
}
