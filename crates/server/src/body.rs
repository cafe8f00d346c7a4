//! A request body, field by field: every error names its field, and no field is ignored unseen.

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::ApiError;

/// Fields of clients' bookkeeping. They change no answer here or anywhere, so they are taken and dropped.
const WITHOUT_EFFECT: [&str; 7] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// Most keys and values of a body. A value of two bytes is a hundred when it has been read, so the length of a body does
/// not bound the memory that it takes. Prompts of token ids are the longest lists that anybody needs.
const MAX_VALUES: usize = 1 << 20;

/// The fields that have not been read yet, as the client wrote them.
#[derive(Default)]
pub(crate) struct Body {
    fields: IndexMap<String, Box<RawValue>>,
}

impl Body {
    /// Reads a JSON object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Body, ApiError> {
        let found = values(bytes);
        if found > MAX_VALUES {
            let message =
                format!("the body has {found} JSON keys and values; at most {MAX_VALUES} are accepted");
            return Err(ApiError::invalid(message));
        }
        let fields = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::invalid(format!("the body is not a JSON object: {error}")))?;
        Ok(Body { fields })
    }

    /// Writes a field, for a request that is said in another API's fields.
    pub(crate) fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), ApiError> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|error| ApiError::field(name, format!("`{name}`: {error}")))?;
        self.fields.insert(name.to_owned(), raw);
        Ok(())
    }

    /// Takes a field over from another request, under the name that it has here.
    pub(crate) fn pass(&mut self, from: &mut Body, theirs: &str, here: &str) {
        if let Some(raw) = from.fields.shift_remove(theirs) {
            self.fields.insert(here.to_owned(), raw);
        }
    }

    /// Takes over all fields that are left.
    pub(crate) fn pass_all(&mut self, from: Body) {
        self.fields.extend(from.fields);
    }

    /// A field; none if it is absent or null.
    pub(crate) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.fields.shift_remove(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|error| ApiError::field(name, format!("`{name}`: {error}")))
    }

    /// As [`optional`](Self::optional), and the field is still to be read.
    pub(crate) fn peek<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.fields.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|error| ApiError::field(name, format!("`{name}`: {error}")))
    }

    /// Drops fields that say nothing here.
    pub(crate) fn pass_over(&mut self, names: &[&str]) {
        self.fields.retain(|name, _| !names.contains(&name.as_str()));
    }

    /// A field that must be there.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        self.optional(name)?.ok_or_else(|| ApiError::field(name, format!("`{name}` is missing")))
    }

    /// A number within a range.
    pub(crate) fn number(&mut self, name: &str, low: f64, high: f64) -> Result<Option<f64>, ApiError> {
        let Some(number) = self.optional::<f64>(name)? else { return Ok(None) };
        match (low..=high).contains(&number) {
            true => Ok(Some(number)),
            false => Err(ApiError::field(name, format!("`{name}` is {number}, expected {low} to {high}"))),
        }
    }

    /// A field that may only have the value that changes nothing.
    pub(crate) fn only<T>(&mut self, name: &str, neutral: &[T]) -> Result<(), ApiError>
    where
        T: DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        match self.optional::<T>(name)? {
            Some(value) if !neutral.contains(&value) => {
                let message = format!("`{name}` is {value:?}; this server supports only {neutral:?}");
                Err(ApiError::unsupported(name, message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what nobody has read.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        let known = |name: &str| WITHOUT_EFFECT.contains(&name);
        match self.fields.iter().find(|(name, value)| !known(name) && value.get() != "null") {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::unsupported(name, format!("`{name}` is not supported by this server")))
            }
        }
    }
}

/// Keys and values of a JSON text, as if empty lists and objects had one: before each stands one of four signs.
fn values(json: &[u8]) -> usize {
    let (mut found, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' | b':' if !in_string => found += 1,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_counted() {
        let check = |json: &str, expected: usize| assert_eq!(values(json.as_bytes()), expected, "{json}");
        check("", 0);
        check("{}", 1);
        check("[1, 2, 3]", 3);
        check(r#"{"a": [true, {}], "b": "x"}"#, 7);
        check(r#"{"a,:[{": "\",[", "b\\": ",,"}"#, 4);
        check(r#"["\\", ",", "\\\","]"#, 3);
    }

    #[test]
    fn bodies_of_many_values_are_refused() {
        let of = |values: usize| format!("{{\"tools\":[{}1]}}", "1,".repeat(values - 3));
        assert!(Body::parse(of(MAX_VALUES).as_bytes()).is_ok());
        let error = Body::parse(of(MAX_VALUES + 1).as_bytes()).err().map(|error| error.message().to_owned());
        let expected = "the body has 1048577 JSON keys and values; at most 1048576 are accepted";
        assert_eq!(error.as_deref(), Some(expected));
    }
}
