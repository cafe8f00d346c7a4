//! Up to 32 rows against many tokens in the tiles of AMX (Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 1, chapter 18).
//!
//! `tdpbssd` multiplies 16 tokens' activations, as they lie, with the codes of 16 rows, as the lanes of two vectors have them,
//! and adds up a group's 32 columns in whole numbers: 16,384 operations in 16 cycles (LOG.md has all times). What
//! remains is the step from whole numbers to sums, which is that of [`super::wide`], to the bit: vectors of 16 rows take the
//! products of eight groups up token by token, while the sums stay in registers.
//!
//! The compiler has no functions for these instructions yet, and uses no tiles of its own.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::marker::PhantomData;

use super::activations::Block;
use super::ahead::{Ahead, Round};
use super::groups::{Group, Linear, ScaledHalves, Sink};
use super::lanes::{Lanes, ROWS, Rows};
use super::{Format, MOST_GROUPS, MOST_ROWS, MOST_TOKENS, Piece, blocks_per_row, eight_rows};

/// Whether tiles are faster than vectors: from 8 tokens on; where halves have scales of their own, which takes two products for
/// each group, from 24 on.
#[inline(always)]
pub(super) fn pays<F: Format>(tokens: usize) -> bool {
    tokens >= if F::HALVES { 24 } else { 8 }
}

/// Tokens and weight rows of a tile of products.
const SIDE: usize = 16;

/// Pairs of eight rows.
const PAIRS: usize = MOST_ROWS / SIDE;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: called only from functions compiled for AVX-512 F, BW, DQ and VNNI, on machines that have them; what is loaded
        // is a reference.
        unsafe { $expression }
    }};
}

/// A statement for each token of a tile, whose number is a constant in it.
macro_rules! for_each_token {
    ($token:ident => $body:stmt) => {
        unrolled!($token in 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 => { $body })
    };
}

/// All rows of a piece against all its tokens.
///
/// # Safety
/// [`super::check`] has seen the piece, which has several tokens, and the process may use tiles.
#[inline(always)]
pub(super) unsafe fn whole<L: Lanes<Int = __m256i, Float = __m256>, F: Format>(
    piece: &Piece<'_>,
    out: &mut [f32; MOST_ROWS * MOST_TOKENS],
) {
    let sets = piece.rows.div_ceil(ROWS);
    let mut rows: [(Rows, Ahead); MOST_ROWS / ROWS] = std::array::from_fn(|set| {
        let first = ROWS * set.min(sets - 1);
        eight_rows::<L, F>(piece, first, first + ROWS * sets)
    });
    let (kind, blocks) = (Kind::of::<L, F::Group<L>>(), blocks_per_row::<F>(piece.w));
    let mut room = ROOM.take().unwrap_or_else(Room::new);
    let Room { waiting, products } = &mut *room;
    let mut tiles = Tiles::new(kind, piece.tokens, products);
    out[..piece.tokens * MOST_ROWS].fill(0.0);
    let mut first = 0;
    for block in 0..blocks {
        for (set, (rows, ahead)) in rows.iter_mut().enumerate().take(sets) {
            ahead.turn_to::<F>(block);
            waiting.later[set] = ahead.round::<F>();
            let groups = waiting.groups[set / 2][waiting.len..].iter_mut();
            let mut stage = Stage::<L> { groups, side: set % 2, lanes: PhantomData };
            // SAFETY: by the caller's promise.
            unsafe { F::unpack::<L>(rows, block, &mut stage) };
        }
        waiting.len += F::GROUPS;
        if waiting.len + F::GROUPS > MOST_GROUPS || block + 1 == blocks {
            let x = Activations { blocks: &piece.x[first * piece.stride..], stride: piece.stride };
            // SAFETY: by the caller's promise.
            unsafe { tiles.multiply(kind, waiting, sets, &x, out) };
            first += waiting.len;
            waiting.len = 0;
        }
    }
    drop(tiles);
    ROOM.set(Some(room));
}

