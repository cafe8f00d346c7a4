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
    /// The schema.
    pub value: Value,
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
        Some(schema @ Json::Object(members)) => {
            check(strict, schema, &param, &name)?;
            match members.is_empty() {
                true => json!({ "type": "object" }),
                false => ready(schema.to_value(), sorted),
            }
        }
        Some(_) => {
            return Err(GrammarError::Schema { param, name, reason: "a schema must be an object".into() });
        }
    };
    Ok(Schema { param, name, value })
}

fn of_content(schema: &Json, strict: bool) -> Result<Schema, GrammarError> {
    let param = "response_format.json_schema.schema".to_owned();
    check(strict, schema, &param, &None)?;
    Ok(Schema { param, name: None, value: ready(schema.to_value(), false) })
}

fn check(strict: bool, schema: &Json, param: &str, name: &Option<String>) -> Result<(), GrammarError> {
    match strict.then(|| mfjs::validate(schema)) {
        Some(Err(violation)) => {
            Err(GrammarError::NotMfjs { param: param.to_owned(), name: name.clone(), violation })
        }
        _ => Ok(()),
    }
}

/// A schema without `$id` and without instructions to the library, its keys sorted if need be.
fn ready(schema: Value, sorted: bool) -> Value {
    let mut schema = without_ids(schema, false);
    if sorted {
        schema = deep_sorted(schema);
    }
    schema
}

fn without_ids(value: Value, map: bool) -> Value {
    match value {
        Value::Object(members) => {
            let dropped = |key: &str| !map && (key == "$id" || key == "x-guidance");
            let members = members.into_iter().filter(|(key, _)| !dropped(key)).map(|(key, value)| {
                let value = match DATA.contains(&key.as_str()) && !map {
                    true => value,
                    false => without_ids(value, !map && MAPS.contains(&key.as_str())),
                };
                (key, value)
            });
            Value::Object(members.collect())
        }
        Value::Array(items) => items.into_iter().map(|item| without_ids(item, false)).collect(),
        other => other,
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
