//! What stands beside `type`: each type's own keywords, and the values of these.

use super::{COMMON, MAX_ENUM, Members, ROOT, Violation, broken};
use crate::json::Json;

/// The types and their keywords; the structure of objects and arrays is walked elsewhere.
pub(super) const TYPES: [(&str, &[&str]); 7] = [
    ("object", &["properties", "required", "additionalProperties"]),
    ("array", &["items", "minItems", "maxItems"]),
    ("string", &["minLength", "maxLength", "pattern", "enum"]),
    ("number", &["minimum", "maximum", "enum"]),
    ("integer", &["minimum", "maximum", "enum"]),
    ("boolean", &["enum"]),
    ("null", &["enum"]),
];

/// The type or types of a schema that has `type`.
pub(super) fn read<'s>(schema: &'s Members, path: &str) -> Result<Vec<&'s str>, Violation> {
    let given: Vec<&Json> = match schema.get("type") {
        Some(Json::Array(types)) => types.iter().collect(),
        Some(one @ Json::String(_)) => vec![one],
        _ => return broken(path, "`type` must be a string or an array of strings"),
    };
    if given.is_empty() {
        return broken(path, "the array `type` cannot be empty");
    }
    let known = |name: &&str| TYPES.iter().any(|(known, _)| known == name);
    given
        .into_iter()
        .map(|name| match name.as_str().filter(known) {
            Some(name) => Ok(name),
            None => {
                let names = TYPES.map(|(name, _)| name).join(", ");
                broken(path, format!("{} is no type; types are {names}", name.to_value()))
            }
        })
        .collect()
}

/// Whether all keywords fit the types, and their values.
pub(super) fn check(schema: &Members, types: &[&str], path: &str) -> Result<(), Violation> {
    fit(schema, types, path)?;
    if let Some(values) = schema.get("enum") {
        enumeration(values, types, path)?;
    }
    required(schema, path)?;
    range(schema, ["minLength", "maxLength"], path, size)?;
    range(schema, ["minItems", "maxItems"], path, size)?;
    let bound = if types == ["integer"] { integer } else { number };
    range(schema, ["minimum", "maximum"], path, bound)?;
    match schema.get("pattern") {
        Some(pattern) if pattern.as_str().is_none() => broken(path, "`pattern` must be a string"),
        _ => Ok(()),
    }
}

fn fit(schema: &Members, types: &[&str], path: &str) -> Result<(), Violation> {
    let own: &[&str] = match types {
        [one] => TYPES.iter().find(|(name, _)| name == one).map(|(_, own)| *own).unwrap_or_default(),
        _ if schema.contains_key("enum") => {
            let nullable = types.len() == 2 && types.contains(&"null");
            if !nullable || types.contains(&"object") || types.contains(&"array") {
                let rule = "`enum` is not allowed in combination with these types; it goes with one simple type, or with that and \"null\"";
                return broken(path, rule);
            }
            &["enum"]
        }
        _ => &[],
    };
    let fits = |keyword: &str| {
        keyword == "type" || COMMON.contains(&keyword) || ROOT.contains(&keyword) || own.contains(&keyword)
    };
    match schema.keys().find(|keyword| !fits(keyword)) {
        None => Ok(()),
        Some(keyword) if types.len() > 1 => broken(
            path,
            format!("`{keyword}` is not allowed in combination with multiple types; use `anyOf`"),
        ),
        Some(keyword) => broken(path, format!("`{keyword}` is no keyword of type {:?}", types[0])),
    }
}

fn enumeration(values: &Json, types: &[&str], path: &str) -> Result<(), Violation> {
    let Json::Array(values) = values else { return broken(path, "`enum` must be an array") };
    if values.is_empty() || values.len() > MAX_ENUM {
        return broken(path, format!("`enum` has {} values; it must have 1 to {MAX_ENUM}", values.len()));
    }
    match values.iter().find(|value| !types.iter().any(|name| is_of(value, name))) {
        None => Ok(()),
        Some(value) => {
            broken(path, format!("the `enum` value {} does not match any type of {types:?}", shown(value)))
        }
    }
}

/// A value for a message; numbers as written.
fn shown(value: &Json) -> String {
    match value {
        Json::Number(literal) => literal.clone(),
        other => other.to_value().to_string(),
    }
}

fn is_of(value: &Json, name: &str) -> bool {
    match value {
        Json::Null => name == "null",
        Json::Bool(_) => name == "boolean",
        Json::String(_) => name == "string",
        Json::Number(literal) => {
            number(value).is_ok() && (name == "number" || (name == "integer" && is_integer(literal)))
        }
        Json::Array(_) | Json::Object(_) => false,
    }
}

fn is_integer(literal: &str) -> bool {
    !literal.contains(['.', 'e', 'E'])
}

fn required(schema: &Members, path: &str) -> Result<(), Violation> {
    let Some(required) = schema.get("required") else { return Ok(()) };
    let Json::Array(required) = required else { return broken(path, "`required` must be an array") };
    for name in required {
        let Some(name) = name.as_str() else { return broken(path, "names in `required` must be strings") };
        match schema.get("properties") {
            _ if name.is_empty() => return broken(path, "names in `required` cannot be empty"),
            None => return broken(path, format!("{name:?} is required, but `properties` is missing")),
            Some(properties) if properties.get(name).is_none() => {
                return broken(path, format!("{name:?} is required, but not defined in `properties`"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Both bounds have the right form, and the lower is not above the upper.
fn range(
    schema: &Members,
    [low, high]: [&str; 2],
    path: &str,
    read: fn(&Json) -> Result<f64, &'static str>,
) -> Result<(), Violation> {
    let bound = |name: &str| match schema.get(name).map(read) {
        None => Ok(None),
        Some(Ok(bound)) => Ok(Some(bound)),
        Some(Err(what)) => broken(path, format!("`{name}` must be {what}")),
    };
    match (bound(low)?, bound(high)?) {
        (Some(a), Some(b)) if a > b => {
            broken(path, format!("`{low}` is {a}, which is greater than `{high}`, {b}"))
        }
        _ => Ok(()),
    }
}

fn size(value: &Json) -> Result<f64, &'static str> {
    match integer(value) {
        Ok(size) if size >= 0.0 => Ok(size),
        _ => Err("an integer that is non-negative"),
    }
}

fn integer(value: &Json) -> Result<f64, &'static str> {
    match value {
        Json::Number(literal) if is_integer(literal) => number(value),
        _ => Err("an integer"),
    }
}

fn number(value: &Json) -> Result<f64, &'static str> {
    match value {
        Json::Number(literal) => literal.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
    .ok_or("a number of double precision")
}
