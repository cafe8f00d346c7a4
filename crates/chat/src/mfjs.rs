//! Moonshot's JSON schema (MFJS): is a schema of the subset that Kimi's platform enforces?
//!
//! The rules are those of docs/mfjs-spec.md of MoonshotAI/walle and of its published cases: a subschema says
//! what it is by `type`, `anyOf` or `$ref`, or is anything, keywords stand only beside the types they belong to, references stay
//! in the document, and something finite has to be valid. The limits are the documented depth and, for the rest,
//! the wider ones of its validator.

mod keywords;
mod references;

use std::fmt::{self, Display};

use indexmap::IndexMap;

use crate::json::Json;
use references::References;

/// Most bytes of a schema, written compactly.
pub const MAX_BYTES: usize = 120_000;
/// Deepest nesting of `properties`, references followed.
pub const MAX_DEPTH: usize = 5;
/// Most properties of all objects together.
pub const MAX_PROPERTIES: usize = 3000;
/// Most branches of an `anyOf`.
pub const MAX_ANY_OF: usize = 500;
/// Most values of an `enum`.
pub const MAX_ENUM: usize = 1000;

/// Keywords that may stand beside all others.
const COMMON: [&str; 3] = ["description", "title", "default"];
/// Keywords of the root.
const ROOT: [&str; 2] = ["$defs", "$id"];

/// The members of an object.
type Members = IndexMap<String, Json>;

/// A rule that a schema breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A JSON pointer into the schema (RFC 6901, without escapes); empty for the root.
    pub path: String,
    /// What is wrong and what would be right.
    pub rule: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "at its root: {}", self.rule),
            path => write!(f, "at {path}: {}", self.rule),
        }
    }
}

/// Whether a schema is of the subset; the first rule it breaks if not.
pub fn validate(schema: &Json) -> Result<(), Violation> {
    let bytes = schema.to_value().to_string().len();
    let root = members(schema, "", "the schema")?;
    if bytes > MAX_BYTES {
        return broken("", format!("the schema has {bytes} bytes; at most {MAX_BYTES} are allowed"));
    }
    if root.is_empty() {
        return Ok(()); // anything
    }
    let references = References::new(root);
    let mut walk = Walk { references: &references, properties: 0 };
    walk.schema(schema, "", Place::Root)?;
    references.check(schema)
}

/// Where a subschema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    /// Inside `$defs`, where names have no slash.
    Defs,
    Elsewhere,
}

