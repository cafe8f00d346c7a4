//! Products of quantised weights with activations quantised to int8: the fast path.
//!
//! One definition for all formats, instruction sets and batch sizes. Columns go in blocks of 32, in order.
//! A block's codes are multiplied in whole numbers, which is exact whatever the order, and one fused
//! multiply-add takes the block into the sum: `sum = fma(float(dot), weight_scale * x_scale, sum)`; formats
//! with a minimum add `fma(min, x_scale * Σ x_codes, sum)`. So an output's bits depend on its weights and
//! its token alone.
//!
//! Eight weight rows go side by side, 32 bits of each in a vector ([`lanes`]), so nothing is ever summed
//! across a vector; their blocks are transposed on the way from the file to the registers and, for several
//! tokens, kept unpacked in the first-level cache. Unpacking is written once ([`k_quants`], [`blocks_of_32`]).

/// The statements once for each number, which is a constant in them: shifts by constants, and no array that is indexed
/// by what only runs know, are what keeps codes in registers.
macro_rules! unrolled {
    ($name:ident in $($number:literal),+ => $body:block) => {
        $({
            const $name: usize = $number;
            $body
        })+
    };
}

pub(crate) mod activations;
mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod blocks_of_32;
mod groups;
mod k_quants;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::ggml::GgmlType;
use crate::interleaved::Interleaved;
use crate::isa::Isa;
use crate::matrix::{Matrix, Storage};
use crate::prefetch::RowStart;
use activations::{Block, Order};
use ahead::{Ahead, Fetching};
use groups::{Group, Sink};
use lanes::{Lanes, ROWS, Rows};

/// Most weight rows and tokens of one [`product`].
pub(crate) const MOST_ROWS: usize = 32;
/// Tokens that share unpacked weights.
pub(crate) const MOST_TOKENS: usize = 64;

/// Groups in the longest stored block.
const MOST_GROUPS: usize = 8;

/// A part of a product.
pub(crate) struct Piece<'a> {
    pub(crate) w: &'a Matrix,
    /// First weight row.
    pub(crate) row: usize,
    /// How many, up to [`MOST_ROWS`]; against one token any number that the outputs have room for.
    pub(crate) rows: usize,
    /// Blocks of the activations, block by block, in each token by token.
    pub(crate) x: &'a [Block],
    /// From one block to the next of the same token.
    pub(crate) stride: usize,
    /// How many tokens, up to [`MOST_TOKENS`].
    pub(crate) tokens: usize,
    /// What is read after this.
    pub(crate) then: RowStart,
}

/// The order in which a format's integer codes come, if it has codes that this path multiplies.
pub(crate) fn codes_of(w: &Matrix) -> Option<Order> {
    match w.storage() {
        Storage::Int4 { .. } | Storage::Interleaved { format: Interleaved::Int4, .. } => Some(Order::EvenOdd),
        Storage::Ggml { .. } | Storage::Interleaved { .. } => Some(Order::Natural),
        Storage::F32(_)
        | Storage::F16(_)
        | Storage::Bf16(_)
        | Storage::CodedBf16 { .. }
        | Storage::Fp8 { .. } => None,
    }
}

