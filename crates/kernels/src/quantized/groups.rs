//! Unpacked groups of 32 columns of eight rows, and how each kind is multiplied.

use super::activations::Block;
use super::lanes::Lanes;

/// What takes the groups of a block, in order.
pub(super) trait Sink<G> {
    fn take(&mut self, group: G);
}

/// 32 columns of eight rows.
pub(super) trait Group<L: Lanes> {
    /// The sums with this block's products added.
    fn multiply(&self, x: &Block, sums: L::Float) -> L::Float;
}

/// `weight = scale * (code - OFFSET)`.
pub(super) struct Plain<L: Lanes, const BITS: u32, const OFFSET: u32> {
    pub(super) codes: [L::Int; 8],
    pub(super) scale: L::Float,
}

impl<L: Lanes, const BITS: u32, const OFFSET: u32> Group<L> for Plain<L, BITS, OFFSET> {
    #[inline(always)]
    fn multiply(&self, x: &Block, sums: L::Float) -> L::Float {
        let mut dot = L::dot::<BITS>(&self.codes, &x.codes);
        if OFFSET != 0 {
            dot = L::subtract(dot, L::dot_sums(L::splat(OFFSET << 16 | OFFSET), x));
        }
        L::fma_scaled(dot, self.scale, x.scale, sums)
    }
}

/// `weight = scale * code + min`.
pub(super) struct WithMin<L: Lanes, const BITS: u32> {
    pub(super) codes: [L::Int; 8],
    pub(super) scale: L::Float,
    pub(super) min: L::Float,
}

impl<L: Lanes, const BITS: u32> Group<L> for WithMin<L, BITS> {
    #[inline(always)]
    fn multiply(&self, x: &Block, sums: L::Float) -> L::Float {
        let dot = L::dot::<BITS>(&self.codes, &x.codes);
        L::fma(self.min, x.scaled_sum, L::fma_scaled(dot, self.scale, x.scale, sums))
    }
}

/// `weight = scale * (half_scale * code - offset)`, the latter two for each half of the columns.
pub(super) struct Halves<L: Lanes, const BITS: u32> {
    pub(super) codes: [L::Int; 8],
    /// Each given twice as i16.
    pub(super) half_scales: [L::Int; 2],
    /// Both as i16.
    pub(super) offsets: L::Int,
    pub(super) scale: L::Float,
}

impl<L: Lanes, const BITS: u32> Group<L> for Halves<L, BITS> {
    #[inline(always)]
    fn multiply(&self, x: &Block, sums: L::Float) -> L::Float {
        let dot = L::dot_scaled::<BITS>(&self.codes, &x.codes, &self.half_scales);
        let dot = L::subtract(dot, L::dot_sums(self.offsets, x));
        L::fma_scaled(dot, self.scale, x.scale, sums)
    }
}

/// `weight = scale * half_scale * code + min * half_min`.
pub(super) struct HalvesWithMin<L: Lanes, const BITS: u32> {
    pub(super) codes: [L::Int; 8],
    /// Each given twice as i16.
    pub(super) half_scales: [L::Int; 2],
    /// Both as i16.
    pub(super) half_mins: L::Int,
    pub(super) scale: L::Float,
    pub(super) min: L::Float,
}

impl<L: Lanes, const BITS: u32> Group<L> for HalvesWithMin<L, BITS> {
    #[inline(always)]
    fn multiply(&self, x: &Block, sums: L::Float) -> L::Float {
        let dot = L::dot_scaled::<BITS>(&self.codes, &x.codes, &self.half_scales);
        let sums = L::fma_scaled(dot, self.scale, x.scale, sums);
        L::fma_scaled(L::dot_sums(self.half_mins, x), self.min, x.scale, sums)
    }
}
