//! The schemas of a request, made ready for the library: checked where they are strict, `$id` away (the library
//! would resolve references against it), and keys sorted where the model reads them sorted.

use serde_json::{Map, Value, json};

use super::{ContentForm, GrammarError, MAX_SCHEMA_BYTES, Wanted};
use crate::json::Json;
use crate::message::Tool;
use crate::mfjs;

/// Keywords whose values are maps from names to schemas.
const MAPS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose values are data, not schemas.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];

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
        each_schema(&mut self.value, false, &|members| {
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
    each_schema(&mut schema, false, &|members| members.retain(|key, _| key != "$id" && key != "x-guidance"));
    if sorted { deep_sorted(schema) } else { schema }
}

/// Changes a schema and all within it. `map`: the value is no schema, but maps names to schemas.
fn each_schema(value: &mut Value, map: bool, change: &dyn Fn(&mut Map<String, Value>)) {
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
