//! Unpacked groups of 32 columns of eight rows, and how each kind is multiplied.

use super::activations::Block;
use super::lanes::{Lanes, TOKENS, Tile};

/// What takes the groups of a block, in order.
pub(super) trait Sink<G> {
    fn take(&mut self, group: G);
}

/// 32 columns of eight rows.
pub(super) trait Group<L: Lanes>: Copy {
    /// Bits of a code.
    const BITS: u32;
    /// All numbers zero.
    fn zero() -> Self;
    /// The codes' products with a block's, in whole numbers.
    fn dot(&self, x: &Block) -> L::Int;
    /// [`Group::dot`] of two groups with four tokens.
    fn dots(groups: [&Self; 2], x: [&Block; TOKENS]) -> Tile<L>;
    /// The numbers of a group of the form `scale * (code - offset) + min`, if it has that.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn linear(&self) -> Option<Linear<'_, L>> {
        None
    }
    /// The numbers of a group whose halves have scales of their own, if it is one.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn scaled_halves(&self) -> Option<ScaledHalves<'_, L>> {
        None
    }
    /// The sums with [`Group::dot`] added.
    fn add(&self, dot: L::Int, x: &Block, sums: L::Float) -> L::Float;

    /// The sums with this block's products added.
    #[inline(always)]
    fn multiply(&self, x: &Block, sums: L::Float) -> L::Float {
        self.add(self.dot(x), x, sums)
    }
}

/// `weight = scale * (code - offset) + min`.
#[cfg(target_arch = "x86_64")]
pub(super) struct Linear<'g, L: Lanes> {
    pub(super) codes: &'g [L::Int; 8],
    pub(super) offset: u32,
    pub(super) scale: L::Float,
    pub(super) min: Option<L::Float>,
}

/// `weight = scale * (half_scale * code - factor)`, or with a minimum `scale * half_scale * code + min * factor`.
#[cfg(target_arch = "x86_64")]
pub(super) struct ScaledHalves<'g, L: Lanes> {
    pub(super) codes: &'g [L::Int; 8],
    /// What `factor` takes from each code, times the half scales.
    pub(super) offset: u32,
    pub(super) half_scales: [L::Int; 2],
    /// Of the sums of both halves, as i16.
    pub(super) factors: L::Int,
    pub(super) scale: L::Float,
    pub(super) min: Option<L::Float>,
}

/// `weight = scale * (code - OFFSET)`.
#[derive(Clone, Copy)]
pub(super) struct Plain<L: Lanes, const BITS: u32, const OFFSET: u32> {
    pub(super) codes: [L::Int; 8],
    pub(super) scale: L::Float,
}

impl<L: Lanes, const BITS: u32, const OFFSET: u32> Group<L> for Plain<L, BITS, OFFSET> {
    const BITS: u32 = BITS;

    #[inline(always)]
    fn zero() -> Self {
        Self { codes: [L::splat(0); 8], scale: L::zero() }
    }

    #[inline(always)]
    fn dot(&self, x: &Block) -> L::Int {
        L::dot::<BITS>(&self.codes, x)
    }

    #[inline(always)]
    fn dots([a, b]: [&Self; 2], x: [&Block; TOKENS]) -> Tile<L> {
        L::dots::<BITS>([&a.codes, &b.codes], x)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn linear(&self) -> Option<Linear<'_, L>> {
        Some(Linear { codes: &self.codes, offset: OFFSET, scale: self.scale, min: None })
    }

    #[inline(always)]
    fn add(&self, mut dot: L::Int, x: &Block, sums: L::Float) -> L::Float {
        if OFFSET != 0 {
            dot = L::subtract(dot, L::dot_sums(L::splat(OFFSET << 16 | OFFSET), x));
        }
        L::fma_scaled(dot, self.scale, x.scale, sums)
    }
}

/// `weight = scale * code + min`.
#[derive(Clone, Copy)]
pub(super) struct WithMin<L: Lanes, const BITS: u32> {
    pub(super) codes: [L::Int; 8],
    pub(super) scale: L::Float,
    pub(super) min: L::Float,
}

impl<L: Lanes, const BITS: u32> Group<L> for WithMin<L, BITS> {
    const BITS: u32 = BITS;