struct Walk<'s> {
    references: &'s References<'s>,
    properties: usize,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Json, path: &str, place: Place) -> Result<(), Violation> {
        let schema = members(schema, path, "a subschema")?;
        self.keywords(schema, path, place)?;
        self.definitions(schema, path)?;
        let inner = if place == Place::Defs { Place::Defs } else { Place::Elsewhere };
        if let Some(reference) = schema.get("$ref") {
            alone(schema, "$ref", path)?;
            self.references.target(reference, path).map(|_| ())
        } else if let Some(branches) = schema.get("anyOf") {
            alone(schema, "anyOf", path)?;
            self.any_of(branches, path, inner)
        } else if schema.contains_key("type") {
            self.typed(schema, path, inner)
        } else if schema
            .keys()
            .all(|keyword| COMMON.contains(&keyword.as_str()) || ROOT.contains(&keyword.as_str()))
        {
            Ok(()) // anything, as the published validator and the vendors' tests have it
        } else {
            broken(path, "it needs `type`, `anyOf` or `$ref`")
        }
    }

    /// Which keywords there are, and the form of those that all subschemas share.
    fn keywords(&self, schema: &Members, path: &str, place: Place) -> Result<(), Violation> {
        for (keyword, value) in schema {
            let keyword = keyword.as_str();
            if ROOT.contains(&keyword) && place != Place::Root {
                return broken(path, format!("`{keyword}` must be at root level"));
            }
            if !is_keyword(keyword) {
                return broken(path, format!("`{keyword}` is not a supported keyword"));
            }
            if ["description", "title", "$id"].contains(&keyword) && value.as_str().is_none() {
                return broken(path, format!("`{keyword}` must be a string"));
            }
        }
        Ok(())
    }

    fn definitions(&mut self, schema: &Members, path: &str) -> Result<(), Violation> {
        let Some(definitions) = schema.get("$defs") else { return Ok(()) };
        let path = format!("{path}/$defs");
        for (name, definition) in members(definitions, &path, "`$defs`")? {
            named(name, &path, Place::Defs)?;
            self.schema(definition, &format!("{path}/{name}"), Place::Defs)?;
        }
        Ok(())
    }

    fn any_of(&mut self, branches: &Json, path: &str, place: Place) -> Result<(), Violation> {
        let Json::Array(branches) = branches else { return broken(path, "`anyOf` must be an array") };
        if branches.is_empty() || branches.len() > MAX_ANY_OF {
            let count = branches.len();
            return broken(path, format!("`anyOf` has {count} branches; it must have 1 to {MAX_ANY_OF}"));
        }
        for (index, branch) in branches.iter().enumerate() {
            self.schema(branch, &format!("{path}/anyOf/{index}"), place)?;
        }
        Ok(())
    }

    fn typed(&mut self, schema: &Members, path: &str, place: Place) -> Result<(), Violation> {
        let types = keywords::read(schema, path)?;
        keywords::check(schema, &types, path)?;
        if let Some(properties) = schema.get("properties") {
            self.properties(properties, path, place)?;
        }
        match schema.get("additionalProperties") {
            None | Some(Json::Bool(_)) => {}
            Some(Json::Object(members)) if members.is_empty() => {}
            Some(inner @ Json::Object(_)) => {
                self.schema(inner, &format!("{path}/additionalProperties"), place)?
            }
            Some(_) => return broken(path, "`additionalProperties` must be a boolean or a schema"),
        }
        match schema.get("items") {
            None => Ok(()),
            Some(items @ Json::Object(_)) => self.schema(items, &format!("{path}/items"), place),
            Some(_) => broken(path, "`items` must be a schema"),
        }
    }

    fn properties(&mut self, properties: &Json, path: &str, place: Place) -> Result<(), Violation> {
        let path = format!("{path}/properties");
        let properties = members(properties, &path, "`properties`")?;
        self.properties += properties.len();
        if self.properties > MAX_PROPERTIES {
            let rule = format!(
                "there are {} properties up to here; at most {MAX_PROPERTIES} are allowed",
                self.properties
            );
            return broken(&path, rule);
        }
        for (name, property) in properties {
            named(name, &path, place)?;
            self.schema(property, &format!("{path}/{name}"), place)?;
        }
        Ok(())
    }
}

/// Names of properties and definitions.
fn named(name: &str, path: &str, place: Place) -> Result<(), Violation> {
    match name {
        "" => broken(path, "a name cannot be empty"),
        "$defs" | "$ref" | "anyOf" | "required" | "additionalProperties" => {
            broken(path, format!("the name `{name}` is reserved for JSON schema itself"))
        }
        _ if place == Place::Defs && name.contains('/') => {
            broken(path, format!("the name {name:?} has a `/`, which names inside `$defs` cannot have"))
        }
        _ => Ok(()),
    }
}

fn is_keyword(keyword: &str) -> bool {
    let structural = ["type", "anyOf", "$ref"];
    COMMON.contains(&keyword)
        || ROOT.contains(&keyword)
        || structural.contains(&keyword)
        || keywords::TYPES.iter().any(|(_, own)| own.contains(&keyword))
}

/// `$ref` and `anyOf` stand alone, apart from descriptions.
fn alone(schema: &Members, keyword: &str, path: &str) -> Result<(), Violation> {
    let fits = |other: &str| other == keyword || COMMON.contains(&other) || ROOT.contains(&other);
    match schema.keys().find(|other| !fits(other)) {
        None => Ok(()),
        Some(other) => broken(
            path,
            format!("`{other}` is not allowed beside `{keyword}`; it belongs into what that stands for"),
        ),
    }
}

fn members<'j>(value: &'j Json, path: &str, what: &str) -> Result<&'j Members, Violation> {
    match value {
        Json::Object(members) => Ok(members),
        _ => broken(path, format!("{what} must be an object")),
    }
}

fn broken<T>(path: &str, rule: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { path: path.to_owned(), rule: rule.into() })
}