/// `out[t * MOST_ROWS + r]`, the dot product of token `t` and weight row `piece.row + r`; what is behind the last row, up
/// to a multiple of eight, has no meaning.
pub(crate) fn product(isa: Isa, piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
    check(piece);
    match piece.w.storage() {
        Storage::Int4 { .. } if piece.w.cols().is_multiple_of(256) => {
            on::<blocks_of_32::Int4Runs>(isa, piece, out)
        }
        Storage::Int4 { .. } => on::<blocks_of_32::Int4>(isa, piece, out),
        Storage::Ggml { kind, .. } => match kind {
            GgmlType::Q4_0 => on::<blocks_of_32::Q4_0>(isa, piece, out),
            GgmlType::Q4_1 => on::<blocks_of_32::Q4_1>(isa, piece, out),
            GgmlType::Q5_0 => on::<blocks_of_32::Q5_0>(isa, piece, out),
            GgmlType::Q5_1 => on::<blocks_of_32::Q5_1>(isa, piece, out),
            GgmlType::Q8_0 => on::<blocks_of_32::Q8_0>(isa, piece, out),
            GgmlType::IQ4_NL => on::<blocks_of_32::Iq4Nl>(isa, piece, out),
            GgmlType::MXFP4 => on::<blocks_of_32::Mxfp4>(isa, piece, out),
            GgmlType::Q2_K => on::<k_quants::Q2K>(isa, piece, out),
            GgmlType::Q3_K => on::<k_quants::Q3K>(isa, piece, out),
            GgmlType::Q4_K => on::<k_quants::Q4K>(isa, piece, out),
            GgmlType::Q5_K => on::<k_quants::Q5K>(isa, piece, out),
            GgmlType::Q6_K => on::<k_quants::Q6K>(isa, piece, out),
            GgmlType::IQ4_XS => on::<k_quants::Iq4Xs>(isa, piece, out),
        },
        Storage::Interleaved { format, .. } => interleaved_product(isa, *format, piece, out),
        Storage::F32(_)
        | Storage::F16(_)
        | Storage::Bf16(_)
        | Storage::CodedBf16 { .. }
        | Storage::Fp8 { .. } => {
            unreachable!("{} has no integer codes", piece.w.format())
        }
    }
}

fn interleaved_product(
    isa: Isa,
    format: Interleaved,
    piece: &Piece<'_>,
    out: &mut [f32; MOST_ROWS * MOST_TOKENS],
) {
    match format {
        Interleaved::Int4 => on_panels::<blocks_of_32::Int4Runs>(isa, piece, out),
        Interleaved::Q4K => on_panels::<k_quants::Q4K>(isa, piece, out),
        Interleaved::Q5K => on_panels::<k_quants::Q5K>(isa, piece, out),
        Interleaved::Q6K => on_panels::<k_quants::Q6K>(isa, piece, out),
        Interleaved::Q8_0 => on_panels::<blocks_of_32::Q8_0>(isa, piece, out),
    }
}

/// What the unsafe code below relies on, besides the lengths that [`Matrix::new`] has checked.
fn check(piece: &Piece<'_>) {
    let Piece { w, row, rows, x, stride, tokens, .. } = *piece;
    let most = if tokens == 1 { MOST_ROWS * MOST_TOKENS } else { MOST_ROWS };
    assert!(0 < rows && rows <= most && row + rows <= w.rows(), "rows {row}+{rows} of {}", w.rows());
    assert!(0 < tokens && tokens <= MOST_TOKENS && tokens <= stride, "{tokens} tokens of {stride}");
    let in_panels = matches!(w.storage(), Storage::Interleaved { .. });
    assert!(!in_panels || row.is_multiple_of(ROWS), "row {row} begins no panel");
    let last = (w.cols() / activations::BLOCK).saturating_sub(1) * stride + tokens;
    assert!(w.cols().is_multiple_of(activations::BLOCK) && last <= x.len(), "{last} blocks of {}", x.len());
}

/// Rows as they are published.
fn on<F: Format>(isa: Isa, piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
    on_layout::<F, false>(isa, piece, out);
}

/// Rows in panels.
fn on_panels<F: Format>(isa: Isa, piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
    on_layout::<F, true>(isa, piece, out);
}

