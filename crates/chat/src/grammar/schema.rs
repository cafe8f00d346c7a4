//! The schemas of a request, made ready for the library: checked where they are strict, `$id` away (the library
//! would resolve references against it), objects closed that leave it open whether they have other properties than
//! the declared ones, and keys sorted where the model reads them sorted.

use serde_json::{Map, Value, json};

use super::{ContentForm, GrammarError, MAX_SCHEMA_BYTES, Wanted};
use crate::json::Json;
use crate::message::Tool;
use crate::mfjs;

/// Keywords whose values are maps from names to schemas.
const MAPS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose values are data, not schemas.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];

/// Keywords by which several schemas speak of one object, so that none of them alone may close it.
const COMBINE: [&str; 9] = [
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
];

/// Keywords that combine with properties beside them.
const COMBINE_BESIDE: [&str; 3] = ["anyOf", "oneOf", "$ref"];

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
            check(strict, schema, &param, &name)?;
            ready(as_object(schema.to_value()), sorted)
        }
        Some(_) => {
            return Err(GrammarError::Schema { param, name, reason: "a schema must be an object".into() });
        }
    };
    Ok(Schema { param, name, strict, value })
}

fn of_content(schema: &Json, strict: bool) -> Result<Schema, GrammarError> {
    let param = "response_format.json_schema.schema".to_owned();
    check(strict, schema, &param, &None)?;
    Ok(Schema { param, name: None, strict, value: ready(schema.to_value(), false) })
}

fn check(strict: bool, schema: &Json, param: &str, name: &Option<String>) -> Result<(), GrammarError> {
    match strict.then(|| mfjs::validate(schema)) {
        Some(Err(violation)) => {
            Err(GrammarError::NotMfjs { param: param.to_owned(), name: name.clone(), violation })
        }
        _ => Ok(()),
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

/// A schema without `$id` and without instructions to the library, its keys sorted if need be.
fn ready(mut schema: Value, sorted: bool) -> Value {
    each_schema(&mut schema, false, &mut |members| {
        members.retain(|key, _| key != "$id" && key != "x-guidance");
    });
    close_objects(&mut schema);
    if sorted { deep_sorted(schema) } else { schema }
}

/// Where a schema declares properties and does not say whether there are others, there are none: the tool would not
/// know them, and a model that makes names up does not end. JSON Schema's own default is that there may be; what is
/// generated is valid under it all the same.
fn close_objects(schema: &mut Value) {
    let mut combines = false;
    each_schema(schema, false, &mut |members| {
        let has = |key: &&str| members.contains_key(*key);
        combines |= COMBINE.iter().any(|key| has(&key))
            || has(&"properties") && COMBINE_BESIDE.iter().any(|key| has(&key));
    });
    if !combines {
        each_schema(schema, false, &mut close_object);
    }
}

fn close_object(members: &mut Map<String, Value>) {
    let Some(properties) = members.get("properties").and_then(Value::as_object) else { return };
    let says = ["additionalProperties", "enum", "const"].iter().any(|key| members.contains_key(*key));
    let required = members.get("required").and_then(Value::as_array);
    let declares = |name: &Value| name.as_str().is_some_and(|name| properties.contains_key(name));
    let enough = members.get("minProperties").and_then(Value::as_u64).unwrap_or(0) <= properties.len() as u64;
    if !says && enough && required.is_none_or(|names| names.iter().all(declares)) {
        members.insert("additionalProperties".to_owned(), false.into());
    }
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
            close_objects(&mut value);
            assert_eq!(value, expected);
        };
        let closed = |members: Value| json!({ "properties": members, "additionalProperties": false });
        let open = |members: Value| json!({ "properties": members });
        check(open(json!({})), closed(json!({})));
        check(
            open(json!({ "a": open(json!({ "b": {} })) })),
            closed(json!({ "a": closed(json!({ "b": {} })) })),
        );
        check(json!({ "anyOf": [open(json!({})), true] }), json!({ "anyOf": [closed(json!({})), true] }));
        check(json!({ "$defs": { "a": open(json!({})) } }), json!({ "$defs": { "a": closed(json!({})) } }));
        let stays = |value: Value| check(value.clone(), value);
        stays(json!({ "type": "object" }));
        stays(json!({ "properties": {}, "additionalProperties": true }));
        stays(json!({ "properties": {}, "additionalProperties": { "type": "string" } }));
        // What is required and not declared, or more than is declared, has to come from somewhere.
        stays(json!({ "properties": { "a": {} }, "required": ["a", "b"] }));
        stays(json!({ "properties": { "a": {} }, "minProperties": 2 }));
        stays(json!({ "properties": { "a": {} }, "const": { "a": 1, "b": 2 } }));
        // Two schemas of one object.
        stays(json!({ "allOf": [open(json!({ "a": {} })), open(json!({ "b": {} }))] }));
        stays(json!({ "properties": { "a": {} }, "anyOf": [open(json!({ "b": {} })), true] }));
        stays(json!({ "properties": { "a": {} }, "$ref": "#/$defs/a", "$defs": { "a": open(json!({})) } }));
        // A property of such a name is none of them.
        check(open(json!({ "allOf": {}, "not": {} })), closed(json!({ "allOf": {}, "not": {} })));
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
