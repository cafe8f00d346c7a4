//! The safetensors container: its header, checked.
//!
//! Format: <https://github.com/huggingface/safetensors>: eight bytes of little-endian header length,
//! a JSON object `name → {dtype, shape, data_offsets}`, then the data. As the reference implementation
//! does, this reader refuses data that is not covered exactly once. Unlike it, a name given twice is an
//! error and not the last one's win.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use crate::text::{cut, is_name, why};

/// Largest header accepted, the reference implementation's own limit.
pub const HEADER_LIMIT: u64 = 100_000_000;

/// Most dimensions accepted.
const RANK_LIMIT: usize = 16;

/// The tensors of one file, in the order of its header.
#[derive(Debug)]
pub struct Header {
    /// Name and place of each.
    pub tensors: Vec<(String, TensorInfo)>,
}

/// Where a tensor lies and how it is coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Bytes of the file that hold the data.
    pub range: Range<usize>,
}

/// Why a file is not safetensors.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum SafetensorsError {
    /// Not even a header length.
    #[error("{bytes} bytes are too few for a safetensors file, which begins with 8 bytes of header length")]
    TooShort { bytes: usize },
    /// The header length is outside the file or absurd.
    #[error(
        "the header claims {header} bytes; the file has {available} after the length, and {HEADER_LIMIT} is the limit"
    )]
    HeaderLength { header: u64, available: u64 },
    /// The header is not the JSON that it should be.
    #[error("the header is not valid: {}", why(error))]
    Json { error: serde_json::Error },
    /// The header does not begin with `{`.
    #[error("the header begins with {}, expected `{{`", found.map_or("nothing".into(), |b| format!("byte {b:#04x}")))]
    NotAnObject { found: Option<u8> },
    /// A name that is empty or unfit to be shown.
    #[error(
        "a tensor is called \"{found}\", expected a name: not empty, at most 512 bytes, no control characters"
    )]
    Name { found: String },
    /// A name is given twice.
    #[error("tensor `{tensor}` is in the header twice")]
    Duplicate { tensor: String },
    /// A tensor to be written has the name of the header's own entry.
    #[error("no tensor can be called `__metadata__`")]
    ReservedName,
    /// A dtype that the format does not know.
    #[error("tensor `{tensor}` has the unknown dtype `{dtype}`")]
    UnknownDtype { tensor: String, dtype: String },
    /// More dimensions than anything has.
    #[error("tensor `{tensor}` has {found} dimensions, at most {RANK_LIMIT} are accepted")]
    Rank { tensor: String, found: usize },
    /// Shape x dtype does not fit into 64 bits, or is not whole bytes.
    #[error("tensor `{tensor}` of shape {shape:?} and dtype {dtype} has no byte count")]
    Size { tensor: String, shape: Vec<u64>, dtype: &'static str },
    /// Begin and end make no range inside the data.
    #[error("tensor `{tensor}` claims bytes {begin}..{end} of {data} bytes of data")]
    Range { tensor: String, begin: u64, end: u64, data: u64 },
    /// Shape x dtype and the range disagree.
    #[error(
        "tensor `{tensor}` of shape {shape:?} and dtype {dtype} needs {expected} bytes, its range has {found}"
    )]
    Length { tensor: String, shape: Vec<u64>, dtype: &'static str, expected: u64, found: u64 },
    /// Two tensors share bytes.
    #[error("tensor `{tensor}` begins at byte {begin}, inside `{previous}`, which ends at {end}")]
    Overlap { tensor: String, begin: usize, previous: String, end: usize },
    /// Bytes that belong to no tensor.
    #[error("bytes {begin}..{end} of the file belong to no tensor")]
    Hole { begin: usize, end: usize },
}

