//! Rearranged rows are the same numbers and give the same bits.

use k2_kernels::interleaved::interleave;
use k2_kernels::{GgmlType, Matrix, MatrixError, Pool, Precision, Storage};
use proptest::{prelude::*, sample::select};

use crate::fast::product as fast;
use crate::matrices::Format;
use crate::random::Random;

/// The formats that are rearranged.
pub(crate) const FORMATS: [Format; 5] = [
    Format::Int4,
    Format::Ggml(GgmlType::Q4_K),
    Format::Ggml(GgmlType::Q5_K),
    Format::Ggml(GgmlType::Q6_K),
    Format::Ggml(GgmlType::Q8_0),
];

/// The matrix in panels, or as it was if it has no whole ones.
pub(crate) fn rearranged(w: &Matrix) -> Matrix {
    let mut panels = w.clone();
    interleave(&Pool::new(2), &mut [&mut panels]);
    panels
}

fn is_rearranged(w: &Matrix) -> bool {
    matches!(w.storage(), Storage::Interleaved { .. })
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

fn widened(w: &Matrix) -> Vec<u32> {
    let mut all = vec![0.0; w.rows() * w.cols()];
    for (row, out) in all.chunks_exact_mut(w.cols()).enumerate() {
        out.chunks_mut(256).enumerate().for_each(|(tile, out)| w.dequantize(row, 256 * tile, out));
    }
    bits(&all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn products_and_numbers_keep_their_bits(
        format in select(FORMATS.to_vec()),
        (panels, runs, tokens) in (1..9usize, 1..4usize, 1..=40usize),
        exact: bool,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let w = format.matrix(&mut random, 8 * panels, 256 * runs);
        let other = rearranged(&w);
        assert!(is_rearranged(&other) && other.format() == w.format() && other.stored_bytes() == w.stored_bytes());
        assert_eq!(widened(&other), widened(&w));
        let x = random.floats(tokens * w.cols());
        let precision = if exact { Precision::Exact } else { Precision::Fast };
        let product = |w: &Matrix| bits(&fast(&Pool::new(2), precision, w, 1, 0..w.rows(), &x));
        assert_eq!(product(&other), product(&w), "{format:?}");
        let part = 8 * random.below(panels)..8 * panels;
        assert_eq!(widened(&other.slice_rows(part.clone())), widened(&w.slice_rows(part)));
    }
}

#[test]
fn what_cannot_be_rearranged_stays() {
    for format in Format::all() {
        for (rows, cols) in [(7, 512), (16, 512), (16, 96)] {
            let w = format.matrix(&mut Random(1), rows, format.whole_columns(cols));
            let whole = match format {
                Format::Int4 => cols == 512,
                format => FORMATS.contains(&format),
            };
            let other = rearranged(&w);
            assert_eq!(is_rearranged(&other), whole && rows == 16, "{format:?} [{rows}, {}]", w.cols());
            assert_eq!(widened(&other), widened(&w));
        }
    }
}

#[test]
fn several_matrices_share_a_buffer() {
    let mut random = Random(3);
    let old: Vec<Matrix> = FORMATS.iter().map(|format| format.matrix(&mut random, 24, 256)).collect();
    let mut new = old.clone();
    interleave(&Pool::new(3), &mut new.iter_mut().collect::<Vec<_>>());
    for (new, old) in new.iter().zip(&old) {
        assert!(is_rearranged(new));
        assert_eq!(widened(new), widened(old));
    }
    interleave(&Pool::new(1), &mut []);
}

#[test]
fn panels_of_the_wrong_size_are_refused() {
    let w = rearranged(&Format::Ggml(GgmlType::Q8_0).matrix(&mut Random(5), 8, 64));
    let Storage::Interleaved { format, blocks, scale } = w.storage().clone() else { panic!("{w:?}") };
    let make = |rows, cols, blocks| {
        let storage = Storage::Interleaved { format, blocks, scale: scale.clone() };
        Matrix::new(rows, cols, storage).map(drop)
    };
    assert_eq!(make(8, 64, blocks.clone()), Ok(()));
    assert_eq!(make(4, 128, blocks.clone()), Err(MatrixError::Panels { rows: 4 }));
    assert!(matches!(make(8, 64, blocks.slice(1..)), Err(MatrixError::Length { found: 543, .. })));
    assert!(matches!(make(8, 48, blocks), Err(MatrixError::Ragged { block: 32, .. })));
}
