//! Cached rows in each of the cache's formats.

use k2_kernels::latents::{Latents, Q8_GROUP, narrow_bf16, narrow_q8, q8_bytes};

/// A format of cached rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheFormat {
    F32,
    Bf16,
    Q8,
}

/// Rows in a format.
pub(crate) enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Q8(Vec<u8>),
}

impl CacheFormat {
    /// Those that are not as computed and that rows of this width can have.
    pub(crate) fn rounding(width: usize) -> &'static [CacheFormat] {
        match width.is_multiple_of(Q8_GROUP) {
            true => &[CacheFormat::Bf16, CacheFormat::Q8],
            false => &[CacheFormat::Bf16],
        }
    }

    pub(crate) fn store(self, rows: &[f32]) -> Stored {
        match self {
            CacheFormat::F32 => Stored::F32(rows.to_vec()),
            CacheFormat::Bf16 => {
                let mut stored = vec![0; rows.len()];
                narrow_bf16(rows, &mut stored);
                Stored::Bf16(stored)
            }
            CacheFormat::Q8 => {
                let mut stored = vec![0; q8_bytes(rows.len())];
                narrow_q8(rows, &mut stored);
                Stored::Q8(stored)
            }
        }
    }

    /// What rows are once they have been stored.
    pub(crate) fn round(self, rows: &[f32]) -> Vec<f32> {
        self.store(rows).page(0, rows.len()).to_f32()
    }
}

impl Stored {
    /// `len` numbers from `first` on.
    pub(crate) fn page(&self, first: usize, len: usize) -> Latents<'_> {
        match self {
            Stored::F32(rows) => Latents::F32(&rows[first..first + len]),
            Stored::Bf16(rows) => Latents::Bf16(&rows[first..first + len]),
            Stored::Q8(rows) => Latents::Q8(&rows[q8_bytes(first)..q8_bytes(first + len)]),
        }
    }
}
