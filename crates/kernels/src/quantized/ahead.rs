//! What is asked for while eight rows are multiplied, so that memory is never waited for.
//!
//! A core keeps some 24 lines on their way from memory at once; asking for more makes it stand still. So the weights of
//! a later round of eight groups are asked for in eight parts, one with each group. Rows in panels are read from one end
//! to the other. Short rows as they are published are asked for in that order too, all eight while the eight before them
//! are multiplied; of long ones, which would drive each other out of the first-level cache, each part is one row's. Behind
//! the last round of these rows come the next eight, behind those what the thread reads next.

use super::groups::Sink;
use super::lanes::{Lanes, ROWS, Rows};
use super::{Format, MOST_GROUPS, Piece, activations};
use crate::prefetch::{RowStart, prefetch};
use std::marker::PhantomData;

/// How far ahead, in bytes of all eight rows.
const DISTANCE: usize = 4 << 10;

/// Eight rows as they are published are short up to so many bytes.
const SHORT: usize = 20 << 10;

/// The later rounds, part by part.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Where these eight rows begin, and those that come after.
    here: RowStart,
    then: RowStart,
    rounds: usize,
    /// How many rounds ahead, and codes and scales from one round to the next and from one part to the next.
    distance: usize,
    round_bytes: [usize; 2],
    part_bytes: [usize; 2],
    /// Where the round that is asked for begins, and its next part.
    round: RowStart,
    part: usize,
}

impl Ahead {
    /// `then` is what is read after these eight rows.
    #[inline(always)]
    pub(super) fn new<L: Lanes, F: Format>(piece: &Piece<'_>, rows: &Rows, then: RowStart) -> Ahead {
        let rounds = piece.w.cols() / (MOST_GROUPS * activations::BLOCK);
        let here = RowStart { codes: rows.blocks[0], scales: rows.scales[0] };
        let row = [row_in_round(F::BYTES, F::GROUPS), row_in_round(F::SCALE_BYTES, F::GROUPS)];
        let distance = DISTANCE.div_ceil(ROWS * row[0]).min(rounds);
        let (distance, step, part_bytes) = match L::PANELS {
            true => (distance, ROWS, row),
            false if ROWS * rounds * row[0] <= SHORT => (rounds, ROWS, row),
            false => (distance, 1, row.map(|bytes| rounds * bytes)),
        };
        let round_bytes = row.map(|bytes| step * bytes);
        Ahead { here, then, rounds, distance, round_bytes, part_bytes, round: RowStart::NOWHERE, part: 0 }
    }

    /// Before the groups of a block are taken.
    #[inline(always)]
    pub(super) fn turn_to<F: Format>(&mut self, block: usize) {
        let group = block * F::GROUPS;
        self.part = group % MOST_GROUPS;
        if self.part != 0 {
            return;
        }
        let round = group / MOST_GROUPS + self.distance;
        let (start, round) =
            if round < self.rounds { (self.here, round) } else { (self.then, round - self.rounds) };
        self.round = start;
        if !start.codes.is_null() {
            self.round = start.offset(self.round_bytes.map(|bytes| round * bytes));
        }
    }

    /// The round that is asked for.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn round<F: Format>(&self) -> Round {
        let bytes = [row_in_round(F::BYTES, F::GROUPS), row_in_round(F::SCALE_BYTES, F::GROUPS)];
        Round { start: self.round, part_bytes: self.part_bytes, bytes }
    }

    /// Asks for the next part of the round.
    #[inline(always)]
    fn next_part<F: Format>(&mut self) {
        let part = self.part;
        self.part += 1;
        if self.round.codes.is_null() {
            return;
        }
        let start = self.round.offset(self.part_bytes.map(|bytes| part * bytes));
        prefetch(start.codes, row_in_round(F::BYTES, F::GROUPS));
        prefetch(start.scales, row_in_round(F::SCALE_BYTES, F::GROUPS));
    }
}

/// A later round, for who asks for its parts in times of his own.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Round {
    start: RowStart,
    part_bytes: [usize; 2],
    bytes: [usize; 2],
}

#[cfg(target_arch = "x86_64")]
impl Round {
    /// No rows.
    pub(super) const NOTHING: Round = Round { start: RowStart::NOWHERE, part_bytes: [0; 2], bytes: [0; 2] };

    /// Asks for one of [`MOST_GROUPS`] parts.
    #[inline(always)]
    pub(super) fn ask_for(&self, part: usize) {
        if self.start.codes.is_null() {
            return;
        }
        let start = self.start.offset(self.part_bytes.map(|bytes| part * bytes));
        prefetch(start.codes, self.bytes[0]);
        prefetch(start.scales, self.bytes[1]);
    }
}

/// What one row has in a round, from what it has in a block.
const fn row_in_round(block: usize, groups: usize) -> usize {
    block * MOST_GROUPS / groups
}

/// Hands groups on, and with each asks for a part of what comes later.
pub(super) struct Fetching<L: Lanes, F: Format, S> {
    pub(super) sink: S,
    pub(super) ahead: Ahead,
    format: PhantomData<(L, F)>,
}

impl<L: Lanes, F: Format, S> Fetching<L, F, S> {
    #[inline(always)]
    pub(super) fn new(sink: S, ahead: Ahead) -> Self {
        Fetching { sink, ahead, format: PhantomData }
    }
}

impl<L: Lanes, F: Format, S: Sink<F::Group<L>>> Sink<F::Group<L>> for Fetching<L, F, S> {
    #[inline(always)]
    fn take(&mut self, group: F::Group<L>) {
        self.ahead.next_part::<F>();
        self.sink.take(group);
    }
}
