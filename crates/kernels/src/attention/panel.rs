//! A few rows against a panel of columns, all sums in registers.
//!
//! A matrix is packed in panels of [`COLUMNS`] columns, each with its rows one behind the other (Goto and van de Geijn,
//! *Anatomy of High-Performance Matrix Multiplication*, ACM TOMS 34(3), 2008). A sum is one chain of fused
//! multiply-adds along the depth, so it does not matter which rows and columns are multiplied beside it.

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Columns of a panel: two registers of AVX2, one of AVX-512.
pub(super) const COLUMNS: usize = 16;

/// A row of a panel.
pub(super) type Strip = [f32; COLUMNS];

/// Numbers in one register.
const REGISTER: usize = 8;

/// A row of a panel in registers.
type Registers = [[f32; REGISTER]; COLUMNS / REGISTER];

/// `out[r] = a[r] · panel` for all rows, each result `stride` numbers behind the one before; `WIDE` only in functions compiled
/// for AVX-512.
#[inline(always)]
pub(super) fn multiply<const WIDE: bool>(a: &[&[f32]], panel: &[Strip], out: &mut [f32], stride: usize) {
    in_blocks::<WIDE, false>(a, panel, &[], out, stride);
}

/// `out[r] = factors[r] * out[r] + a[r] · panel`.
#[inline(always)]
pub(super) fn multiply_add<const WIDE: bool>(
    a: &[&[f32]],
    panel: &[Strip],
    factors: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(factors.len(), a.len(), "a factor for each row");
    in_blocks::<WIDE, true>(a, panel, factors, out, stride);
}

/// Six rows at a time: with twelve registers of sums, two of the panel and one of a row, 15 of AVX2's 16.
#[inline(always)]
fn in_blocks<const WIDE: bool, const ADD: bool>(
    a: &[&[f32]],
    panel: &[Strip],
    factors: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let mut row = 0;
    while row < a.len() {
        let out = &mut out[row * stride..];
        let factors = if ADD { &factors[row..] } else { factors };
        row += match a.len() - row {
            #[cfg(target_arch = "x86_64")]
            12.. if WIDE => avx512::block::<ADD, 12>(&a[row..], panel, factors, out, stride),
            #[cfg(target_arch = "x86_64")]
            4.. if WIDE => avx512::block::<ADD, 4>(&a[row..], panel, factors, out, stride),
            6.. => block::<ADD, 6>(&a[row..], panel, factors, out, stride),
            4 | 5 => block::<ADD, 4>(&a[row..], panel, factors, out, stride),
            2 | 3 => block::<ADD, 2>(&a[row..], panel, factors, out, stride),
            _ => block::<ADD, 1>(&a[row..], panel, factors, out, stride),
        };
    }
}

#[inline(always)]
fn block<const ADD: bool, const ROWS: usize>(
    a: &[&[f32]],
    panel: &[Strip],
    factors: &[f32],
    out: &mut [f32],
    stride: usize,
) -> usize {
    let depth = panel.len();
    let a: [&[f32]; ROWS] = std::array::from_fn(|r| &a[r][..depth]);
    let mut sums = [Registers::default(); ROWS];
    if ADD {
        for r in 0..ROWS {
            let before = registers(&out[r * stride..][..COLUMNS]);
            for c in 0..COLUMNS / REGISTER {
                for l in 0..REGISTER {
                    sums[r][c][l] = factors[r] * before[c][l];
                }
            }
        }
    }
    for (k, strip) in panel.iter().enumerate() {
        let strip = registers(strip);
        for r in 0..ROWS {
            // SAFETY: each row has been cut to the panel's depth. A checked access would have the sums written to
            // memory in each round.
            let x = unsafe { *a[r].get_unchecked(k) };
            for c in 0..COLUMNS / REGISTER {
                for l in 0..REGISTER {
                    sums[r][c][l] = x.mul_add(strip[c][l], sums[r][c][l]);
                }
            }
        }
    }
    for r in 0..ROWS {
        out[r * stride..][..COLUMNS].copy_from_slice(sums[r].as_flattened());
    }
    ROWS
}

#[inline(always)]
fn registers(strip: &[f32]) -> Registers {
    let mut registers = Registers::default();
    for c in 0..COLUMNS / REGISTER {
        registers[c].copy_from_slice(&strip[c * REGISTER..][..REGISTER]);
    }
    registers
}
