//! Rows of activations in the form that the products of some matrices read.
//!
//! Prepared once per row and shared by all matrices that multiply it. The exact path, and formats without
//! integer codes, read f32; the fast path reads int8 where the weights have codes. Rows lie in segments
//! (heads, or the tokens of an expert), in each piece of columns by piece, so that the rows of a piece are
//! neighbours: rows a power of two apart would all fall into the same few sets of the cache.

use crate::dot::{Aligned, LANES, Sum, flat};
use crate::isa::{Isa, isa};
use crate::matrix::{Matrix, TILE};
use crate::pool::{Disjoint, Pool};
use crate::quantized::activations::{BLOCK, Block, Order, quantize};
use crate::quantized::codes_of;

/// How products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Weights widened to f32, activations in f32: the oracle.
    Exact,
    /// Activations as int8 where the weights are integer codes; all else as in [`Precision::Exact`].
    #[default]
    Fast,
}

/// What a product reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tiles of [`TILE`] f32.
    Floats,
    /// Blocks of int8.
    Codes(Order),
}

impl Form {
    pub(crate) fn of(precision: Precision, w: &Matrix) -> Form {
        match precision {
            Precision::Fast => codes_of(w).map_or(Form::Floats, Form::Codes),
            Precision::Exact => Form::Floats,
        }
    }
}

/// Neighbouring rows that the same matrix multiplies.
#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// Tiles and blocks before it.
    tile: usize,
    block: usize,
    rows: usize,
    cols: usize,
}

impl Segment {
    /// One that lies behind this.
    fn next(self, rows: usize, cols: usize) -> Segment {
        let tile = self.tile + self.rows * self.cols.div_ceil(TILE);
        Segment { tile, block: self.block + self.rows * self.cols.div_ceil(BLOCK), rows, cols }
    }
}

/// Rows `[rows, cols]` in the forms that some matrices need. Buffers are kept and grow to the largest use.
#[derive(Default)]
pub struct Inputs {
    precision: Precision,
    segments: Vec<Segment>,
    /// Segments that are not gathered from others.
    own: usize,
    tiles: Vec<Aligned<Sum>>,
    natural: Vec<Block>,
    even_odd: Vec<Block>,
    forms: Vec<Form>,
}

impl Inputs {
    /// Takes `x`, `[T, heads, cols]`, for products with `weights`, each head a segment of T rows.
    pub fn set<'w>(
        &mut self,
        pool: &Pool,
        precision: Precision,
        weights: impl Iterator<Item = &'w Matrix> + Clone,
        heads: usize,
        x: &[f32],
    ) {
        let cols = weights.clone().next().map_or(0, Matrix::cols);
        let rows = x.len() / cols.max(1);
        assert_eq!(rows / heads * heads * cols, x.len(), "{heads} heads of {cols} columns");
        assert!(weights.clone().all(|w| w.cols() == cols), "weights that share inputs have one width");
        let segments = std::iter::repeat_n((rows / heads, cols), heads);
        let writer = self.writer(precision, weights, segments);
        let isa = isa();
        let per_task = (1 << 15) / cols.max(1) + 1;
        pool.run(rows.div_ceil(per_task), |task| {
            for row in task * per_task..rows.min((task + 1) * per_task) {
                for form in writer.forms {
                    // SAFETY: each row has one place, and each row is in one task.
                    unsafe {
                        writer.write(*form, isa, row % heads, row / heads, 0, &x[row * cols..][..cols])
                    };
                }
            }
        });
    }

    /// Makes room for segments of so many rows and columns; every piece of them is then written through the writer.
    pub(crate) fn writer<'w>(
        &mut self,
        precision: Precision,
        weights: impl Iterator<Item = &'w Matrix>,
        segments: impl Iterator<Item = (usize, usize)>,
    ) -> Writer<'_> {
        self.precision = precision;
        self.forms.clear();
        for form in weights.map(|w| Form::of(precision, w)) {
            if !self.forms.contains(&form) {
                self.forms.push(form);
            }
        }
        self.segments.clear();
        let mut last = Segment::default();
        self.segments.extend(segments.map(|(rows, cols)| {
            last = last.next(rows, cols);
            last
        }));
        self.own = self.segments.len();
        self.grow(last);
        Writer {
            tiles: Disjoint::new(&mut self.tiles),
            natural: Disjoint::new(&mut self.natural),
            even_odd: Disjoint::new(&mut self.even_odd),
            forms: &self.forms,
            segments: &self.segments,
        }
    }

    /// Room for everything up to the end of a segment.
    fn grow(&mut self, last: Segment) {
        let Segment { tile, block, .. } = last.next(0, 0);
        for form in &self.forms {
            match form {
                Form::Floats => at_least(&mut self.tiles, tile * TILE / LANES, Aligned([0.0; LANES])),
                Form::Codes(Order::Natural) => at_least(&mut self.natural, block, Block::default()),
                Form::Codes(Order::EvenOdd) => at_least(&mut self.even_odd, block, Block::default()),
            }
        }
    }

    /// Some rows of segment 0 as a segment of their own; its number. A single row, and all rows, are not copied.
    pub fn gather(&mut self, rows: &[u32]) -> usize {
        let all = self.segments[0];
        if rows.len() == all.rows {
            self.segments.push(all);
            return self.segments.len() - 1;
        }
        let last = self.segments.iter().max_by_key(|segment| segment.block).copied().unwrap_or_default();
        let new = last.next(rows.len(), all.cols);
        self.segments.push(new);
        self.grow(new);
        let blocks = all.cols.div_ceil(BLOCK);
        for form in &self.forms {
            match form {
                Form::Floats => {
                    let (lanes, tiles) = (TILE / LANES, all.cols.div_ceil(TILE));
                    copy(&mut self.tiles, tiles, lanes, all.rows, new.tile, rows);
                }
                Form::Codes(Order::Natural) => copy(&mut self.natural, blocks, 1, all.rows, new.block, rows),
                Form::Codes(Order::EvenOdd) => copy(&mut self.even_odd, blocks, 1, all.rows, new.block, rows),
            }
        }
        self.segments.len() - 1
    }

    /// Gives up the gathered segments.
    pub fn forget_gathered(&mut self) {
        self.segments.truncate(self.own);
    }

    /// How many rows a segment has.
    pub fn rows(&self, segment: usize) -> usize {
        self.segments[segment].rows
    }

    /// How many columns a segment has.
    pub fn cols(&self, segment: usize) -> usize {
        self.segments[segment].cols
    }

    /// How its products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The form that a product of a segment with `w` reads. Panics if these inputs were not made for it.
    pub(crate) fn form(&self, w: &Matrix, segment: usize) -> Form {
        let form = Form::of(self.precision, w);
        let fit = self.forms.contains(&form) && w.cols() == self.segments[segment].cols;
        assert!(fit, "inputs made for other weights");
        form
    }

    /// Tiles of a segment from a row on; the next tile of the same row begins [`Inputs::rows`] tiles later.
    pub(crate) fn tiles(&self, segment: usize, row: usize) -> &[f32] {
        &flat(&self.tiles)[(self.segments[segment].tile + row) * TILE..]
    }

    /// Blocks of a segment from a row on; the next block of the same row comes [`Inputs::rows`] later.
    pub(crate) fn blocks(&self, order: Order, segment: usize, row: usize) -> &[Block] {
        let blocks = match order {
            Order::Natural => &self.natural,
            Order::EvenOdd => &self.even_odd,
        };
        &blocks[self.segments[segment].block + row..]
    }
}

