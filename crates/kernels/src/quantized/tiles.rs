//! Sixteen rows against many tokens, four tokens at a time.
//!
//! Eight rows whose codes stay in registers need each token's codes spread over a vector for these rows alone, and all
//! products of a token end in one sum: to stay busy, a core has to look ahead over several tokens. Here weights wait unpacked
//! in the first-level cache, and a tile of two groups and four tokens has eight sums in registers: a vector that is loaded
//! is used four times, one that is spread twice. (The register blocking of GEMMs: Goto and van de Geijn, "Anatomy of
//! High-Performance Matrix Multiplication", 2008.) Sums are those of [`super::several_tokens`], to the bit.

use super::ahead::{Ahead, Fetching};
use super::groups::{Group, Sink};
use super::lanes::{Lanes, ROWS, Rows};
use super::{Format, MOST_GROUPS, MOST_ROWS, MOST_TOKENS, Piece, blocks_per_row};

/// From so many tokens on it pays to have weights wait.
const LEAST_TOKENS: usize = 24;

/// Whether the rows from the piece's row number `first` on are multiplied in tiles.
#[inline(always)]
pub(super) fn pay<L: Lanes, F: Format>(piece: &Piece<'_>, first: usize) -> bool {
    let small = <F::Group<L> as Group<L>>::BITS <= L::MOST_TILE_BITS;
    small && piece.tokens >= LEAST_TOKENS && first + ROWS < piece.rows
}

/// Two times eight rows against all tokens.
///
/// # Safety
/// `rows` are whole rows of the piece's matrix, and [`super::check`] has seen the piece.
#[inline(always)]
pub(super) unsafe fn whole<L: Lanes, F: Format>(
    piece: &Piece<'_>,
    rows: [&Rows; 2],
    [ahead, more_ahead]: [Ahead; 2],
    out: &mut [f32],
) {
    let mut sums = [[L::zero(); 2]; MOST_TOKENS];
    let sums = &mut sums[..piece.tokens];
    let mut sets = [Fetching::<L, F, _>::new(Wait::new(), ahead), Fetching::new(Wait::new(), more_ahead)];
    for block in 0..blocks_per_row::<F>(piece.w) {
        for (set, rows) in sets.iter_mut().zip(rows) {
            set.sink.waiting = 0;
            set.ahead.turn_to::<F>(block);
            // SAFETY: by the caller's promise.
            unsafe { F::unpack::<L>(rows, block, set) };
        }
        for group in 0..F::GROUPS {
            let x = &piece.x[(block * F::GROUPS + group) * piece.stride..][..piece.tokens];
            L::add_products([&sets[0].sink.groups[group], &sets[1].sink.groups[group]], x, sums);
        }
    }
    for (out, sums) in out.chunks_mut(MOST_ROWS).zip(sums) {
        out[..ROWS].copy_from_slice(&L::store(sums[0]));
        out[ROWS..2 * ROWS].copy_from_slice(&L::store(sums[1]));
    }
}

/// Keeps the groups of a block.
struct Wait<G> {
    groups: [G; MOST_GROUPS],
    waiting: usize,
}

impl<G> Wait<G> {
    #[inline(always)]
    fn new<L: Lanes>() -> Self
    where
        G: Group<L>,
    {
        Wait { groups: [G::zero(); MOST_GROUPS], waiting: 0 }
    }
}

impl<G> Sink<G> for Wait<G> {
    #[inline(always)]
    fn take(&mut self, group: G) {
        self.groups[self.waiting] = group;
        self.waiting += 1;
    }
}
