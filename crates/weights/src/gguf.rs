//! The GGUF container: metadata and tensor table, checked.
//!
//! Format: ggml's `docs/gguf.md`, versions 2 and 3 (which differ in name only for little-endian files).
//! A file is the magic, a version, two counts, key-value pairs, tensor descriptions, and then the data,
//! each tensor at an aligned offset. Dimensions are stored fastest first; here shapes are row-major.

mod config;
mod metadata;
mod set;
mod vocabulary;

use bytes::Bytes;
use k2_kernels::GgmlType;
use k2_kernels::ggml::type_name;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use crate::catalog::Encoding;
use crate::safetensors::Dtype;
use crate::text::cut;
use metadata::Reader;

pub use config::config;
pub use metadata::{Array, Metadata, Value};
pub use vocabulary::{GgufVocabulary, vocabulary};

pub(crate) use set::{find_set, open_set};

/// Most tensors accepted; K2 has about 1,100.
const TENSOR_LIMIT: u64 = 1 << 20;

/// What a GGUF file without `general.alignment` is aligned to.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A parsed file.
#[derive(Debug)]
pub struct Gguf {
    /// The key-value pairs.
    pub metadata: Metadata,
    /// The tensors, in the order of the file.
    pub tensors: Vec<Tensor>,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// llama.cpp's name.
    pub name: String,
    /// Shape, row-major (the slowest dimension first).
    pub shape: Vec<usize>,
    /// How the numbers are coded.
    pub(crate) encoding: Encoding,
    /// Bytes of the file that hold the data.
    pub range: Range<usize>,
}

