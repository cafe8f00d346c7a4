//! A catalogued weight becomes a matrix in its stored format, or a vector of f32.

use bytes::Bytes;
use k2_kernels::dtype::{bf16_to_f32, f16_to_f32};
use k2_kernels::matrix::{FP8_BLOCK, INT4_GROUP};
use k2_kernels::{Matrix, ScaleInv, Storage};

use crate::catalog::{Catalog, Encoding, Part, Weight};
use crate::error::WeightsError;
use crate::safetensors::Dtype;

/// The weight as a `[rows, cols]` matrix over the mapped bytes.
pub(crate) fn matrix(
    catalog: &Catalog,
    name: &str,
    weight: &Weight,
    rows: usize,
    cols: usize,
) -> Result<Matrix, WeightsError> {
    check_shape(catalog, name, weight, &[rows, cols])?;
    let storage = match weight {
        Weight::Plain(part) => plain(catalog, name, part)?,
        Weight::Fp8 { weight, scale_inv } => {
            let scale_name = format!("{name}_scale_inv");
            let grid = [rows.div_ceil(FP8_BLOCK), cols.div_ceil(FP8_BLOCK)];
            check_part_shape(catalog, &scale_name, scale_inv, &grid)?;
            Storage::Fp8 {
                weight: of_dtype(catalog, name, weight, Dtype::F8_E4M3)?,
                scale_inv: scales(catalog, &scale_name, scale_inv)?,
                first_row: 0,
            }
        }
        Weight::Int4 { packed, scale, shape } => {
            let scale_name = format!("{name}_scale");
            check_weight_shape(catalog, &format!("{name}_shape"), shape, rows, cols)?;
            check_part_shape(catalog, &scale_name, scale, &[rows, cols.div_ceil(INT4_GROUP)])?;
            Storage::Int4 {
                packed: of_dtype(catalog, &format!("{name}_packed"), packed, Dtype::I32)?,
                scale: of_dtype(catalog, &scale_name, scale, Dtype::BF16)?,
            }
        }
    };
    let path = || catalog.path(weight.main().file).to_owned();
    let wrong = |error| WeightsError::Matrix { path: path(), tensor: name.to_owned(), error };
    Matrix::new(rows, cols, storage).map_err(wrong)
}

/// The weight as `len` numbers.
pub(crate) fn vector(
    catalog: &Catalog,
    name: &str,
    weight: &Weight,
    len: usize,
) -> Result<Vec<f32>, WeightsError> {
    check_shape(catalog, name, weight, &[len])?;
    let part = weight.main();
    let halves = || part.bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    match part.encoding {
        Encoding::Dtype(Dtype::F32) => {
            Ok(part.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
        Encoding::Dtype(Dtype::F16) => Ok(halves().map(f16_to_f32).collect()),
        Encoding::Dtype(Dtype::BF16) => Ok(halves().map(bf16_to_f32).collect()),
        _ => Err(wrong_format(catalog, name, part, "F32, F16 or BF16")),
    }
}

fn check_shape(
    catalog: &Catalog,
    name: &str,
    weight: &Weight,
    expected: &[usize],
) -> Result<(), WeightsError> {
    shape_is(catalog, name, weight.main(), weight.shape(), expected)
}

/// The shape of a part other than the main one. Its length alone would let a transposed one pass.
fn check_part_shape(
    catalog: &Catalog,
    name: &str,
    part: &Part,
    expected: &[usize],
) -> Result<(), WeightsError> {
    shape_is(catalog, name, part, part.shape.clone(), expected)
}

fn shape_is(
    catalog: &Catalog,
    name: &str,
    part: &Part,
    found: Vec<usize>,
    expected: &[usize],
) -> Result<(), WeightsError> {
    if found == expected {
        return Ok(());
    }
    let path = catalog.path(part.file).to_owned();
    Err(WeightsError::Shape { path, tensor: name.to_owned(), found, expected: expected.to_vec() })
}

fn plain(catalog: &Catalog, name: &str, part: &Part) -> Result<Storage, WeightsError> {
    let bytes = part.bytes.clone();
    match part.encoding {
        Encoding::Dtype(Dtype::F32) => Ok(Storage::F32(bytes)),
        Encoding::Dtype(Dtype::F16) => Ok(Storage::F16(bytes)),
        Encoding::Dtype(Dtype::BF16) => Ok(Storage::Bf16(bytes)),
        Encoding::Ggml(kind) => Ok(Storage::Ggml { kind, blocks: bytes }),
        Encoding::Dtype(_) => Err(wrong_format(catalog, name, part, "F32, F16, BF16, FP8 or INT4")),
    }
}

fn scales(catalog: &Catalog, name: &str, part: &Part) -> Result<ScaleInv, WeightsError> {
    match part.encoding {
        Encoding::Dtype(Dtype::F32) => Ok(ScaleInv::F32(part.bytes.clone())),
        Encoding::Dtype(Dtype::F8_E8M0) => Ok(ScaleInv::Ue8m0(part.bytes.clone())),
        _ => Err(wrong_format(catalog, name, part, "F32 or F8_E8M0")),
    }
}

fn of_dtype(catalog: &Catalog, name: &str, part: &Part, dtype: Dtype) -> Result<Bytes, WeightsError> {
    match part.encoding == Encoding::Dtype(dtype) {
        true => Ok(part.bytes.clone()),
        false => Err(wrong_format(catalog, name, part, dtype.name())),
    }
}

/// `weight_shape`, I32 or I64, says what the packed tensor implies.
fn check_weight_shape(
    catalog: &Catalog,
    name: &str,
    part: &Part,
    rows: usize,
    cols: usize,
) -> Result<(), WeightsError> {
    check_part_shape(catalog, name, part, &[2])?;
    let found: Vec<i64> = match part.encoding {
        Encoding::Dtype(Dtype::I32) => {
            part.bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()
        }
        Encoding::Dtype(Dtype::I64) => {
            part.bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        }
        _ => return Err(wrong_format(catalog, name, part, "I32 or I64")),
    };
    if found == [rows as i64, cols as i64] {
        return Ok(());
    }
    let path = catalog.path(part.file).to_owned();
    Err(WeightsError::WeightShape { path, tensor: name.to_owned(), found, expected: vec![rows, cols] })
}

fn wrong_format(catalog: &Catalog, name: &str, part: &Part, expected: &'static str) -> WeightsError {
    let path = catalog.path(part.file).to_owned();
    WeightsError::Format { path, tensor: name.to_owned(), found: part.encoding.name(), expected }
}
