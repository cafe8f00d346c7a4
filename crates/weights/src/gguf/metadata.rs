//! Key-value pairs of a GGUF file.
//!
//! Strings and arrays stay slices of the mapped file; they are validated while the pairs are walked and
//! turned into owned values only when somebody asks, so a length in a file never becomes an allocation.

use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use super::{GgufError, limit};
use crate::text::{NAME_LIMIT, cut, is_name};

/// Most pairs accepted; real files have about 60.
const PAIR_LIMIT: u64 = 1 << 16;

/// Longest array accepted; K2's vocabulary has 163,840 entries.
const ARRAY_LIMIT: u64 = 1 << 22;

/// Longest string accepted outside of arrays (chat templates have some KB).
const STRING_LIMIT: u64 = 1 << 24;

/// The pairs of a file.
#[derive(Debug, Default)]
pub struct Metadata(HashMap<String, Value>);

/// A value.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // one per kind of value
pub enum Value {
    Uint(u64),
    Int(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(Bytes),
    Array(Array),
}

/// An array as it lies in the file.
#[derive(Clone, Debug)]
pub struct Array {
    kind: Kind,
    len: u64,
    data: Bytes,
}

/// The value types of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// By their numbers in a file: the kind and its bytes, 0 if they vary.
const KINDS: [(Kind, u64); 13] = [
    (Kind::U8, 1),
    (Kind::I8, 1),
    (Kind::U16, 2),
    (Kind::I16, 2),
    (Kind::U32, 4),
    (Kind::I32, 4),
    (Kind::F32, 4),
    (Kind::Bool, 1),
    (Kind::String, 0),
    (Kind::Array, 0),
    (Kind::U64, 8),
    (Kind::I64, 8),
    (Kind::F64, 8),
];

impl Metadata {
    pub(super) fn read(reader: &mut Reader<'_>, pairs: u64) -> Result<Metadata, GgufError> {
        limit(format_args!("the key count"), pairs, PAIR_LIMIT)?;
        let mut map = HashMap::new();
        for _ in 0..pairs {
            let key = reader.name("a key")?;
            let kind = reader.kind(&key)?;
            let value = reader.value(&key, kind)?;
            match map.entry(key) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(entry) => return Err(GgufError::DuplicateKey { key: entry.key().clone() }),
            };
        }
        Ok(Metadata(map))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// A whole number that is not negative, of any width.
    pub fn optional_uint(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Uint(n)) => Ok(Some(*n)),
            Some(Value::Int(n)) if *n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    /// A finite number. One of 32 bits becomes the double that prints the same: 2.827 and not 2.8269999.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::F32(n)) => n.to_string().parse().unwrap_or(f64::from(*n)),
            Some(Value::F64(n)) => *n,
            Some(Value::Uint(n)) => *n as f64,
            Some(Value::Int(n)) => *n as f64,
            Some(_) => return Err(self.wrong(key, "a number")),
        };
        if number.is_finite() { Ok(Some(number)) } else { Err(self.wrong(key, "a finite number")) }
    }

    /// True or false.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Text.
    pub fn optional_text(&self, key: &str) -> Result<Option<String>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => text(key, bytes).map(Some),
            Some(_) => Err(self.wrong(key, "text")),
        }
    }

    /// An array.
    pub fn optional_array(&self, key: &str) -> Result<Option<&Array>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(_) => Err(self.wrong(key, "an array")),
        }
    }

    /// The error that a key's value is not what it should be.
    pub fn wrong(&self, key: &str, expected: &'static str) -> GgufError {
        let found = self.get(key).map_or_else(|| "missing".to_owned(), shown);
        GgufError::Key { key: key.to_owned(), found, expected }
    }
}

impl Array {
    /// How many elements.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as text; `None` if they are something else.
    pub fn texts(&self, key: &str) -> Option<Result<Vec<String>, GgufError>> {
        if self.kind != Kind::String {
            return None;
        }
        let mut reader = Reader::new(&self.data);
        let element = |_| text(key, &self.data[reader.string("an element", u64::MAX)?]);
        Some((0..self.len).map(element).collect())
    }

