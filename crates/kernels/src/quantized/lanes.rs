//! Eight weight rows side by side: the vector operations that unpacking and multiplying are written in.
//!
//! Lane `r` belongs to row `r`. An `Int` holds 32 bits of each row: four codes, or one whole number.

use super::activations::Block;
use super::groups::Group;

/// Rows in a vector.
pub(super) const ROWS: usize = 8;

/// Tokens of a tile.
pub(super) const TOKENS: usize = 4;

/// For each of four tokens, 32 bits of each row of two groups.
pub(super) type Tile<L> = [[<L as Lanes>::Int; 2]; TOKENS];

/// Where eight rows begin.
pub(super) struct Rows {
    /// Their codes.
    pub(super) blocks: [*const u8; ROWS],
    /// INT4: their scales, which lie elsewhere.
    pub(super) scales: [*const u8; ROWS],
}

/// The operations, on one instruction set. Instances are made only inside functions compiled for it. What is loaded lies
/// in eight rows, or, for instances for panels, in the panel where the first of them begins: byte `at` of all rows at
/// `8 at` of it, in the pieces that [`crate::interleaved`] names.
pub(super) trait Lanes: Copy {
    /// Whether rows lie in panels.
    const PANELS: bool;
    /// 32 bits of each row.
    type Int: Copy;
    /// An f32 of each row.
    type Float: Copy;

    /// 16 bytes from byte `at` on of each row: four times 32 bits.
    ///
    /// # Safety
    /// The rows have these bytes.
    unsafe fn load_16(rows: &[*const u8; ROWS], at: usize) -> [Self::Int; 4];
    /// 4 bytes of each row.
    ///
    /// # Safety
    /// The rows have these bytes.
    unsafe fn load_4(rows: &[*const u8; ROWS], at: usize) -> Self::Int;
    /// 2 bytes of each row, zero-extended.
    ///
    /// # Safety
    /// The rows have these bytes.
    unsafe fn load_2(rows: &[*const u8; ROWS], at: usize) -> Self::Int;
    /// An f16 of each row.
    ///
    /// # Safety
    /// The rows have these bytes.
    unsafe fn load_f16(rows: &[*const u8; ROWS], at: usize) -> Self::Float;

    fn zero() -> Self::Float;
    fn splat(bits: u32) -> Self::Int;
    fn and(a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(a: Self::Int, b: Self::Int) -> Self::Int;
    fn shift_left(a: Self::Int, bits: u32) -> Self::Int;
    /// Zeros come in from above.
    fn shift_right(a: Self::Int, bits: u32) -> Self::Int;
    /// As four bytes.
    fn subtract_bytes(a: Self::Int, b: Self::Int) -> Self::Int;
    /// As one whole number.
    fn subtract(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Each byte, which is below 16, replaced by that entry of the table.
    fn look_up(table: &[i8; 16], codes: Self::Int) -> Self::Int;
    /// Bit `first + i` of each row as byte `i`: 16 or 0, where the fifth bit of a code belongs.
    fn fifth_bits(bits: Self::Int, first: u32) -> Self::Int;
    /// Two signed bytes, times `2^shift` (`shift` up to 8), as the halves of the 32 bits.
    fn two_i16(bytes: Self::Int, places: [u32; 2], shift: u32) -> Self::Int;

    fn to_float(a: Self::Int) -> Self::Float;
    /// The low 16 bits are an f16.
    fn f16_to_float(a: Self::Int) -> Self::Float;
    /// The bits are those of an f32.
    fn bits_to_float(a: Self::Int) -> Self::Float;
    fn floats(numbers: [f32; ROWS]) -> Self::Float;
    fn multiply(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once; `b` is the same for all rows.
    fn fma(a: Self::Float, b: f32, c: Self::Float) -> Self::Float;
    /// `a * (b * x) + c`, the inner product rounded.
    fn fma_scaled(a: Self::Int, b: Self::Float, x: f32, c: Self::Float) -> Self::Float;
    fn store(a: Self::Float) -> [f32; ROWS];

    /// `Σ_i codes[i] x[i]`; codes are unsigned and have `BITS` bits, or signed if `BITS` is 8.
    fn dot<const BITS: u32>(codes: &[Self::Int; 8], x: &Block) -> Self::Int;
    /// The same with each half of the columns times its scale, given twice as i16.
    fn dot_scaled<const BITS: u32>(codes: &[Self::Int; 8], x: &Block, scales: &[Self::Int; 2]) -> Self::Int;
    /// Up to how many bits of a code [`Lanes::dots`] is faster than as many times [`Lanes::dot`].
    const MOST_TILE_BITS: u32 = 0;
    /// [`Lanes::dot`] of two groups of codes with four tokens.
    #[inline(always)]
    fn dots<const BITS: u32>(codes: [&[Self::Int; 8]; 2], x: [&Block; TOKENS]) -> Tile<Self> {
        let mut tile = [[Self::splat(0); 2]; TOKENS];
        for (dots, x) in tile.iter_mut().zip(x) {
            for (dot, codes) in dots.iter_mut().zip(codes) {
                *dot = Self::dot::<BITS>(codes, x);
            }
        }
        tile
    }
    /// [`Lanes::dot_scaled`] of two groups of codes with four tokens.
    #[inline(always)]
    fn dots_scaled<const BITS: u32>(
        codes: [&[Self::Int; 8]; 2],
        x: [&Block; TOKENS],
        scales: [&[Self::Int; 2]; 2],
    ) -> Tile<Self> {
        let mut tile = [[Self::splat(0); 2]; TOKENS];
        for (dots, x) in tile.iter_mut().zip(x) {
            for ((dot, codes), scales) in dots.iter_mut().zip(codes).zip(scales) {
                *dot = Self::dot_scaled::<BITS>(codes, x, scales);
            }
        }
        tile
    }

    /// Two groups against all tokens.
    #[inline(always)]
    fn add_products<G: Group<Self>>(groups: [&G; 2], x: &[Block], sums: &mut [[Self::Float; 2]]) {
        in_tiles(groups, x, sums);
    }
    /// `factors.0 * sums[0] + factors.1 * sums[1]`, the factors being i16.
    fn dot_sums(factors: Self::Int, x: &Block) -> Self::Int;
}

/// [`Lanes::add_products`], four tokens at a time.
#[inline(always)]
pub(super) fn in_tiles<L: Lanes, G: Group<L>>(groups: [&G; 2], x: &[Block], sums: &mut [[L::Float; 2]]) {
    let ((fours, rest), (sums_of_fours, sums_of_rest)) =
        (x.as_chunks::<TOKENS>(), sums.as_chunks_mut::<TOKENS>());
    for (x, sums) in fours.iter().zip(sums_of_fours) {
        let tile = G::dots(groups, x.each_ref());
        for ((x, sums), dots) in x.iter().zip(sums).zip(tile) {
            for ((sum, dot), group) in sums.iter_mut().zip(dots).zip(groups) {
                *sum = group.add(dot, x, *sum);
            }
        }
    }
    for (x, sums) in rest.iter().zip(sums_of_rest) {
        for (sum, group) in sums.iter_mut().zip(groups) {
            *sum = group.multiply(x, *sum);
        }
    }
}