thread_local! {
    /// Kept from piece to piece: to clear it for each is felt.
    static ROOM: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

/// What waits for the tiles, and what comes out of them.
struct Room {
    waiting: Waiting,
    products: [Products; MOST_GROUPS],
}

impl Room {
    fn new() -> Box<Room> {
        Box::new(Room { waiting: Waiting::new(), products: [Products([[[0; SIDE]; SIDE]; 2]); MOST_GROUPS] })
    }
}

/// How products become sums.
#[derive(Clone, Copy)]
enum Kind {
    Linear { min: bool },
    Halves { min: bool },
}

impl Kind {
    #[inline(always)]
    fn of<L: Lanes, G: Group<L>>() -> Kind {
        let group = G::zero();
        match (group.linear(), group.scaled_halves()) {
            (Some(group), _) => Kind::Linear { min: group.min.is_some() },
            (_, Some(group)) => Kind::Halves { min: group.min.is_some() },
            _ => unreachable!("groups are of one kind or the other"),
        }
    }
}

/// Unpacked groups of 32 rows.
struct Waiting {
    groups: [[Staged; MOST_GROUPS]; PAIRS],
    len: usize,
    /// What of each eight rows is asked for meanwhile.
    later: [Round; MOST_ROWS / ROWS],
}

/// A group of sixteen rows, the first eight and the others.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Staged {
    /// Signed; in the order in which tiles take them: four columns of each row.
    codes: [[__m256i; 2]; 8],
    scale: [__m256; 2],
    min: [__m256; 2],
    half_scales: [[__m256; 2]; 2],
    /// Of the sums of both halves, as i16.
    factors: [__m256i; 2],
}

impl Waiting {
    #[inline(always)]
    fn new() -> Waiting {
        let (ints, floats) = simd!((_mm256_setzero_si256(), _mm256_setzero_ps()));
        let nothing = Staged {
            codes: [[ints; 2]; 8],
            scale: [floats; 2],
            min: [floats; 2],
            half_scales: [[floats; 2]; 2],
            factors: [ints; 2],
        };
        Waiting { groups: [[nothing; MOST_GROUPS]; PAIRS], len: 0, later: [Round::NOTHING; MOST_ROWS / ROWS] }
    }
}

/// Puts the groups of eight rows into their places.
struct Stage<'a, L> {
    groups: std::slice::IterMut<'a, Staged>,
    side: usize,
    lanes: PhantomData<L>,
}

impl<L: Lanes<Int = __m256i, Float = __m256>, G: Group<L>> Sink<G> for Stage<'_, L> {
    #[inline(always)]
    fn take(&mut self, group: G) {
        let Some(staged) = self.groups.next() else { return };
        if let Some(Linear { codes, offset, scale, min }) = group.linear() {
            staged.put(self.side, codes, offset, [scale, min.unwrap_or(L::zero())]);
        }
        if let Some(ScaledHalves { codes, offset, half_scales, factors, scale, min }) = group.scaled_halves()
        {
            staged.put(self.side, codes, offset, [scale, min.unwrap_or(L::zero())]);
            staged.factors[self.side] = factors;
            for (staged, half_scale) in staged.half_scales.iter_mut().zip(half_scales) {
                staged[self.side] = simd!(_mm256_cvtepi32_ps(_mm256_srai_epi32::<16>(half_scale)));
            }
        }
    }
}

impl Staged {
    /// What all kinds have.
    #[inline(always)]
    fn put(&mut self, side: usize, codes: &[__m256i; 8], offset: u32, [scale, min]: [__m256; 2]) {
        for (staged, codes) in self.codes.iter_mut().zip(codes) {
            staged[side] = simd!(_mm256_sub_epi8(*codes, _mm256_set1_epi8(offset as i8)));
        }
        (self.scale[side], self.min[side]) = (scale, min);
    }
}

/// Activations from a group and a token on.
struct Activations<'a> {
    blocks: &'a [Block],
    stride: usize,
}

/// Products of a group: `[half of the columns][token][row]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Products([[[i32; SIDE]; SIDE]; 2]);

/// Which tiles there are, `ldtilecfg` takes that.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

/// The tiles of this thread.
struct Tiles<'a> {
    products: &'a mut [Products; MOST_GROUPS],
    tokens: usize,
}

/// `out = x * codes` of a group's first columns, or the others; tiles: products, activations.
macro_rules! tile_product {
    ($products:literal, $activations:literal, $x:expr, $codes:expr, $out:expr) => {
        asm!(
            concat!("tileloadd ", $activations, ", [{x} + {x_stride}]"),
            "tileloadd tmm3, [{codes} + {stride}]",
            concat!("tilezero ", $products),
            concat!("tdpbssd ", $products, ", ", $activations, ", tmm3"),
            concat!("tilestored [{out} + {stride}], ", $products),
            x = in(reg) $x,
            x_stride = in(reg) size_of::<Block>(),
            codes = in(reg) $codes,
            stride = in(reg) 4 * SIDE,
            out = in(reg) $out,
            options(nostack, preserves_flags),
        )
    };
}