    /// The elements as 32-bit integers; `None` if they are something else.
    pub fn ints(&self) -> Option<Vec<i32>> {
        match self.kind {
            Kind::I32 | Kind::U32 => {
                Some(self.data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
            }
            _ => None,
        }
    }
}

/// A cursor over the front of a file.
pub(super) struct Reader<'a> {
    file: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Bytes) -> Reader<'a> {
        Reader { file, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Steps over some bytes and says where they are.
    fn step(&mut self, what: &'static str, needed: u64) -> Result<Range<usize>, GgufError> {
        let (at, available) = (self.at, self.file.len() - self.at);
        if needed > available as u64 {
            return Err(GgufError::Truncated { what, at, needed, available });
        }
        self.at += needed as usize;
        Ok(at..self.at)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let rest = &self.file[self.at..];
        let truncated = GgufError::Truncated { what, at: self.at, needed: N as u64, available: rest.len() };
        let bytes = rest.first_chunk().ok_or(truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &'static str, longest: u64) -> Result<Range<usize>, GgufError> {
        let len = self.u64(what)?;
        limit(format_args!("the length of {what}"), len, longest)?;
        self.step(what, len)
    }

    /// A key, or the name of a tensor.
    pub(super) fn name(&mut self, what: &'static str) -> Result<String, GgufError> {
        let range = self.string(what, NAME_LIMIT as u64)?;
        match std::str::from_utf8(&self.file[range.clone()]) {
            Ok(text) if is_name(text) => Ok(text.to_owned()),
            _ => Err(GgufError::Name { what, found: cut(&String::from_utf8_lossy(&self.file[range])) }),
        }
    }

    fn kind(&mut self, key: &str) -> Result<(Kind, u64), GgufError> {
        let found = u32::from_le_bytes(self.array("a value type")?);
        let unknown = || GgufError::ValueType { key: key.to_owned(), found };
        KINDS.get(found as usize).copied().ok_or_else(unknown)
    }

    fn value(&mut self, key: &str, (kind, _): (Kind, u64)) -> Result<Value, GgufError> {
        const WHAT: &str = "a value";
        Ok(match kind {
            Kind::U8 => Value::Uint(u8::from_le_bytes(self.array(WHAT)?).into()),
            Kind::I8 => Value::Int(i8::from_le_bytes(self.array(WHAT)?).into()),
            Kind::U16 => Value::Uint(u16::from_le_bytes(self.array(WHAT)?).into()),
            Kind::I16 => Value::Int(i16::from_le_bytes(self.array(WHAT)?).into()),
            Kind::U32 => Value::Uint(u32::from_le_bytes(self.array(WHAT)?).into()),
            Kind::I32 => Value::Int(i32::from_le_bytes(self.array(WHAT)?).into()),
            Kind::U64 => Value::Uint(u64::from_le_bytes(self.array(WHAT)?)),
            Kind::I64 => Value::Int(i64::from_le_bytes(self.array(WHAT)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.array(WHAT)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.array(WHAT)?)),
            Kind::Bool => Value::Bool(self.array::<1>(WHAT)? != [0]),
            Kind::String => Value::String(self.file.slice(self.string(WHAT, STRING_LIMIT)?)),
            Kind::Array => Value::Array(self.elements(key)?),
        })
    }

    /// An array: the elements are walked once, so that their end is known and inside the file.
    fn elements(&mut self, key: &str) -> Result<Array, GgufError> {
        let (kind, width) = self.kind(key)?;
        let len = self.u64("an array length")?;
        limit(format_args!("the length of the array `{key}`"), len, ARRAY_LIMIT)?;
        let start = self.at;
        match kind {
            Kind::Array => return Err(GgufError::NestedArray { key: key.to_owned() }),
            Kind::String => {
                for _ in 0..len {
                    self.string("an array of strings", STRING_LIMIT)?;
                }
            }
            _ => {
                self.step("an array", len * width)?;
            }
        }
        Ok(Array { kind, len, data: self.file.slice(start..self.at) })
    }
}

fn text(key: &str, bytes: &[u8]) -> Result<String, GgufError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(GgufError::Key {
            key: key.to_owned(),
            found: cut(&String::from_utf8_lossy(bytes)),
            expected: "UTF-8 text",
        }),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Uint(n) => n.to_string(),
        Value::Int(n) => n.to_string(),
        Value::F32(n) => n.to_string(),
        Value::F64(n) => n.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(bytes) => {
            format!("\"{}\"", cut(&String::from_utf8_lossy(&bytes[..bytes.len().min(1000)])))
        }
        Value::Array(array) => format!("an array of {} elements", array.len),
    }
}