/// Why a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum GgufError {
    /// Another kind of file.
    #[error("not a GGUF file: it begins with \"{found}\", expected \"GGUF\"")]
    Magic { found: String },
    /// A version with another layout.
    #[error("GGUF version {found}{}; supported: 2 and 3, little-endian", if found.swap_bytes() < 16 { " (big-endian?)" } else { "" })]
    Version { found: u32 },
    /// The file ends inside something.
    #[error("the file ends inside {what}: {needed} bytes from byte {at} on, {available} are there")]
    Truncated { what: &'static str, at: usize, needed: u64, available: usize },
    /// A count or length above its limit.
    #[error("{what} is {found}, at most {limit} are accepted")]
    Limit { what: String, found: u64, limit: u64 },
    /// A key or name that is not UTF-8, empty, or unfit to be shown.
    #[error(
        "{what} is \"{found}\", expected a name: UTF-8, not empty, at most 512 bytes, no control characters"
    )]
    Name { what: &'static str, found: String },
    /// A value type that the format does not have.
    #[error("key `{key}` has the unknown value type {found}")]
    ValueType { key: String, found: u32 },
    /// An array of arrays.
    #[error("key `{key}` is an array of arrays, which no known key is")]
    NestedArray { key: String },
    /// A key is given twice.
    #[error("key `{key}` is there twice")]
    DuplicateKey { key: String },
    /// A key without which the model is unknown.
    #[error("key `{key}` is missing; it is needed to compute the right numbers")]
    MissingKey { key: String },
    /// A key has a value of another type, or outside of what makes sense.
    #[error("key `{key}` is {found}, expected {expected}")]
    Key { key: String, found: String, expected: &'static str },
    /// A tensor is given twice.
    #[error("tensor `{tensor}` is there twice")]
    DuplicateTensor { tensor: String },
    /// A tensor without dimensions, or with more than the format has.
    #[error("tensor `{tensor}` has {found} dimensions, expected one to four")]
    Rank { tensor: String, found: u32 },
    /// A tensor without numbers.
    #[error("tensor `{tensor}` has the dimensions {found:?}, expected none to be 0")]
    Dimensions { tensor: String, found: Vec<u64> },
    /// A number format that is not supported.
    #[error("tensor `{tensor}` has the type {}; supported: F32, F16, BF16, {}", name_of(*number), supported())]
    Type { tensor: String, number: u32 },
    /// A row does not hold whole blocks.
    #[error("tensor `{tensor}` has rows of {cols} numbers, not a multiple of the {block} of a {kind} block")]
    Ragged { tensor: String, cols: u64, block: usize, kind: &'static str },
    /// Dimensions whose product does not fit.
    #[error("tensor `{tensor}` of dimensions {found:?} has no byte count")]
    Size { tensor: String, found: Vec<u64> },
    /// An offset that breaks the alignment.
    #[error("tensor `{tensor}` lies at offset {offset}, expected a multiple of {alignment}")]
    Offset { tensor: String, offset: u64, alignment: u64 },
    /// The data is not inside the file.
    #[error("tensor `{tensor}` claims {bytes} bytes from byte {begin} of a file of {file} bytes")]
    Range { tensor: String, begin: u64, bytes: u64, file: u64 },
    /// Two tensors share bytes.
    #[error("tensor `{tensor}` begins inside `{previous}`")]
    Overlap { tensor: String, previous: String },
    /// A name that architecture deepseek2 does not have.
    #[error("tensor `{tensor}` is unknown in architecture deepseek2; ignoring it would change the model")]
    UnknownTensor { tensor: String },
    /// A stacked expert tensor that is not three-dimensional, or with too many experts.
    #[error(
        "tensor `{tensor}` has shape {found:?}, expected [experts, rows, columns] with at most {limit} experts"
    )]
    Stack { tensor: String, found: Vec<usize>, limit: usize },
    /// A file of a split is not the one that its name says.
    #[error("key `{key}` is {found}; by the names of the files and what is in them it should be {expected}")]
    Split { key: &'static str, found: u64, expected: u64 },
    /// A split's file is not named like one.
    #[error("`split.count` is {count}, but the name does not end in -00001-of-{count:05}.gguf or the like")]
    SplitName { count: u64 },
}

/// Reads and checks everything before the data of a whole file.
pub fn parse(file: &Bytes) -> Result<Gguf, GgufError> {
    let mut reader = Reader::new(file);
    let magic: [u8; 4] = reader.array("the magic")?;
    if &magic != b"GGUF" {
        return Err(GgufError::Magic { found: cut(&String::from_utf8_lossy(&magic)) });
    }
    let version = u32::from_le_bytes(reader.array("the version")?);
    if !(2..=3).contains(&version) {
        return Err(GgufError::Version { found: version });
    }
    let tensors = reader.u64("the tensor count")?;
    let pairs = reader.u64("the key count")?;
    limit(format_args!("the tensor count"), tensors, TENSOR_LIMIT)?;
    let metadata = Metadata::read(&mut reader, pairs)?;
    let raw = (0..tensors).map(|_| RawTensor::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    let tensors = place(raw, reader.position(), alignment(&metadata)?, file.len() as u64)?;
    Ok(Gguf { metadata, tensors })
}

fn limit(what: fmt::Arguments<'_>, found: u64, limit: u64) -> Result<(), GgufError> {
    match found <= limit {
        true => Ok(()),
        false => Err(GgufError::Limit { what: what.to_string(), found, limit }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    const KEY: &str = "general.alignment";
    let Some(alignment) = metadata.optional_uint(KEY)? else { return Ok(DEFAULT_ALIGNMENT) };
    match alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) {
        true => Ok(alignment),
        false => Err(metadata.wrong(KEY, "a power of two from 8 to 1048576")),
    }
}

/// A tensor description as written.
struct RawTensor {
    name: String,
    dims: Vec<u64>,
    number: u32,
    offset: u64,
}

impl RawTensor {
    fn read(reader: &mut Reader<'_>) -> Result<RawTensor, GgufError> {
        let name = reader.name("a tensor name")?;
        let rank = u32::from_le_bytes(reader.array("a dimension count")?);
        if !(1..=4).contains(&rank) {
            return Err(GgufError::Rank { tensor: name, found: rank });
        }
        let dims: Vec<u64> = (0..rank).map(|_| reader.u64("a dimension")).collect::<Result<_, _>>()?;
        if dims.contains(&0) {
            return Err(GgufError::Dimensions { tensor: name, found: dims });
        }
        let number = u32::from_le_bytes(reader.array("a tensor type")?);
        let offset = reader.u64("a tensor offset")?;
        Ok(RawTensor { name, dims, number, offset })
    }

    fn encoding(&self) -> Result<Encoding, GgufError> {
        let dtype = match self.number {
            0 => Dtype::F32,
            1 => Dtype::F16,
            30 => Dtype::BF16,
            number => {
                let kind = GgmlType::from_number(number);
                let unsupported = || GgufError::Type { tensor: self.name.clone(), number };
                return kind.map(Encoding::Ggml).ok_or_else(unsupported);
            }
        };
        Ok(Encoding::Dtype(dtype))
    }

    /// Bytes of the data; rows hold whole blocks.
    fn bytes(&self, encoding: Encoding) -> Result<u64, GgufError> {
        let (block, block_bytes) = match encoding {
            Encoding::Dtype(Dtype::F32) => (1, 4),
            Encoding::Dtype(_) => (1, 2),
            Encoding::Ggml(kind) => (kind.block_len(), kind.block_bytes()),
        };
        let cols = self.dims[0];
        if !cols.is_multiple_of(block as u64) {
            let (tensor, kind) = (self.name.clone(), encoding.name());
            return Err(GgufError::Ragged { tensor, cols, block, kind });
        }
        let row = (cols / block as u64).checked_mul(block_bytes as u64);
        let bytes = self.dims[1..].iter().fold(row, |bytes, &dim| bytes?.checked_mul(dim));
        bytes.ok_or_else(|| GgufError::Size { tensor: self.name.clone(), found: self.dims.clone() })
    }
}

/// Turns offsets into ranges of the file, each aligned, inside, and its own.
fn place(raw: Vec<RawTensor>, header: usize, alignment: u64, file: u64) -> Result<Vec<Tensor>, GgufError> {
    let mut seen = HashSet::with_capacity(raw.len());
    let data = (header as u64).next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(raw.len());
    for raw in raw {
        if !seen.insert(raw.name.clone()) {
            return Err(GgufError::DuplicateTensor { tensor: raw.name });
        }
        let encoding = raw.encoding()?;
        let bytes = raw.bytes(encoding)?;
        let RawTensor { name, dims, offset, .. } = raw;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Offset { tensor: name, offset, alignment });
        }
        let begin = data.saturating_add(offset);
        let Some(end) = begin.checked_add(bytes).filter(|&end| end <= file) else {
            return Err(GgufError::Range { tensor: name, begin, bytes, file });
        };
        let shape = dims.iter().rev().map(|&dim| dim as usize).collect();
        tensors.push(Tensor { name, shape, encoding, range: begin as usize..end as usize });
    }
    check_disjoint(&tensors)?;
    Ok(tensors)
}

fn check_disjoint(tensors: &[Tensor]) -> Result<(), GgufError> {
    let mut by_place: Vec<&Tensor> = tensors.iter().collect();
    by_place.sort_unstable_by_key(|tensor| tensor.range.start);
    for pair in by_place.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let (tensor, previous) = (pair[1].name.clone(), pair[0].name.clone());
            return Err(GgufError::Overlap { tensor, previous });
        }
    }
    Ok(())
}

fn name_of(number: u32) -> String {
    type_name(number).map_or_else(|| format!("number {number}, unknown to this program"), str::to_owned)
}

fn supported() -> String {
    GgmlType::all().map(GgmlType::name).collect::<Vec<_>>().join(", ")
}