impl<'a> Tiles<'a> {
    /// Shapes: 0 and 4 products, of 16 tokens and of what is left over; 2 and 6 their activations; 3 codes.
    #[inline(always)]
    fn new(kind: Kind, tokens: usize, products: &'a mut [Products; MOST_GROUPS]) -> Self {
        let columns = if matches!(kind, Kind::Halves { .. }) { 16 } else { 32 };
        let rest = if tokens.is_multiple_of(SIDE) { SIDE } else { tokens % SIDE };
        let mut shapes = Shapes([0; 64]);
        shapes.0[0] = 1; // the only palette: eight tiles of up to 16 rows of 64 bytes
        let all =
            [(0, SIDE, 64), (2, SIDE, columns), (3, columns / 4, 64), (4, rest, 64), (6, rest, columns)];
        for (tile, rows, bytes) in all {
            shapes.0[16 + 2 * tile] = bytes as u8;
            shapes.0[48 + tile] = rows as u8;
        }
        // SAFETY: 64 bytes; the caller of `whole` has promised that tiles may be used.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, preserves_flags)) };
        Tiles { products, tokens }
    }

    /// Adds the products of what is waiting to the sums.
    ///
    /// # Safety
    /// Each group has activations of all tokens.
    #[inline(always)]
    unsafe fn multiply(
        &mut self,
        kind: Kind,
        waiting: &Waiting,
        sets: usize,
        x: &Activations<'_>,
        out: &mut [f32; MOST_ROWS * MOST_TOKENS],
    ) {
        // SAFETY: by the caller's promise; he is compiled for the features.
        unsafe {
            match kind {
                Kind::Linear { min: false } => self.multiply_all::<false, false>(waiting, sets, x, out),
                Kind::Linear { min: true } => self.multiply_all::<false, true>(waiting, sets, x, out),
                Kind::Halves { min: false } => self.multiply_all::<true, false>(waiting, sets, x, out),
                Kind::Halves { min: true } => self.multiply_all::<true, true>(waiting, sets, x, out),
            }
        }
    }

    /// Once for all formats of a kind.
    ///
    /// # Safety
    /// As of [`Tiles::multiply`].
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn multiply_all<const SCALED: bool, const MIN: bool>(
        &mut self,
        waiting: &Waiting,
        sets: usize,
        x: &Activations<'_>,
        out: &mut [f32; MOST_ROWS * MOST_TOKENS],
    ) {
        let halves = sets.div_ceil(2);
        let mut asking =
            Asking::new(&waiting.later[..sets], self.tokens.div_ceil(SIDE) * halves * waiting.len);
        for token in (0..self.tokens).step_by(SIDE) {
            let tokens = SIDE.min(self.tokens - token);
            let x = Activations { blocks: &x.blocks[token..], stride: x.stride };
            for half in 0..halves {
                let groups = &waiting.groups[half][..waiting.len];
                for (group, (staged, products)) in groups.iter().zip(self.products.iter_mut()).enumerate() {
                    let x = &x.blocks[group * x.stride..][..tokens];
                    // SAFETY: by the caller's promise.
                    unsafe { tile_products::<SCALED>(staged, x, products) };
                    asking.go_on();
                }
                let out = &mut out[token * MOST_ROWS + SIDE * half..];
                add_all::<SCALED, MIN>(groups, self.products, &x, tokens, out);
            }
        }
    }
}

/// Asks for what comes later bit by bit while tiles are multiplied: all at once, more lines would be wanted than a core can
/// wait for, and memory would have nothing to do in the meantime.
struct Asking<'a> {
    later: &'a [Round],
    /// Parts that have been asked for, and those that should have been, in 256ths.
    done: usize,
    due: usize,
    step: usize,
}

impl<'a> Asking<'a> {
    /// All parts in so many steps.
    #[inline(always)]
    fn new(later: &'a [Round], steps: usize) -> Self {
        Asking { later, done: 0, due: 0, step: (256 * MOST_GROUPS * later.len()).div_ceil(steps) }
    }

    #[inline(always)]
    fn go_on(&mut self) {
        self.due += self.step;
        while 256 * self.done < self.due && self.done < MOST_GROUPS * self.later.len() {
            self.later[self.done / MOST_GROUPS].ask_for(self.done % MOST_GROUPS);
            self.done += 1;
        }
    }
}

impl Drop for Tiles<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: nothing is left in the tiles that is wanted.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// A group's products.
///
/// # Safety
/// The tiles' shapes are for so many tokens.
#[inline(always)]
unsafe fn tile_products<const SCALED: bool>(staged: &Staged, x: &[Block], products: &mut Products) {
    let parts = if SCALED { 2 } else { 1 };
    for (part, products) in products.0.iter_mut().enumerate().take(parts) {
        let first = x.as_ptr().cast::<i8>().wrapping_add(16 * part); // codes are a block's first field
        let (codes, out) = (staged.codes[4 * part..].as_ptr(), products.as_mut_ptr());
        // SAFETY: by the caller's promise; codes and products have the tiles' sizes.
        unsafe {
            match x.len() {
                SIDE => tile_product!("tmm0", "tmm2", first, codes, out),
                _ => tile_product!("tmm4", "tmm6", first, codes, out),
            }
        }
    }
}