    #[inline(always)]
    fn zero() -> Self {
        Self { codes: [L::splat(0); 8], scale: L::zero(), min: L::zero() }
    }

    #[inline(always)]
    fn dot(&self, x: &Block) -> L::Int {
        L::dot::<BITS>(&self.codes, x)
    }

    #[inline(always)]
    fn dots([a, b]: [&Self; 2], x: [&Block; TOKENS]) -> Tile<L> {
        L::dots::<BITS>([&a.codes, &b.codes], x)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn linear(&self) -> Option<Linear<'_, L>> {
        Some(Linear { codes: &self.codes, offset: 0, scale: self.scale, min: Some(self.min) })
    }

    #[inline(always)]
    fn add(&self, dot: L::Int, x: &Block, sums: L::Float) -> L::Float {
        L::fma(self.min, x.scaled_sum, L::fma_scaled(dot, self.scale, x.scale, sums))
    }
}

/// `weight = scale * (half_scale * code - offset)`, the latter two for each half of the columns.
#[derive(Clone, Copy)]
pub(super) struct Halves<L: Lanes, const BITS: u32> {
    pub(super) codes: [L::Int; 8],
    /// Each given twice as i16.
    pub(super) half_scales: [L::Int; 2],
    /// Both as i16.
    pub(super) offsets: L::Int,
    pub(super) scale: L::Float,
}

impl<L: Lanes, const BITS: u32> Group<L> for Halves<L, BITS> {
    const BITS: u32 = BITS;

    #[inline(always)]
    fn zero() -> Self {
        Self {
            codes: [L::splat(0); 8],
            half_scales: [L::splat(0); 2],
            offsets: L::splat(0),
            scale: L::zero(),
        }
    }

    #[inline(always)]
    fn dot(&self, x: &Block) -> L::Int {
        L::dot_scaled::<BITS>(&self.codes, x, &self.half_scales)
    }

    #[inline(always)]
    fn dots([a, b]: [&Self; 2], x: [&Block; TOKENS]) -> Tile<L> {
        L::dots_scaled::<BITS>([&a.codes, &b.codes], x, [&a.half_scales, &b.half_scales])
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn scaled_halves(&self) -> Option<ScaledHalves<'_, L>> {
        let Halves { half_scales, offsets: factors, scale, .. } = *self;
        let offset = 1 << (BITS - 1);
        Some(ScaledHalves { codes: &self.codes, offset, half_scales, factors, scale, min: None })
    }

    #[inline(always)]
    fn add(&self, dot: L::Int, x: &Block, sums: L::Float) -> L::Float {
        let dot = L::subtract(dot, L::dot_sums(self.offsets, x));
        L::fma_scaled(dot, self.scale, x.scale, sums)
    }
}

/// `weight = scale * half_scale * code + min * half_min`.
#[derive(Clone, Copy)]
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
    const BITS: u32 = BITS;

    #[inline(always)]
    fn zero() -> Self {
        Self {
            codes: [L::splat(0); 8],
            half_scales: [L::splat(0); 2],
            half_mins: L::splat(0),
            scale: L::zero(),
            min: L::zero(),
        }
    }

    #[inline(always)]
    fn dot(&self, x: &Block) -> L::Int {
        L::dot_scaled::<BITS>(&self.codes, x, &self.half_scales)
    }

    #[inline(always)]
    fn dots([a, b]: [&Self; 2], x: [&Block; TOKENS]) -> Tile<L> {
        L::dots_scaled::<BITS>([&a.codes, &b.codes], x, [&a.half_scales, &b.half_scales])
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn scaled_halves(&self) -> Option<ScaledHalves<'_, L>> {
        let HalvesWithMin { half_scales, half_mins: factors, scale, min, .. } = *self;
        Some(ScaledHalves { codes: &self.codes, offset: 0, half_scales, factors, scale, min: Some(min) })
    }

    #[inline(always)]
    fn add(&self, dot: L::Int, x: &Block, sums: L::Float) -> L::Float {
        let sums = L::fma_scaled(dot, self.scale, x.scale, sums);
        L::fma_scaled(L::dot_sums(self.half_mins, x), self.min, x.scale, sums)
    }
}
