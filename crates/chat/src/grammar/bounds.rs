//! How much a schema may make the library do, counted from above before the library sees it.
//!
//! The library compiles a schema by recursion, a level for each subschema and for each reference that it follows, and
//! an object's properties by another one, a level for each name. Where a schema says more beside a reference, or several
//! schemas speak of one value, it puts copies of what is referred to in their places. The patterns of an object's names it
//! compares each with each, again whenever the object is combined with something. It has no limits for any of that, so
//! they stand here. Counting takes no longer than reading: what is referred to is looked at once.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// Most levels of recursion. One was measured to take at most 5 KB of stack, optimised; [`super::stack`] has 16 for it.
pub const MAX_LEVELS: usize = 4000;

/// Most different names of properties.
pub const MAX_NAMES: usize = 3000; // as in Moonshot's subset

/// Most values, keywords among them, with copies of what is referred to in the places where the library copies it.
pub const MAX_VALUES: u64 = 250_000;

/// Most `patternProperties` of an object: a comparison of two of them is some 10 microseconds.
pub const MAX_PATTERNS: usize = 32;

/// Most `patternProperties` of all objects together, those of one that is combined as often as that is done.
pub const MAX_ALL_PATTERNS: u64 = 64;

/// Keywords that speak of the same value as what they hold.
const IN_PLACE: [&str; 6] = ["$ref", "allOf", "anyOf", "oneOf", "const", "enum"];

/// Keywords that say nothing of a value: those that the library passes over.
const SILENT: [&str; 15] = [
    "$anchor",
    "$defs",
    "definitions",
    "$schema",
    "$id",
    "id",
    "$comment",
    "title",
    "description",
    "default",
    "readOnly",
    "writeOnly",
    "examples",
    "contentMediaType",
    "contentEncoding",
];

/// What a schema has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Recursion.
    #[error(
        "it is nested {depth} deep and has {references} different references, which makes {} levels if they follow one another; at most {MAX_LEVELS} are accepted",
        levels(*.depth, *.references)
    )]
    Levels {
        /// Values inside one another.
        depth: usize,
        /// Different values of `$ref`.
        references: usize,
    },
    /// Names.
    #[error("it names {found} different properties; at most {MAX_NAMES} are accepted")]
    Names {
        /// How many.
        found: usize,
    },
    /// Copies.
    #[error(
        "it has {found} values with what is referred to and combined in its places; at most {MAX_VALUES} are accepted"
    )]
    Values {
        /// How many, or where the counting ended.
        found: u64,
    },
    /// Patterns of names in one object.
    #[error("an object of it has {found} `patternProperties`; at most {MAX_PATTERNS} are accepted")]
    Patterns {
        /// How many.
        found: usize,
    },
    /// Patterns of names in all objects.
    #[error(
        "its objects have {found} `patternProperties`, counted as often as they are combined; at most {MAX_ALL_PATTERNS} are accepted"
    )]
    AllPatterns {
        /// How many.
        found: u64,
    },
}

/// Whether the library can be given a schema.
pub fn check(schema: &Value) -> Result<(), Excess> {
    let mut sight = Sight::default();
    sight.look(schema, 1);
    let (depth, references) = (sight.depth, sight.references.len());
    if levels(depth, references) > MAX_LEVELS {
        return Err(Excess::Levels { depth, references });
    }
    if sight.names.len() > MAX_NAMES {
        return Err(Excess::Names { found: sight.names.len() });
    }
    if sight.patterns > MAX_PATTERNS {
        return Err(Excess::Patterns { found: sight.patterns });
    }
    match Copies::of(schema) {
        (found, _) if found > MAX_VALUES => Err(Excess::Values { found }),
        (_, found) if found > MAX_ALL_PATTERNS => Err(Excess::AllPatterns { found }),
        _ => Ok(()),
    }
}

/// No reference is compiled inside itself, so the longest way goes through each of them once.
fn levels(depth: usize, references: usize) -> usize {
    depth.saturating_mul(references + 1)
}

/// What is seen of a schema without following references. Keywords count wherever they stand: a reference may make a
/// schema of what looks like data.
#[derive(Default)]
struct Sight<'s> {
    depth: usize,
    references: HashSet<&'s str>,
    names: HashSet<&'s str>,
    /// Most of an object.
    patterns: usize,
}

