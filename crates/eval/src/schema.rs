//! Whether a text is JSON, and JSON that fits a schema (JSON Schema, draft 2020-12), by a validator that had no part
//! in writing it.

use serde_json::Value;

use crate::answer::Finding;
use crate::endpoint::excerpt;

/// Reads an object and checks it against a schema.
///
/// # Errors
///
/// What is wrong with the text, or with the schema.
pub fn check(schema: &Value, text: &str) -> Result<(), Finding> {
    let value = Value::Object(object(text)?);
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("$id"); // names the document, changes nothing, and need not be a real address
    }
    let validator = jsonschema::draft202012::new(&schema)
        .map_err(|error| Finding(format!("the schema cannot be used: {error}")))?;
    let fits = validator.validate(&value);
    fits.map_err(|error| {
        Finding(format!(
            "{} does not fit its schema at {:?}: {error}",
            excerpt(text),
            error.instance_path().as_str()
        ))
    })
}

/// Reads a JSON object.
///
/// # Errors
///
/// It is no JSON, or no object.
pub fn object(text: &str) -> Result<serde_json::Map<String, Value>, Finding> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Finding(format!("{:?} is JSON, but no object", excerpt(text)))),
        Err(error) => Err(Finding(format!("{:?} is no JSON: {error}", excerpt(text)))),
    }
}
