//! JSON as the client wrote it: keys in their order, numbers as literals.
//!
//! Tool declarations and call arguments become part of the prompt byte for byte, and
//! [`serde_json::Value`] would round what does not fit 64 bits. Its `arbitrary_precision` feature
//! would keep such numbers, but for the whole workspace, where it breaks untagged and flattened
//! serde types that hold numbers. So this small type takes the text that serde_json has checked
//! ([`RawValue`]) and keeps the number literals.
//!
//! Because of `RawValue`, a `Json` can be a field of any struct read by serde_json, but not lie
//! inside an untagged enum or a flattened struct.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap as _};
use serde_json::value::RawValue;

/// Deepest nesting accepted, as in serde_json.
pub const MAX_DEPTH: usize = 128;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object in the order written; of equal keys the last value stands in the first place, as in
    /// Python and serde_json.
    Object(IndexMap<String, Json>),
}

impl Json {
    /// Parses a JSON text.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let checked: &RawValue = serde_json::from_str(text)?;
        Reader { rest: checked.get() }.value(MAX_DEPTH)
    }

    /// The value under `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same value for readers that do not need numbers as written.
    pub fn to_value(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(literal) => serde_json::from_str(literal).unwrap_or_default(),
            Self::String(text) => text.as_str().into(),
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(members) => {
                members.iter().map(|(key, value)| (key.clone(), value.to_value())).collect()
            }
        }
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::Number(number.to_string()),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => {
                Self::Object(members.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let checked = Box::<RawValue>::deserialize(deserializer)?;
        Reader { rest: checked.get() }.value(MAX_DEPTH).map_err(D::Error::custom)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(literal) => {
                let raw = RawValue::from_string(literal.clone());
                raw.map_err(<S::Error as serde::ser::Error>::custom)?.serialize(serializer)
            }
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => items.serialize(serializer),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// Reads JSON whose grammar has been checked, so it never has to say what is wrong with it; only
/// depth and lone surrogates (`"\ud800"`) are left to refuse.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Json, serde_json::Error> {
        if depth == 0 {
            return Err(serde_json::Error::custom(format!("JSON nested deeper than {MAX_DEPTH} levels")));
        }
        self.rest = self.rest.trim_start();
        Ok(match self.rest.bytes().next() {
            Some(b'{') => Json::Object(self.members(depth)?),
            Some(b'[') => Json::Array(self.items(depth)?),
            Some(b'"') => Json::String(self.string()?),
            _ => match self.take(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
                "null" => Json::Null,
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                number => Json::Number(number.to_owned()),
            },
        })
    }

    fn members(&mut self, depth: usize) -> Result<IndexMap<String, Json>, serde_json::Error> {
        let mut members = IndexMap::new();
        self.skip_byte();
        while !self.at_end_of(b'}') {
            let key = self.string()?;
            self.rest = self.rest.trim_start();
            self.skip_byte(); // ':'
            members.insert(key, self.value(depth - 1)?);
        }
        Ok(members)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Json>, serde_json::Error> {
        let mut items = Vec::new();
        self.skip_byte();
        while !self.at_end_of(b']') {
            items.push(self.value(depth - 1)?);
        }
        Ok(items)
    }

    /// Skips blanks and a comma; if `close` comes, skips it and says so. The end of the text closes
    /// everything, which checked text never needs.
    fn at_end_of(&mut self, close: u8) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.bytes().next() {
            Some(byte) if byte == close => {
                self.skip_byte();
                true
            }
            Some(b',') => {
                self.skip_byte();
                self.rest = self.rest.trim_start();
                false
            }
            next => next.is_none(),
        }
    }

    fn string(&mut self) -> Result<String, serde_json::Error> {
        let mut escaped = true; // the opening quote does not close
        let mut end = self.rest.len();
        for (at, byte) in self.rest.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    end = at + 1;
                    break;
                }
                _ => {}
            }
        }
        let (literal, rest) = self.rest.split_at(end);
        self.rest = rest;
        serde_json::from_str(literal)
    }

    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &str {
        let end = self.rest.bytes().position(|byte| !belongs(byte)).unwrap_or(self.rest.len());
        // The cut lies between ASCII bytes; an empty literal ends the text, so that reading always ends.
        let (literal, rest) = self.rest.split_at(end);
        self.rest = if literal.is_empty() { "" } else { rest };
        literal
    }

    /// Skips one ASCII byte.
    fn skip_byte(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }
}