impl<'s> Sight<'s> {
    fn look(&mut self, value: &'s Value, depth: usize) {
        self.depth = self.depth.max(depth);
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    self.keyword(key, value);
                    self.look(value, depth + 1);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.look(item, depth + 1)),
            _ => {}
        }
    }

    fn keyword(&mut self, key: &str, value: &'s Value) {
        match (key, value) {
            ("$ref", Value::String(reference)) => {
                self.references.insert(reference);
            }
            ("properties", Value::Object(members)) => self.names.extend(members.keys().map(String::as_str)),
            ("patternProperties", Value::Object(members)) => self.patterns = self.patterns.max(members.len()),
            ("required", Value::Array(names)) => self.names.extend(names.iter().filter_map(Value::as_str)),
            ("const" | "enum", data) => self.names_in(data),
            _ => {}
        }
    }

    /// The library makes properties of the keys of objects that are data.
    fn names_in(&mut self, data: &'s Value) {
        match data {
            Value::Object(members) => {
                self.names.extend(members.keys().map(String::as_str));
                members.values().for_each(|value| self.names_in(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.names_in(item)),
            _ => {}
        }
    }
}

/// How large a compiled schema is at most.
#[derive(Clone, Copy)]
struct Size {
    alternatives: u64,
    /// Of the largest alternative.
    values: u64,
    /// How many schemas are combined to it.
    schemas: u64,
    /// Patterns of names, as often as they are compared.
    patterns: u64,
}

impl Size {
    const ONE: Size = Size { alternatives: 1, values: 1, schemas: 0, patterns: 0 };

    const NOTHING: Size = Size { values: 0, ..Size::ONE };

    fn total(self) -> u64 {
        self.alternatives.saturating_mul(self.values)
    }

    /// Of a schema of which both hold.
    fn and(self, other: Size) -> Size {
        Size {
            alternatives: self.alternatives.saturating_mul(other.alternatives),
            values: self.values.saturating_add(other.values),
            schemas: self.schemas.saturating_add(other.schemas),
            patterns: self.patterns.saturating_add(other.patterns),
        }
    }

    /// Of a schema of which one holds.
    fn or(self, other: Size) -> Size {
        Size {
            alternatives: self.alternatives.saturating_add(other.alternatives),
            values: self.values.max(other.values),
            schemas: self.schemas.max(other.schemas),
            patterns: self.patterns.saturating_add(other.patterns),
        }
    }
}

/// Counts values with copies in their places.
struct Copies<'s> {
    root: &'s Value,
    /// What references stand for.
    known: HashMap<&'s str, Size>,
    /// All definitions.
    defined: Size,
    visited: u64,
}

impl<'s> Copies<'s> {
    /// Values, and patterns of names.
    fn of(root: &'s Value) -> (u64, u64) {
        let mut copies = Copies { root, known: HashMap::new(), defined: Size::NOTHING, visited: 0 };
        let own = copies.value(root, false);
        let values = own.total().saturating_add(copies.defined.values);
        (values, own.patterns.saturating_add(copies.defined.patterns))
    }

    /// `copied`: the library may put what is referred to in the place of a reference.
    fn value(&mut self, value: &'s Value, copied: bool) -> Size {
        self.visited += 1;
        if self.visited > MAX_VALUES {
            return Size { values: self.visited, ..Size::ONE };
        }
        match value {
            Value::Object(members) => {
                let combined = combines(value);
                let add = |size: Size, (key, value): (&'s String, &'s Value)| {
                    size.and(self.keyword(key, value, copied || combined))
                };
                let mut size = members.iter().fold(Size::ONE, add);
                size.schemas = size.schemas.saturating_add(1);
                if combined {
                    let times = size.alternatives.saturating_mul(size.schemas);
                    size.patterns = size.patterns.saturating_mul(times);
                }
                size
            }
            Value::Array(items) => self.inside(items.iter(), copied),
            _ => Size::ONE,
        }
    }

