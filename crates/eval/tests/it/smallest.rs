//! The smallest value that fits a schema of Moonshot's subset, as a well-behaved model would give it.

use serde_json::{Value, json};

/// A value for a schema inside a document whose root holds `$defs`. Depth bounds recursion.
pub(crate) fn smallest(schema: &Value, root: &Value) -> Value {
    value(schema, root, 24).unwrap()
}

fn value(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    if let Some(target) = schema["$ref"].as_str() {
        return value(root.pointer(target.trim_start_matches('#'))?, root, depth);
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        // The one that ends soonest.
        return (1..=depth).find_map(|depth| branches.iter().find_map(|branch| value(branch, root, depth)));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.first().cloned();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind == "null").or(kinds.first())?.as_str()?,
        Value::String(kind) => kind,
        _ => return Some(json!(null)),
    };
    match kind {
        "null" => Some(json!(null)),
        "boolean" => Some(json!(true)),
        "string" => Some(json!("a".repeat(schema["minLength"].as_u64().unwrap_or(0) as usize))),
        "integer" | "number" => Some(number(schema)),
        "array" => {
            let count = schema["minItems"].as_u64().unwrap_or(0) as usize;
            (0..count).map(|_| value(&schema["items"], root, depth)).collect::<Option<_>>().map(Value::Array)
        }
        _ => {
            let required = schema["required"].as_array().into_iter().flatten();
            let pair = |name: &Value| {
                let name = name.as_str()?;
                Some((name.to_owned(), value(&schema["properties"][name], root, depth)?))
            };
            required.map(pair).collect::<Option<_>>().map(Value::Object)
        }
    }
}

fn number(schema: &Value) -> Value {
    let bound = |name: &str| schema[name].as_f64();
    let number = match (bound("minimum"), bound("maximum")) {
        (Some(least), _) if least > 0.0 => least,
        (_, Some(most)) if most < 0.0 => most,
        _ => return json!(0),
    };
    match number.fract() == 0.0 && number.abs() < 9.1e15 {
        true => json!(number as i64),
        false => json!(number),
    }
}
