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

/// The fields that have not been read yet, as the client wrote them.
#[derive(Default)]
pub(crate) struct Body {
    fields: IndexMap<String, Box<RawValue>>,
}

impl Body {
    /// Reads a JSON object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Body, ApiError> {
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