    fn keyword(&mut self, key: &str, value: &'s Value, copied: bool) -> Size {
        match (key, value) {
            ("$ref", Value::String(reference)) if copied => self.referred(reference),
            ("allOf", Value::Array(all)) => {
                all.iter().fold(Size::ONE, |size, one| size.and(self.value(one, copied)))
            }
            ("anyOf" | "oneOf" | "enum", Value::Array(any)) => {
                let sizes = any.iter().map(|one| self.value(one, copied));
                sizes.reduce(Size::or).unwrap_or(Size::ONE)
            }
            ("$defs" | "definitions", Value::Object(members)) => {
                let defined = self.inside(members.values(), false);
                self.defined = self.defined.and(defined);
                Size::ONE
            }
            // Names to schemas, of which none is a keyword.
            ("properties", Value::Object(members)) => self.inside(members.values(), copied),
            ("patternProperties", Value::Object(members)) => {
                let patterns = Size { values: 0, patterns: members.len() as u64, ..Size::ONE };
                self.inside(members.values(), copied).and(patterns)
            }
            (_, value) => self.inside(std::iter::once(value), copied),
        }
    }

    /// Values that are parts of something, not alternatives to it.
    fn inside(&mut self, values: impl Iterator<Item = &'s Value>, copied: bool) -> Size {
        let add = |sum: Size, value| {
            let size = self.value(value, copied);
            sum.and(Size { values: size.total(), patterns: size.patterns, ..Size::ONE })
        };
        values.fold(Size::ONE, add)
    }

    fn referred(&mut self, reference: &'s str) -> Size {
        if let Some(size) = self.known.get(reference) {
            return *size;
        }
        // Inside itself it is no copy: the library refuses such ones.
        self.known.insert(reference, Size::ONE);
        let target = target(self.root, reference);
        let size = target.map_or(Size::ONE, |target| self.value(target, true));
        self.known.insert(reference, size);
        size
    }
}

/// Whether several schemas speak of one value here.
fn combines(schema: &Value) -> bool {
    let Value::Object(members) = schema else { return false };
    let in_place = members.keys().filter(|key| IN_PLACE.contains(&key.as_str())).count();
    let own = members.keys().any(|key| !IN_PLACE.contains(&key.as_str()) && !SILENT.contains(&key.as_str()));
    let several = members.get("allOf").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    several || in_place + usize::from(own) > 1
}

