//! References of a schema: where they lead, how deep, and whether something finite can be valid.
//!
//! Everything is decided by target, not by path, so a schema of a few lines cannot make it take long.

use std::collections::{HashMap, HashSet};

use super::{MAX_DEPTH, Members, Violation, broken};
use crate::json::Json;

/// Most references of a schema: a chain of them is followed link by link.
const MAX_REFERENCES: usize = 500;

/// The document that references lead into.
pub(super) struct References<'s> {
    root: &'s Members,
}

impl<'s> References<'s> {
    pub(super) fn new(root: &'s Members) -> References<'s> {
        References { root }
    }

    /// The subschema that a reference means; none for `#`, the whole.
    pub(super) fn target(&self, reference: &Json, path: &str) -> Result<Option<&'s Members>, Violation> {
        let Some(reference) = reference.as_str() else { return broken(path, "`$ref` must be a string") };
        if reference == "#" {
            return Ok(None);
        }
        let Some(steps) = reference.strip_prefix("#/$defs/") else {
            return broken(
                path,
                format!("`$ref` is {reference:?}; references must start with #/$defs/, or be #"),
            );
        };
        let (name, steps) = steps.split_once('/').unwrap_or((steps, ""));
        let Some(definition) = self.root.get("$defs").and_then(|definitions| definitions.get(name)) else {
            return broken(path, format!("`$defs` has no {name:?}, which {reference:?} refers to"));
        };
        match follow(definition, steps) {
            Some(Json::Object(target)) => Ok(Some(target)),
            _ => broken(path, format!("{reference:?} is an invalid $ref path: it leads to no subschema")),
        }
    }

    /// Depth and recursion of a schema whose references all lead somewhere.
    pub(super) fn check(&self, schema: &'s Json) -> Result<(), Violation> {
        let mut references = HashSet::new();
        gather(schema, &mut references);
        if references.len() > MAX_REFERENCES {
            let found = references.len();
            return broken(
                "",
                format!("the schema has {found} different references; at most {MAX_REFERENCES} are allowed"),
            );
        }
        let depth = self.depth(schema, &mut HashMap::new());
        if depth > MAX_DEPTH {
            let rule = format!(
                "the schema depth exceeds the limit: properties are nested {depth} deep, references followed; at most {MAX_DEPTH} are allowed"
            );
            return broken("", rule);
        }
        match self.ends(schema, Required::All) && self.ends(schema, Required::Any) {
            true => Ok(()),
            false => {
                broken("", "infinite recursion: what is required contains itself, so nothing finite is valid")
            }
        }
    }

    /// How deep properties are nested. A reference to something that is on its way adds nothing.
    fn depth(&self, schema: &'s Json, known: &mut HashMap<&'s str, usize>) -> usize {
        let inner = |name: &str| schema.get(name).into_iter();
        let own = each(schema, "properties").map(|inner| 1 + self.depth(inner, known)).max();
        let others: Vec<&Json> = inner("items")
            .chain(inner("additionalProperties"))
            .chain(each(schema, "anyOf"))
            .chain(each(schema, "$defs"))
            .collect();
        let others = others.into_iter().map(|inner| self.depth(inner, known)).max();
        let referred =
            schema.get("$ref").and_then(Json::as_str).map(|reference| self.depth_of(reference, known));
        own.max(others).max(referred).unwrap_or_default()
    }

    fn depth_of(&self, reference: &'s str, known: &mut HashMap<&'s str, usize>) -> usize {
        if let Some(depth) = known.get(reference) {
            return *depth;
        }
        known.insert(reference, 0);
        let depth = self.resolve(reference).map_or(0, |target| self.depth(target, known));
        known.insert(reference, depth);
        depth
    }

    fn resolve(&self, reference: &str) -> Option<&'s Json> {
        let (name, steps) =
            reference.strip_prefix("#/$defs/").map(|steps| steps.split_once('/').unwrap_or((steps, "")))?;
        follow(self.root.get("$defs")?.get(name)?, steps)
    }

    /// Whether something finite can be valid: the least set of references that end, grown until it stands.
    fn ends(&self, schema: &'s Json, required: Required) -> bool {
        let mut references = HashSet::new();
        gather(schema, &mut references);
        let mut ending: HashSet<&str> = HashSet::new();
        loop {
            let more: Vec<&str> = references
                .iter()
                .filter(|reference| !ending.contains(*reference))
                .filter(|reference| {
                    let target = if **reference == "#" { Some(schema) } else { self.resolve(reference) };
                    target.is_some_and(|target| ends(target, &ending, required))
                })
                .copied()
                .collect();
            if more.is_empty() {
                return ends(schema, &ending, required);
            }
            ending.extend(more);
        }
    }
}

/// Which of the required properties have to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Required {
    /// All: the truth. An array that may be empty ends.
    All,
    /// One is enough, but items of arrays count even if there may be none: how the published validator sees it.
    Any,
}

fn ends(schema: &Json, ending: &HashSet<&str>, required: Required) -> bool {
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        return ending.contains(reference);
    }
    if schema.get("anyOf").is_some() {
        return each(schema, "anyOf").any(|branch| ends(branch, ending, required));
    }
    match single_type(schema) {
        Some("object") => {
            let Some(Json::Array(names)) = schema.get("required") else { return true };
            let properties = schema.get("properties");
            let property =
                |name: &Json| properties.and_then(|all| all.get(name.as_str().unwrap_or_default()));
            let mut each = names.iter().filter_map(property).map(|property| ends(property, ending, required));
            match required {
                Required::All => each.all(|ends| ends),
                Required::Any => names.is_empty() || each.any(|ends| ends),
            }
        }
        Some("array") => {
            let may_be_empty =
                !matches!(schema.get("minItems"), Some(Json::Number(least)) if least.parse() != Ok(0.0));
            let skip = required == Required::All && may_be_empty;
            skip || schema.get("items").is_none_or(|items| ends(items, ending, required))
        }
        _ => true,
    }
}

fn single_type(schema: &Json) -> Option<&str> {
    match schema.get("type")? {
        Json::Array(types) if types.len() == 1 => types[0].as_str(),
        one => one.as_str(),
    }
}

/// The subschemas in a map or list of them.
fn each<'j>(schema: &'j Json, keyword: &str) -> Box<dyn Iterator<Item = &'j Json> + 'j> {
    match schema.get(keyword) {
        Some(Json::Object(members)) => Box::new(members.values()),
        Some(Json::Array(items)) => Box::new(items.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

/// All references of a schema, those of `$defs` too.
fn gather<'j>(schema: &'j Json, references: &mut HashSet<&'j str>) {
    references.extend(schema.get("$ref").and_then(Json::as_str));
    let inner = |name: &str| schema.get(name).into_iter();
    let all = inner("items")
        .chain(inner("additionalProperties"))
        .chain(["properties", "anyOf", "$defs"].into_iter().flat_map(|keyword| each(schema, keyword)));
    all.for_each(|inner| gather(inner, references));
}

/// Follows the steps of a pointer from subschema to subschema.
fn follow<'j>(schema: &'j Json, steps: &str) -> Option<&'j Json> {
    let mut at = schema;
    let mut steps = steps.split('/').filter(|step| !step.is_empty());
    while let Some(step) = steps.next() {
        at = match (step, at.get(step)?) {
            ("items" | "additionalProperties", inner) => inner,
            ("properties", Json::Object(properties)) => properties.get(steps.next()?)?,
            ("anyOf", Json::Array(branches)) => branches.get(steps.next()?.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(at)
}
