//! Schemas of Moonshot's subset (MFJS), wrapped as a tool's parameters the way Moonshot's own verifier does it.
//!
//! The schemas are the valid cases of MoonshotAI/walle (`data/walle`, MIT). A case of any type becomes the property
//! `value` of an object, since parameters are an object; a case that refers to its own root moves into `$defs`.
//! `default` is taken out and cases are passed over as in MoonshotAI/Kimi-Vendor-Verifier
//! (`tests/tool_call_json_schema`), so that a count here is a count there.

use serde_json::{Map, Value, json};

const VALID: &str = include_str!("../data/walle/valid.tsv");

/// A schema as parameters of a tool.
#[derive(Clone, Debug)]
pub struct Case {
    /// The suite and the number of the schema in it, from 1.
    pub name: String,
    /// The parameters, or why the case is passed over.
    pub parameters: Result<Value, &'static str>,
}

/// All of them, in the order of the file.
pub fn cases() -> Vec<Case> {
    let (mut suite, mut number) = ("", 0);
    let cases = VALID.lines().filter_map(|line| line.split_once('\t')).map(|(of, schema)| {
        number = if of == suite { number + 1 } else { 1 };
        suite = of;
        Case { name: format!("{suite}:{number}"), parameters: parameters(schema) }
    });
    cases.collect()
}

fn parameters(text: &str) -> Result<Value, &'static str> {
    let schema: Value =
        serde_json::from_str(text).map_err(|_| "it has a number that JSON libraries do not carry")?;
    if schema["type"] == "string" && schema["minLength"].as_f64().is_some_and(|length| length > 1000.0) {
        return Err("no answer is that long");
    }
    let names = schema["properties"].as_object().into_iter().flatten();
    if names.into_iter().any(|(name, _)| is_exotic(name)) {
        return Err("its property names are beyond Moonshot's own decoder");
    }
    if never_ends(&schema) {
        return Err("a value that enters its recursion cannot end");
    }
    Ok(without_default(wrapped(schema)))
}

/// Whether a definition requires a property that is the definition itself.
fn never_ends(schema: &Value) -> bool {
    let definitions = schema["$defs"].as_object().into_iter().flatten();
    definitions.into_iter().any(|(name, definition)| {
        let itself = json!({ "$ref": format!("#/$defs/{name}") });
        let required = definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        required.into_iter().any(|property| definition["properties"][property] == itself)
    })
}

/// Names that Moonshot's decoder is known to change: blanks around them, or escapes spelled out.
fn is_exotic(name: &str) -> bool {
    let escapes = ["\\n", "\\t", "\\r", "\\b", "\\f"];
    name.is_empty() || name != name.trim() || escapes.iter().any(|escape| name.contains(escape))
}

fn wrapped(mut schema: Value) -> Value {
    let mut parameters = Map::new();
    for (key, value) in [
        ("type", json!("object")),
        ("required", json!(["value"])),
        ("additionalProperties", json!(false)),
        ("properties", json!({})),
    ] {
        parameters.insert(key.to_owned(), value);
    }
    let mut take = |key: &str| schema.as_object_mut().and_then(|schema| schema.shift_remove(key));
    let (id, definitions) = (take("$id"), take("$defs"));
    if refers_to_root(&schema) || definitions.as_ref().is_some_and(refers_to_root) {
        let mut definitions = definitions.unwrap_or_else(|| json!({}));
        let mut name = "__case_schema".to_owned();
        while definitions.get(&name).is_some() {
            name.insert(0, '_');
        }
        let target = format!("#/$defs/{name}");
        redirect(&mut schema, &target);
        redirect(&mut definitions, &target);
        definitions[&name] = schema;
        parameters["properties"] = json!({ "value": { "$ref": target } });
        parameters.insert("$defs".into(), definitions);
    } else {
        parameters["properties"] = json!({ "value": schema });
        parameters.extend(definitions.map(|definitions| ("$defs".to_owned(), definitions)));
    }
    parameters.extend(id.map(|id| ("$id".to_owned(), id)));
    Value::Object(parameters)
}

fn refers_to_root(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => {
            object.get("$ref").is_some_and(|to| to == "#") || object.values().any(refers_to_root)
        }
        Value::Array(list) => list.iter().any(refers_to_root),
        _ => false,
    }
}

fn redirect(schema: &mut Value, target: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match key == "$ref" && value == "#" {
                    true => *value = json!(target),
                    false => redirect(value, target),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| redirect(item, target)),
        _ => {}
    }
}

fn without_default(schema: Value) -> Value {
    match schema {
        Value::Object(object) => {
            let kept = object.into_iter().filter(|(key, _)| key != "default");
            Value::Object(kept.map(|(key, value)| (key, without_default(value))).collect())
        }
        Value::Array(list) => list.into_iter().map(without_default).collect(),
        other => other,
    }
}