/// What the library takes a reference for.
fn target<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    if ["#", "#/"].contains(&reference) {
        return Some(root);
    }
    let step = |value: &'s Value, step: &str| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    };
    reference.strip_prefix("#/")?.split('/').try_fold(root, step)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    /// `#/$defs/0` to `#/$defs/count`, each with what `of` says of its number.
    fn definitions(count: usize, of: impl Fn(usize) -> Value) -> Value {
        let all: Map<String, Value> = (0..=count).map(|place| (place.to_string(), of(place))).collect();
        json!({ "properties": { "a": { "$ref": "#/$defs/0" } }, "$defs": all })
    }

    fn to(place: usize) -> String {
        format!("#/$defs/{}", place + 1)
    }

    #[test]
    fn values_are_counted_where_the_library_copies_them() {
        let check = |schema: Value, expected: u64| assert_eq!(Copies::of(&schema).0, expected, "{schema}");
        check(json!({}), 1);
        check(json!(true), 1);
        check(json!({ "type": "string" }), 3);
        check(json!({ "enum": ["a", "b"] }), 4);
        check(json!({ "properties": { "a": {}, "b": {} } }), 4);
        let pair = json!({ "properties": { "a": {}, "b": {} } });
        let with = |schema: Value| {
            let mut schema = schema;
            schema["$defs"] = json!({ "pair": pair });
            schema
        };
        let reference = json!({ "$ref": "#/$defs/pair" });
        let definition = 5;
        // A reference that stands alone is none; beside a keyword it is a copy.
        check(with(reference.clone()), 1 + 2 + 1 + definition);
        check(with(json!({ "$ref": "#/$defs/pair", "title": "a" })), 1 + 2 + 2 + 1 + definition);
        check(with(json!({ "$ref": "#/$defs/pair", "type": "object" })), 1 + 4 + 2 + 1 + definition);
        check(with(json!({ "allOf": [reference] })), 1 + (1 + 3) + 1 + definition);
        check(with(json!({ "allOf": [reference, reference] })), 1 + (1 + 5 + 5) + 1 + definition);
        // Each alternative is combined with all the rest.
        check(
            with(json!({ "anyOf": [reference, {}, {}], "type": "object" })),
            3 * (1 + 5 + 2 + 1) + definition,
        );
    }

    #[test]
    fn patterns_are_counted_as_often_as_they_are_compared() {
        let check = |schema: Value, expected: u64| assert_eq!(Copies::of(&schema).1, expected, "{schema}");
        let two = json!({ "patternProperties": { "^a": {}, "^b": {} } });
        let reference = json!({ "$ref": "#/$defs/two" });
        let with = |name: &str, value: Value| json!({ name: value, "$defs": { "two": two } });
        check(two.clone(), 2);
        check(json!({ "properties": { "a": two, "b": two } }), 4);
        check(json!({ "anyOf": [two, two] }), 4);
        check(json!({ "enum": ["a"], "properties": { "patternProperties": {} } }), 0);
        // Once where they are defined, and once for every schema in every place where they are put.
        check(with("items", reference.clone()), 2);
        check(with("allOf", json!([reference])), 2);
        check(with("allOf", json!([reference, {}])), 2 + 2 * 4);
        check(with("allOf", json!([{ "properties": { "a": reference } }, {}, {}])), 2 + 2 * 4);
    }

    #[test]
    fn what_is_too_much_is_refused_and_told() {
        let check = |schema: Value, expected: Result<(), &str>| {
            let found = super::check(&schema).map_err(|excess| excess.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        let chain = |count: usize| definitions(count, |place| json!({ "$ref": to(place) }));
        check(chain(996), Ok(()));
        let levels = "it is nested 4 deep and has 1002 different references, which makes 4012 levels if they follow one another; at most 4000 are accepted";
        check(chain(1000), Err(levels));
        let names = |count: usize| -> Value {
            let names: Map<String, Value> = (0..count).map(|name| (format!("a{name}"), json!({}))).collect();
            json!({ "properties": names, "required": ["a0", "b"], "const": { "c": { "d": 1 } } })
        };
        check(names(2997), Ok(()));
        check(names(2998), Err("it names 3001 different properties; at most 3000 are accepted"));
        let patterns = |count: usize, objects: usize| {
            let of = |place: usize| -> Value {
                (0..count).map(|n| (format!("^{place}_{n}"), json!({}))).collect()
            };
            let all: Vec<Value> =
                (0..objects).map(|place| json!({ "patternProperties": of(place) })).collect();
            json!({ "prefixItems": all })
        };
        check(patterns(32, 2), Ok(()));
        let in_one = "an object of it has 33 `patternProperties`; at most 32 are accepted";
        check(patterns(33, 1), Err(in_one));
        let in_all = "its objects have 65 `patternProperties`, counted as often as they are combined; at most 64 are accepted";
        check(patterns(1, 64), Ok(()));
        check(patterns(1, 65), Err(in_all));
        // Twice the next one: a few lines, and as many copies as there are atoms.
        let doubled = |count: usize| {
            definitions(count, |place| {
                let next = json!({ "$ref": to(place), "type": "object" });
                json!({ "properties": { "a": next, "b": next } })
            })
        };
        check(doubled(9), Ok(()));
        assert!(matches!(super::check(&doubled(40)), Err(Excess::Values { found }) if found > 1 << 40));
        assert!(matches!(super::check(&doubled(400)), Err(Excess::Values { found: u64::MAX })));
        // One large definition, many times.
        let large: Map<String, Value> = (0..1000).map(|name| (format!("a{name}"), json!({}))).collect();
        let many: Vec<Value> = vec![json!({ "$ref": "#/$defs/0", "type": "object" }); 1000];
        let copied = json!({ "prefixItems": many, "$defs": { "0": { "properties": large } } });
        assert!(matches!(super::check(&copied), Err(Excess::Values { found }) if found > 1_000_000));
        let alternatives = json!({ "properties": large, "anyOf": vec![json!({ "required": ["a0"] }); 1000] });
        assert!(matches!(super::check(&alternatives), Err(Excess::Values { found }) if found > 1_000_000));
        // What contains itself is not large.
        let tree = json!({ "type": "object", "properties": { "child": { "$ref": "#", "type": "object" } } });
        check(tree, Ok(()));
    }
}
