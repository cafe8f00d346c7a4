//! The schemas of a request, made ready for the library: bounded, checked where they are strict, `$id` away (the library
//! would resolve references against it), objects closed that leave it open whether they have other properties than
//! the declared ones, and keys sorted where the model reads them sorted.

use serde_json::{Map, Value, json};

use super::{ContentForm, GrammarError, MAX_SCHEMA_BYTES, Wanted, bounds};
use crate::json::Json;
use crate::message::Tool;
use crate::mfjs;

/// Keywords whose values are maps from names to schemas.
const MAPS: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// Keywords whose values are data, not schemas.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];

/// Keywords by which several schemas speak of one object, so that none of them alone may close it.
const COMBINE: [&str; 10] = [
    "not",
    "if",
    "then",
    "else",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
];

/// Keywords that do so together, or beside one of [`OF_OBJECTS`].
const COMBINE_BESIDE: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];

/// Keywords that speak of an object.
const OF_OBJECTS: [&str; 8] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "required",
    "minProperties",
    "maxProperties",
    "const",
];

/// A schema that is ready.
#[derive(Debug)]
pub struct Schema {
    /// Its place in the request.
    pub param: String,
    /// The tool, if it is one's.
    pub name: Option<String>,
    /// Whether calls or content have to fit it in every point.
    pub strict: bool,
    /// The schema.
    pub value: Value,
}

impl Schema {
    /// Lets strings have any form, and names: those that a pattern allowed cannot be told from others any more.
    pub fn leave_out_patterns(&mut self) {
        each_schema(&mut self.value, false, &mut |members| {
            let binds_names = members.contains_key("patternProperties");
            let dropped = |key: &str| match key {
                "pattern" | "patternProperties" => true,
                "additionalProperties" => binds_names,
                _ => false,
            };
            members.retain(|key, _| !dropped(key));
        });
    }
}

/// All schemas: those of the tools in order, then that of the content.
pub fn all(wanted: Wanted<'_>) -> Result<Vec<Schema>, GrammarError> {
    let mut schemas = Vec::new();
    if let Some(calls) = wanted.calls {
        let wanted = |index: &usize| calls.only.is_none_or(|only| only == *index);
        for (index, tool) in calls.tools.iter().enumerate().filter(|(index, _)| wanted(index)) {
            schemas.push(of_tool(index, tool, calls.sorted)?);
        }
    }
    if let ContentForm::Json { schema, strict } = wanted.content {
        schemas.push(of_content(schema, strict)?);
    }
    let mut bytes = 0;
    for schema in &schemas {
        bytes += schema.value.to_string().len();
        if bytes > MAX_SCHEMA_BYTES {
            return Err(GrammarError::TooLarge { param: schema.param.clone(), bytes });
        }
    }
    Ok(schemas)
}

fn of_tool(index: usize, tool: &Tool, sorted: bool) -> Result<Schema, GrammarError> {
    let param = format!("tools[{index}].function.parameters");
    let name = tool.name().map(str::to_owned);
    let strict = match tool.strict() {
        None | Some(Json::Null) => false,
        Some(Json::Bool(strict)) => *strict,
        Some(_) => {
            let param = format!("tools[{index}].function.strict");
            return Err(GrammarError::Schema {
                param,
                name,
                reason: "`strict` must be true or false".into(),
            });
        }
    };
    let value = match tool.parameters() {
        // "Omitting parameters defines a function with an empty parameter list" (OpenAI's API reference).
        None | Some(Json::Null) => {
            json!({ "type": "object", "properties": {}, "additionalProperties": false })
        }
        Some(schema @ Json::Object(_)) => {
            ready(as_object(checked(strict, schema, &param, &name)?), sorted, true)
        }
        Some(_) => {
            return Err(GrammarError::Schema { param, name, reason: "a schema must be an object".into() });
        }
    };
    Ok(Schema { param, name, strict, value })
}

fn of_content(schema: &Json, strict: bool) -> Result<Schema, GrammarError> {
    let param = "response_format.json_schema.schema".to_owned();
    let value = ready(checked(strict, schema, &param, &None)?, false, false);
    Ok(Schema { param, name: None, strict, value })
}

