//! Cached rows in each of the cache's formats.

use k2_kernels::latents::{I16Rows, Latents, Q8_GROUP, narrow_bf16, narrow_i16, narrow_q8, q8_bytes};

/// A format of cached rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheFormat {
    F32,
    /// Rows of such a width, so many of their numbers under the first scale.
    I16 {
        width: usize,
        latent: usize,
    },
    Bf16,
    Q8,
}

/// Rows in a format.
pub(crate) enum Stored {
    F32(Vec<f32>),
    I16 { numbers: Vec<i16>, scales: Vec<[f32; 2]>, width: usize, latent: usize },
    Bf16(Vec<u16>),
    Q8(Vec<u8>),
}

impl CacheFormat {
    /// Those that are widened as they are read and that rows of this width can have.
    pub(crate) fn widened(width: usize) -> &'static [CacheFormat] {
        match width.is_multiple_of(Q8_GROUP) {
            true => &[CacheFormat::Bf16, CacheFormat::Q8],
            false => &[CacheFormat::Bf16],
        }
    }

    pub(crate) fn store(self, rows: &[f32]) -> Stored {
        match self {
            CacheFormat::F32 => Stored::F32(rows.to_vec()),
            CacheFormat::I16 { width, latent } => {
                let mut numbers = vec![0; rows.len()];
                let pairs = rows.chunks_exact(width).zip(numbers.chunks_exact_mut(width));
                let scales = pairs.map(|(row, numbers)| narrow_i16(row, latent, numbers)).collect();
                Stored::I16 { numbers, scales, width, latent }
            }
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
            Stored::I16 { numbers, scales, width, latent } => Latents::I16(I16Rows {
                numbers: &numbers[first..first + len],
                scales: &scales[first / width..(first + len) / width],
                width: *width,
                latent: *latent,
            }),
            Stored::Bf16(rows) => Latents::Bf16(&rows[first..first + len]),
            Stored::Q8(rows) => Latents::Q8(&rows[q8_bytes(first)..q8_bytes(first + len)]),
        }
    }
}