/// Adds products to the sums of all tokens of a tile, as many at once as there are.
#[inline(always)]
fn add_all<const SCALED: bool, const MIN: bool>(
    groups: &[Staged],
    products: &[Products; MOST_GROUPS],
    x: &Activations<'_>,
    tokens: usize,
    out: &mut [f32],
) {
    if tokens == SIDE {
        return add::<SIDE, SCALED, MIN>(groups, products, x, 0, out);
    }
    let mut token = 0;
    while token + 8 <= tokens {
        add::<8, SCALED, MIN>(groups, products, x, token, out);
        token += 8;
    }
    while token + 2 <= tokens {
        add::<2, SCALED, MIN>(groups, products, x, token, out);
        token += 2;
    }
    if token < tokens {
        add::<1, SCALED, MIN>(groups, products, x, token, out);
    }
}

/// Adds products to the sums of tokens from `first` on.
#[inline(always)]
fn add<const T: usize, const SCALED: bool, const MIN: bool>(
    groups: &[Staged],
    products: &[Products; MOST_GROUPS],
    x: &Activations<'_>,
    first: usize,
    out: &mut [f32],
) {
    let mut sums = [simd!(_mm512_setzero_ps()); T];
    let out = &mut out[first * MOST_ROWS..];
    for_each_token!(TOKEN => if TOKEN < T {
        sums[TOKEN] = simd!(_mm512_loadu_ps(out[TOKEN * MOST_ROWS..][..SIDE].as_ptr()));
    });
    for (group, (staged, products)) in groups.iter().zip(products).enumerate() {
        let x = &x.blocks[group * x.stride + first..][..T];
        let staged = staged.scales();
        for_each_token!(TOKEN => if TOKEN < T {
            let products = [&products.0[0][first + TOKEN], &products.0[1][first + TOKEN]];
            sums[TOKEN] = staged.add::<SCALED, MIN>(products, &x[TOKEN], sums[TOKEN]);
        });
    }
    for_each_token!(TOKEN => if TOKEN < T {
        simd!(_mm512_storeu_ps(out[TOKEN * MOST_ROWS..][..SIDE].as_mut_ptr(), sums[TOKEN]));
    });
}

/// The scales of a group.
struct Scales {
    scale: __m512,
    min: __m512,
    half_scales: [__m512; 2],
    factors: __m512i,
}

impl Staged {
    /// What a kind has no use for the compiler does not load.
    #[inline(always)]
    fn scales(&self) -> Scales {
        let of = |floats: &[__m256; 2]| simd!(_mm512_load_ps(floats.as_ptr().cast()));
        Scales {
            scale: of(&self.scale),
            min: of(&self.min),
            half_scales: [of(&self.half_scales[0]), of(&self.half_scales[1])],
            factors: simd!(_mm512_load_si512(self.factors.as_ptr().cast())),
        }
    }
}

impl Scales {
    /// As the steps of [`super::wide`]. Scaled halves: no product and no sum of two reaches 2^24, so floats are exact.
    #[inline(always)]
    fn add<const SCALED: bool, const MIN: bool>(
        &self,
        products: [&[i32; SIDE]; 2],
        x: &Block,
        sum: __m512,
    ) -> __m512 {
        let floats =
            |products: &[i32; SIDE]| simd!(_mm512_cvtepi32_ps(_mm512_loadu_si512(products.as_ptr().cast())));
        let mut dot = floats(products[0]);
        if SCALED {
            let second = simd!(_mm512_mul_ps(floats(products[1]), self.half_scales[1]));
            dot = simd!(_mm512_fmadd_ps(dot, self.half_scales[0], second));
        }
        let sum = with_scaled(sum, dot, self.scale, x);
        match (SCALED, MIN) {
            (_, false) => sum,
            (false, true) => simd!(_mm512_fmadd_ps(self.min, _mm512_set1_ps(x.scaled_sum), sum)),
            (true, true) => {
                let both = simd!(x.sums.as_ptr().cast::<i32>().read_unaligned());
                let sums = simd!(_mm512_madd_epi16(self.factors, _mm512_set1_epi32(both)));
                with_scaled(sum, simd!(_mm512_cvtepi32_ps(sums)), self.min, x)
            }
        }
    }
}

/// With whole numbers times a scale and a token's.
#[inline(always)]
fn with_scaled(sum: __m512, dot: __m512, scale: __m512, x: &Block) -> __m512 {
    simd!(_mm512_fmadd_ps(dot, _mm512_mul_ps(scale, _mm512_set1_ps(x.scale)), sum))
}