/// An element type of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, non_camel_case_types)] // the format's own names
pub enum Dtype {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// Every dtype with its name and width in bits.
const DTYPES: [(Dtype, &str, u64); 22] = [
    (Dtype::BOOL, "BOOL", 8),
    (Dtype::F4, "F4", 4),
    (Dtype::F6_E2M3, "F6_E2M3", 6),
    (Dtype::F6_E3M2, "F6_E3M2", 6),
    (Dtype::U8, "U8", 8),
    (Dtype::I8, "I8", 8),
    (Dtype::F8_E5M2, "F8_E5M2", 8),
    (Dtype::F8_E4M3, "F8_E4M3", 8),
    (Dtype::F8_E8M0, "F8_E8M0", 8),
    (Dtype::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
    (Dtype::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
    (Dtype::I16, "I16", 16),
    (Dtype::U16, "U16", 16),
    (Dtype::F16, "F16", 16),
    (Dtype::BF16, "BF16", 16),
    (Dtype::I32, "I32", 32),
    (Dtype::U32, "U32", 32),
    (Dtype::F32, "F32", 32),
    (Dtype::C64, "C64", 64),
    (Dtype::F64, "F64", 64),
    (Dtype::I64, "I64", 64),
    (Dtype::U64, "U64", 64),
];

impl Dtype {
    /// The format's name for it.
    pub fn name(self) -> &'static str {
        DTYPES[self as usize].1
    }

    /// Width of an element.
    pub fn bits(self) -> u64 {
        DTYPES[self as usize].2
    }

    /// Bytes of a tensor of this shape; `None` if that overflows or is not whole.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let bits = shape.iter().try_fold(self.bits(), |n, &dim| n.checked_mul(dim))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn from_name(name: &str) -> Option<Dtype> {
        DTYPES.iter().find(|(_, known, _)| *known == name).map(|(dtype, ..)| *dtype)
    }
}

/// Reads and checks the header of a whole file. Touches nothing after the header.
pub fn parse(file: &[u8]) -> Result<Header, SafetensorsError> {
    let (json, data_start) = split_header(file)?;
    let RawHeader(raw) = serde_json::from_slice(json).map_err(|error| SafetensorsError::Json { error })?;
    let data = data_start..file.len();
    let tensors = raw
        .into_iter()
        .map(|(name, info)| info.check(&name, &data).map(|info| (name, info)))
        .collect::<Result<Vec<_>, _>>()?;
    check_unique(&tensors)?;
    check_cover(&tensors, data)?;
    Ok(Header { tensors })
}

/// The JSON, and where the data begins.
fn split_header(file: &[u8]) -> Result<(&[u8], usize), SafetensorsError> {
    let too_short = SafetensorsError::TooShort { bytes: file.len() };
    let (length, rest) = file.split_first_chunk::<8>().ok_or(too_short)?;
    let (header, available) = (u64::from_le_bytes(*length), rest.len() as u64);
    if header > available.min(HEADER_LIMIT) {
        return Err(SafetensorsError::HeaderLength { header, available });
    }
    let json = &rest[..header as usize];
    match json.first() {
        Some(b'{') => Ok((json, 8 + json.len())),
        found => Err(SafetensorsError::NotAnObject { found: found.copied() }),
    }
}

fn check_unique(tensors: &[(String, TensorInfo)]) -> Result<(), SafetensorsError> {
    let mut seen = HashSet::with_capacity(tensors.len());
    match tensors.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(SafetensorsError::Duplicate { tensor: name.clone() }),
    }
}

/// Every byte of the data belongs to exactly one tensor.
fn check_cover(tensors: &[(String, TensorInfo)], data: Range<usize>) -> Result<(), SafetensorsError> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_unstable_by_key(|(_, info)| (info.range.start, info.range.end));
    let (mut end, mut previous) = (data.start, "");
    for (name, TensorInfo { range, .. }) in by_place {
        if range.start < end {
            let (tensor, previous) = (name.clone(), previous.to_owned());
            return Err(SafetensorsError::Overlap { tensor, begin: range.start, previous, end });
        }
        if range.start > end {
            return Err(SafetensorsError::Hole { begin: end, end: range.start });
        }
        (end, previous) = (range.end, name);
    }
    match end == data.end {
        true => Ok(()),
        false => Err(SafetensorsError::Hole { begin: end, end: data.end }),
    }
}

/// One entry as written.
#[derive(Deserialize)]
struct RawInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawInfo {
    fn check(self, name: &str, data: &Range<usize>) -> Result<TensorInfo, SafetensorsError> {
        if !is_name(name) {
            return Err(SafetensorsError::Name { found: cut(name) });
        }
        let tensor = || name.to_owned();
        let Some(dtype) = Dtype::from_name(&self.dtype) else {
            return Err(SafetensorsError::UnknownDtype { tensor: tensor(), dtype: cut(&self.dtype) });
        };
        let RawInfo { shape, data_offsets: (begin, end), .. } = self;
        if shape.len() > RANK_LIMIT {
            return Err(SafetensorsError::Rank { tensor: tensor(), found: shape.len() });
        }
        let sizes: Result<Vec<usize>, _> = shape.iter().map(|&dim| usize::try_from(dim)).collect();
        let (Some(expected), Ok(sizes)) = (dtype.bytes(&shape), sizes) else {
            return Err(SafetensorsError::Size { tensor: tensor(), shape, dtype: dtype.name() });
        };
        if begin > end || end > data.len() as u64 {
            return Err(SafetensorsError::Range { tensor: tensor(), begin, end, data: data.len() as u64 });
        }
        let (dtype_name, found) = (dtype.name(), end - begin);
        if found != expected {
            let tensor = tensor();
            return Err(SafetensorsError::Length { tensor, shape, dtype: dtype_name, expected, found });
        }
        let range = data.start + begin as usize..data.start + end as usize;
        Ok(TensorInfo { dtype, shape: sizes, range })
    }
}

/// The header's entries in order, repeated names kept. A map type would drop them silently.
struct RawHeader(Vec<(String, RawInfo)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<HashMap<String, String>>()?;
            } else {
                tensors.push((name, map.next_value()?));
            }
        }
        Ok(RawHeader(tensors))
    }
}