/// A schema that is neither too much nor, if it is strict, out of Moonshot's subset. Whoever follows references comes
/// after the bounds.
fn checked(strict: bool, schema: &Json, param: &str, name: &Option<String>) -> Result<Value, GrammarError> {
    let (param, name) = (|| param.to_owned(), || name.clone());
    let value = schema.to_value();
    let bytes = value.to_string().len();
    if bytes > MAX_SCHEMA_BYTES {
        return Err(GrammarError::TooLarge { param: param(), bytes });
    }
    bounds::check(&value).map_err(|excess| GrammarError::Excess { param: param(), name: name(), excess })?;
    match strict.then(|| mfjs::validate(schema)) {
        Some(Err(violation)) => Err(GrammarError::NotMfjs { param: param(), name: name(), violation }),
        _ => Ok(value),
    }
}

/// Arguments are an object, also where the schema leaves that to be understood.
fn as_object(mut schema: Value) -> Value {
    const SAYS: [&str; 7] = ["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"];
    if let Some(members) = schema.as_object_mut()
        && !SAYS.iter().any(|key| members.contains_key(*key))
    {
        members.insert("type".to_owned(), "object".into());
    }
    schema
}

/// A schema without `$id` and without instructions to the library, its objects closed, its keys sorted if need be.
fn ready(mut schema: Value, sorted: bool, no_arguments: bool) -> Value {
    each_schema(&mut schema, false, &mut |members| {
        members.retain(|key, _| key != "$id" && key != "x-guidance");
    });
    close_objects(&mut schema, no_arguments);
    if sorted { deep_sorted(schema) } else { schema }
}

/// Where a schema declares properties and does not say whether there are others, there are none: who reads the answer
/// would not know them, and a model that makes names up does not end. JSON Schema's own default is that there may be.
/// `no_arguments`: a root without properties declares that there are none; deeper down it leaves all open.
fn close_objects(schema: &mut Value, no_arguments: bool) {
    let mut combines = false;
    each_schema(schema, false, &mut |members| combines |= speaks_of_one_object_twice(members));
    if combines {
        return;
    }
    each_schema(schema, false, &mut |members| {
        if declares_all(members) && members["properties"].as_object().is_some_and(|all| !all.is_empty()) {
            members.insert("additionalProperties".to_owned(), false.into());
        }
    });
    if let Some(members) = schema.as_object_mut().filter(|members| no_arguments && declares_all(members)) {
        members.insert("additionalProperties".to_owned(), false.into());
    }
}

fn speaks_of_one_object_twice(members: &Map<String, Value>) -> bool {
    let count = |keys: &[&str]| keys.iter().filter(|key| members.contains_key(**key)).count();
    let several = |key: &str| members.get(key).and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    let beside = count(&COMBINE_BESIDE);
    count(&COMBINE) > 0 || several("allOf") || beside > 1 || beside == 1 && count(&OF_OBJECTS) > 0
}

/// True if the declared properties are enough for all else that is said.
fn declares_all(members: &Map<String, Value>) -> bool {
    let Some(properties) = members.get("properties").and_then(Value::as_object) else { return false };
    let says = ["additionalProperties", "propertyNames", "enum", "const"];
    let required: &[Value] = members.get("required").and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let declares = |name: &Value| name.as_str().is_some_and(|name| properties.contains_key(name));
    // The library cannot count properties that are neither required nor others.
    let least = members.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    !says.iter().any(|key| members.contains_key(*key))
        && required.iter().all(declares)
        && least <= required.len() as u64
}

/// Changes a schema and all within it. `map`: the value is no schema, but maps names to schemas.
fn each_schema(value: &mut Value, map: bool, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            if !map {
                change(members);
            }
            for (key, value) in members.iter_mut().filter(|(key, _)| map || !DATA.contains(&key.as_str())) {
                each_schema(value, !map && MAPS.contains(&key.as_str()), change);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_schema(item, false, change)),
        _ => {}
    }
}