fn on_layout<F: Format, const PANELS: bool>(
    isa: Isa,
    piece: &Piece<'_>,
    out: &mut [f32; MOST_ROWS * MOST_TOKENS],
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn on_avx2<F: Format, const PANELS: bool>(piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
        whole::<avx2::Avx2<false, PANELS>, F>(piece, out);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn on_vnni<F: Format, const PANELS: bool>(piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
        whole::<avx2::Avx2<true, PANELS>, F>(piece, out);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn on_amx<F: Format, const PANELS: bool>(piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
        // SAFETY: `check` and `Matrix::new` have compared all sizes; the caller has seen AMX.
        unsafe { amx::whole::<avx2::Avx2<true, PANELS>, F>(piece, out) };
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    fn on_neon<F: Format, const PANELS: bool>(piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
        whole::<neon::Neon<false, PANELS>, F>(piece, out);
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon,dotprod")]
    fn on_dotprod<F: Format, const PANELS: bool>(
        piece: &Piece<'_>,
        out: &mut [f32; MOST_ROWS * MOST_TOKENS],
    ) {
        whole::<neon::Neon<true, PANELS>, F>(piece, out);
    }
    match isa {
        // SAFETY: NEON is part of every aarch64; `dotprod` is looked for.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => unsafe {
            on_dotprod::<F, PANELS>(piece, out)
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { on_neon::<F, PANELS>(piece, out) },
        // SAFETY: this value of `Isa` comes from `Isa::available`, which has seen the features and asked the system.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if amx::pays::<F>(piece.tokens) => unsafe { on_amx::<F, PANELS>(piece, out) },
        // SAFETY: as above; VNNI is looked for.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx if is_x86_feature_detected!("avx512vnni") => unsafe {
            on_vnni::<F, PANELS>(piece, out)
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => unsafe { on_avx2::<F, PANELS>(piece, out) },
        _ => whole::<scalar::Scalar<PANELS>, F>(piece, out),
    }
}

/// How the blocks of a format are unpacked.
trait Format {
    /// Groups of 32 columns in one stored block.
    const GROUPS: usize;
    /// Bytes of one stored block (INT4: without its scales).
    const BYTES: usize;
    /// Bytes of a block's scales, where they lie elsewhere.
    const SCALE_BYTES: usize = 0;
    /// Whether the halves of a group have scales of their own.
    #[cfg(target_arch = "x86_64")]
    const HALVES: bool = false;
    /// The unpacked form.
    type Group<L: Lanes>: Group<L>;

    /// Unpacks block number `block` of eight rows and hands over its groups in order.
    ///
    /// # Safety
    /// The rows have such a block.
    unsafe fn unpack<L: Lanes>(rows: &Rows, block: usize, sink: &mut impl Sink<Self::Group<L>>);
}

#[inline(always)]
fn whole<L: Lanes, F: Format>(piece: &Piece<'_>, out: &mut [f32; MOST_ROWS * MOST_TOKENS]) {
    let mut first = 0;
    while first < piece.rows {
        let in_tiles = tiles::pay::<L, F>(piece, first);
        let next = first + if in_tiles { 2 * ROWS } else { ROWS };
        let (rows, ahead) = eight_rows::<L, F>(piece, first, next);
        // SAFETY: `check` and `Matrix::new` have compared all sizes; the rows are those of the matrix.
        unsafe {
            match piece.tokens {
                1 => out[first..next].copy_from_slice(&one_token::<L, F>(piece, &rows, ahead)),
                _ if in_tiles => {
                    let (more_rows, more_ahead) = eight_rows::<L, F>(piece, first + ROWS, next + ROWS);
                    let rows = [&rows, &more_rows];
                    tiles::whole::<L, F>(piece, rows, [ahead, more_ahead], &mut out[first..]);
                }
                _ => several_tokens::<L, F>(piece, &rows, ahead, &mut out[first..]),
            }
        }
        first = next;
    }
}

/// Rows from the piece's row number `first` on; those from `next` on are asked for while they are multiplied, or what is
/// read after the piece.
#[inline(always)]
fn eight_rows<L: Lanes, F: Format>(piece: &Piece<'_>, first: usize, next: usize) -> (Rows, Ahead) {
    let row_bytes = [F::BYTES, F::SCALE_BYTES].map(|bytes| blocks_per_row::<F>(piece.w) * bytes);
    let start = RowStart::of(piece.w, piece.row);
    let rows = rows_of::<L>(
        start.offset(row_bytes.map(|bytes| first * bytes)),
        row_bytes,
        ROWS.min(piece.rows - first),
    );
    let then = match next < piece.rows {
        true => start.offset(row_bytes.map(|bytes| next * bytes)),
        false if piece.then.codes.is_null() => piece.then,
        // What is read then is multiplied side by side too: each eight rows ask for theirs.
        false => piece.then.offset(row_bytes.map(|bytes| (next - piece.rows) / ROWS * ROWS * bytes)),
    };
    let ahead = Ahead::new::<L, F>(piece, &rows, then);
    (rows, ahead)
}

/// Eight rows against the only token: weights go from the file to the multiplication.
///
/// # Safety
/// `rows` are whole rows of the piece's matrix, and [`check`] has seen the piece.
#[inline(always)]
unsafe fn one_token<L: Lanes, F: Format>(piece: &Piece<'_>, rows: &Rows, ahead: Ahead) -> [f32; ROWS] {
    let multiply = Multiply::<L> { x: piece.x.as_ptr(), stride: piece.stride, sum: L::zero() };
    let mut sink = Fetching::<L, F, _>::new(multiply, ahead);
    for block in 0..blocks_per_row::<F>(piece.w) {
        sink.ahead.turn_to::<F>(block);
        // SAFETY: by the caller's promise; the sink takes as many groups as there are blocks of `x`.
        unsafe { F::unpack::<L>(rows, block, &mut sink) };
    }
    L::store(sink.sink.sum)
}

/// Eight rows against all tokens: unpacked weights stay in registers.
///
/// # Safety
/// `rows` are whole rows of the piece's matrix, and [`check`] has seen the piece.
#[inline(always)]
unsafe fn several_tokens<L: Lanes, F: Format>(piece: &Piece<'_>, rows: &Rows, ahead: Ahead, out: &mut [f32]) {
    let mut sums = [L::zero(); MOST_TOKENS];
    let multiply = MultiplyAll::<L> { x: piece.x, stride: piece.stride, sums: &mut sums[..piece.tokens] };
    let mut sink = Fetching::<L, F, _>::new(multiply, ahead);
    for block in 0..blocks_per_row::<F>(piece.w) {
        sink.ahead.turn_to::<F>(block);
        // SAFETY: by the caller's promise.
        unsafe { F::unpack::<L>(rows, block, &mut sink) };
    }
    for (out, sums) in out.chunks_mut(MOST_ROWS).zip(&sums).take(piece.tokens) {
        out[..ROWS].copy_from_slice(&L::store(*sums));
    }
}

/// Stored blocks of a row.
fn blocks_per_row<F: Format>(w: &Matrix) -> usize {
    w.cols() / (F::GROUPS * activations::BLOCK)
}

/// Multiplies each group with the one token there is, as it comes.
struct Multiply<L: Lanes> {
    x: *const Block,
    stride: usize,
    sum: L::Float,
}

impl<L: Lanes, G: Group<L>> Sink<G> for Multiply<L> {
    #[inline(always)]
    fn take(&mut self, group: G) {
        // SAFETY: one block of `x` per group, by `check`; the pointer moves on as they are used up.
        self.sum = group.multiply(unsafe { &*self.x }, self.sum);
        self.x = self.x.wrapping_add(self.stride);
    }
}

/// Multiplies each group with all tokens.
struct MultiplyAll<'a, L: Lanes> {
    x: &'a [Block],
    stride: usize,
    sums: &'a mut [L::Float],
}

impl<L: Lanes, G: Group<L>> Sink<G> for MultiplyAll<'_, L> {
    #[inline(always)]
    fn take(&mut self, group: G) {
        for (x, sum) in self.x.iter().zip(self.sums.iter_mut()) {
            *sum = group.multiply(x, *sum);
        }
        self.x = self.x.get(self.stride..).unwrap_or_default();
    }
}

/// Where eight rows begin; past the last one it is repeated, and its results are not used. Rows in panels begin where
/// their panel does.
#[inline(always)]
fn rows_of<L: Lanes>(start: RowStart, row_bytes: [usize; 2], count: usize) -> Rows {
    let (mut blocks, mut scales) = ([start.codes; ROWS], [start.scales; ROWS]);
    if !L::PANELS {
        for r in 1..ROWS {
            let row = start.offset(row_bytes.map(|bytes| r.min(count - 1) * bytes));
            (blocks[r], scales[r]) = (row.codes, row.scales);
        }
    }
    Rows { blocks, scales }
}
