//! Pseudo-random numbers that a seed decides: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
//! generators", 2014).

use super::Between;

pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another generator that this one decides.
    pub(super) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// An even draw.
    pub(super) fn between(&mut self, Between { least, most }: Between) -> usize {
        let range = (most - least) as u64 + 1;
        least + (self.next() % range) as usize
    }

    /// The time between two arrivals of a Poisson process with rate 1.
    pub(super) fn exponential(&mut self) -> f64 {
        let even = (self.next() >> 11) as f64 / (1u64 << 53) as f64; // in [0, 1)
        -(1.0 - even).ln()
    }
}