fn deep_sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.into_iter().map(|(key, value)| (key, deep_sorted(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(deep_sorted).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_where_that_is_left_open() {
        let check = |mut value: Value, expected: Value| {
            close_objects(&mut value, true);
            assert_eq!(value, expected);
        };
        let closed = |members: Value| json!({ "properties": members, "additionalProperties": false });
        let open = |members: Value| json!({ "properties": members });
        let (a, b) = (json!({ "a": {} }), json!({ "b": {} }));
        check(open(a.clone()), closed(a.clone()));
        check(open(json!({ "a": open(b.clone()) })), closed(json!({ "a": closed(b.clone()) })));
        check(json!({ "anyOf": [open(a.clone()), true] }), json!({ "anyOf": [closed(a.clone()), true] }));
        check(json!({ "allOf": [open(a.clone())] }), json!({ "allOf": [closed(a.clone())] }));
        check(json!({ "$defs": { "c": open(a.clone()) } }), json!({ "$defs": { "c": closed(a.clone()) } }));
        // No arguments; deeper down it is an object of any form.
        check(open(json!({})), closed(json!({})));
        check(open(json!({ "a": open(json!({})) })), closed(json!({ "a": open(json!({})) })));
        // A property of such a name is none of them.
        check(open(json!({ "allOf": {}, "not": {} })), closed(json!({ "allOf": {}, "not": {} })));
    }

    #[test]
    fn objects_stay_open_where_more_is_said_of_them() {
        let check = |value: Value| {
            let mut found = value.clone();
            close_objects(&mut found, true);
            assert_eq!(found, value);
        };
        let open = |name: &str| json!({ "properties": { name: {} } });
        check(json!({ "type": "object" }));
        check(json!({ "properties": { "a": {} }, "additionalProperties": true }));
        check(json!({ "properties": { "a": {} }, "additionalProperties": { "type": "string" } }));
        check(json!({ "properties": { "a": {} }, "propertyNames": { "maxLength": 3 } }));
        // What is required and not declared, or more than is required, has to come from somewhere.
        check(json!({ "properties": { "a": {} }, "required": ["a", "b"] }));
        check(json!({ "properties": { "a": {}, "b": {}, "c": {} }, "required": ["a"], "minProperties": 2 }));
        check(json!({ "properties": { "a": {} }, "const": { "a": 1, "b": 2 } }));
        // Two schemas of one object.
        check(json!({ "allOf": [open("a"), open("b")] }));
        check(json!({ "properties": { "a": {} }, "anyOf": [open("b"), true] }));
        check(json!({ "required": ["id"], "oneOf": [open("a"), open("b")] }));
        check(json!({ "additionalProperties": true, "anyOf": [open("a")] }));
        check(json!({ "anyOf": [open("a")], "oneOf": [open("b")] }));
        check(json!({ "$ref": "#/$defs/c", "required": ["id"], "$defs": { "c": open("a") } }));
        check(json!({ "properties": { "a": {} }, "dependencies": { "a": open("b") } }));
        check(json!({ "properties": { "a": {} }, "dependentRequired": { "a": ["b"] } }));
    }

    #[test]
    fn patterns_are_left_out_and_nothing_else() {
        let check = |value: Value, expected: Value| {
            let mut schema = Schema { param: String::new(), name: None, strict: false, value };
            schema.leave_out_patterns();
            // As text: the order of keys is meaning.
            assert_eq!(schema.value.to_string(), expected.to_string());
        };
        let string = json!({ "type": "string", "pattern": "a", "minLength": 1 });
        let free = json!({ "type": "string", "minLength": 1 });
        check(string.clone(), free.clone());
        check(
            json!({ "anyOf": [string, { "items": string }] }),
            json!({ "anyOf": [free, { "items": free }] }),
        );
        // Names and data only look like keywords.
        let names =
            json!({ "properties": { "pattern": free, "patternProperties": free }, "required": ["pattern"] });
        check(names.clone(), names);
        let data = json!({ "enum": [{ "pattern": "a" }], "default": { "pattern": "a" } });
        check(data.clone(), data);
        // With the patterns goes what they left to forbid.
        let bound =
            json!({ "patternProperties": { "a": free }, "additionalProperties": false, "type": "object" });
        check(bound, json!({ "type": "object" }));
        let closed = json!({ "properties": { "a": free }, "additionalProperties": false });
        check(closed.clone(), closed);
    }
}