fn at_least<T: Clone>(buffer: &mut Vec<T>, len: usize, empty: T) {
    if buffer.len() < len {
        buffer.resize(len, empty);
    }
}

/// Copies rows of the first `all` to a segment from piece `first` on; a row has `pieces` pieces of `len` items.
fn copy<T: Copy>(buffer: &mut [T], pieces: usize, len: usize, all: usize, first: usize, rows: &[u32]) {
    let (from, to) = buffer.split_at_mut(first * len);
    for (piece, to) in to.chunks_exact_mut(rows.len() * len).take(pieces).enumerate() {
        for (to, row) in to.chunks_exact_mut(len).zip(rows) {
            to.copy_from_slice(&from[(piece * all + *row as usize) * len..][..len]);
        }
    }
}

/// Fills inputs piece by piece, from several tasks.
pub(crate) struct Writer<'a> {
    tiles: Disjoint<Aligned<Sum>>,
    natural: Disjoint<Block>,
    even_odd: Disjoint<Block>,
    forms: &'a [Form],
    segments: &'a [Segment],
}

impl Writer<'_> {
    /// Columns of one row in one form, beginning at a multiple of [`BLOCK`], ending at one or with the row.
    ///
    /// # Safety
    /// No two tasks write the same columns of a row.
    pub(crate) unsafe fn write(
        &self,
        form: Form,
        isa: Isa,
        segment: usize,
        row: usize,
        first_col: usize,
        x: &[f32],
    ) {
        let segment = self.segments[segment];
        let end = first_col + x.len();
        assert!(row < segment.rows && first_col.is_multiple_of(BLOCK) && end <= segment.cols);
        assert!(end == segment.cols || x.len().is_multiple_of(BLOCK));
        let place = Place { segment, row, first_col };
        match form {
            Form::Floats => self.write_tiles(&place, x),
            Form::Codes(order @ Order::Natural) => write_blocks(isa, &self.natural, &place, order, x),
            Form::Codes(order @ Order::EvenOdd) => write_blocks(isa, &self.even_odd, &place, order, x),
        }
    }

    /// The last lanes of a row are padded with zeros.
    fn write_tiles(&self, place: &Place, x: &[f32]) {
        for (piece, x) in x.chunks(BLOCK).enumerate() {
            let col = place.first_col + piece * BLOCK;
            let at = place.index(place.segment.tile, TILE, col) * (TILE / LANES) + col % TILE / LANES;
            // SAFETY: by the caller's promise these columns are written by this task alone.
            let lanes = unsafe { self.tiles.slice(at, x.len().div_ceil(LANES)) };
            for (lanes, x) in lanes.iter_mut().zip(x.chunks(LANES)) {
                lanes.0[x.len()..].fill(0.0);
                lanes.0[..x.len()].copy_from_slice(x);
            }
        }
    }
}

/// Where some columns of a row go.
struct Place {
    segment: Segment,
    row: usize,
    first_col: usize,
}

impl Place {
    /// The number of the piece of `len` columns that holds `col`, the segment's first being number `first`.
    #[inline(always)]
    fn index(&self, first: usize, len: usize, col: usize) -> usize {
        first + col / len * self.segment.rows + self.row
    }
}

fn write_blocks(isa: Isa, blocks: &Disjoint<Block>, place: &Place, order: Order, x: &[f32]) {
    for (piece, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        // SAFETY: by the promise of `Writer::write` these columns are written by this task alone.
        let block = unsafe {
            blocks.slice(place.index(place.segment.block, BLOCK, place.first_col + piece * BLOCK), 1)
        };
        block[0] = quantize(isa, x, order);
    }
}
