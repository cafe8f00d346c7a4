//! `response_format`: text, any JSON object, or JSON of a schema.

use k2_chat::Json;
use serde_json::json;

use crate::body::Body;
use crate::error::ApiError;

/// The form of an answer's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ResponseFormat {
    Text,
    /// JSON. `strict`: the schema has to be of Moonshot's subset; without, it has been dropped for any object.
    Json {
        schema: Json,
        strict: bool,
    },
}

impl ResponseFormat {
    /// Reads it. As on Moonshot's platform `strict` is the default, and without it only JSON is promised.
    pub(super) fn take(body: &mut Body, schema_bytes: usize) -> Result<ResponseFormat, ApiError> {
        let Some(format) = body.optional::<Json>("response_format")? else { return Ok(ResponseFormat::Text) };
        match format.get("type").and_then(Json::as_str) {
            Some("text") => Ok(ResponseFormat::Text),
            Some("json_object") => Ok(any_object()),
            Some("json_schema") => of_schema(&format, schema_bytes),
            _ => Err(wrong("type", "must be text, json_object or json_schema")),
        }
    }
}

fn of_schema(format: &Json, schema_bytes: usize) -> Result<ResponseFormat, ApiError> {
    let Some(inner @ Json::Object(_)) = format.get("json_schema") else {
        return Err(wrong("json_schema", "is missing or no object; it holds `name` and `schema`"));
    };
    if inner.get("name").and_then(Json::as_str).is_none_or(str::is_empty) {
        return Err(wrong("json_schema.name", "is missing or no string"));
    }
    let strict = match inner.get("strict") {
        None | Some(Json::Null) => true,
        Some(Json::Bool(strict)) => *strict,
        Some(_) => return Err(wrong("json_schema.strict", "must be true or false")),
    };
    let Some(schema @ Json::Object(_)) = inner.get("schema") else {
        return Err(wrong("json_schema.schema", "is missing or no object"));
    };
    let bytes = schema.to_value().to_string().len();
    match strict {
        _ if bytes > schema_bytes => Err(wrong(
            "json_schema.schema",
            &format!("has {bytes} bytes; at most {schema_bytes} are accepted"),
        )),
        true => Ok(ResponseFormat::Json { schema: schema.clone(), strict }),
        false => Ok(any_object()),
    }
}

fn any_object() -> ResponseFormat {
    ResponseFormat::Json { schema: json!({ "type": "object" }).into(), strict: false }
}

fn wrong(field: &str, what: &str) -> ApiError {
    let param = format!("response_format.{field}");
    ApiError::field(&param, format!("`{param}` {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn take(format: Value) -> Result<ResponseFormat, String> {
        let mut body = Body::parse(json!({ "response_format": format }).to_string().as_bytes()).unwrap();
        ResponseFormat::take(&mut body, 100)
            .map_err(|error| error.json()["error"]["message"].as_str().unwrap().into())
    }

    #[test]
    fn forms_and_refusals() {
        let schema =
            json!({ "type": "object", "properties": { "b": { "type": "null" }, "a": { "type": "null" } } });
        let of =
            |strict: bool, schema: &Value| ResponseFormat::Json { schema: schema.clone().into(), strict };
        let check = |format: Value, expected: Result<ResponseFormat, &str>| {
            assert_eq!(take(format.clone()), expected.map_err(str::to_owned), "{format}");
        };
        let with = |inner: Value| json!({ "type": "json_schema", "json_schema": inner });
        let any = json!({ "type": "object" });
        check(json!(null), Ok(ResponseFormat::Text));
        check(json!({ "type": "text" }), Ok(ResponseFormat::Text));
        check(json!({ "type": "json_object" }), Ok(of(false, &any)));
        check(with(json!({ "name": "x", "schema": schema })), Ok(of(true, &schema)));
        check(with(json!({ "name": "x", "schema": schema, "strict": true })), Ok(of(true, &schema)));
        check(with(json!({ "name": "x", "schema": schema, "strict": false })), Ok(of(false, &any)));
        let kind = "`response_format.type` must be text, json_object or json_schema";
        check(json!({ "type": "bogus" }), Err(kind));
        check(json!({}), Err(kind));
        let inner = "`response_format.json_schema` is missing or no object; it holds `name` and `schema`";
        check(json!({ "type": "json_schema" }), Err(inner));
        check(with(json!([])), Err(inner));
        check(
            with(json!({ "schema": schema })),
            Err("`response_format.json_schema.name` is missing or no string"),
        );
        check(
            with(json!({ "name": "x" })),
            Err("`response_format.json_schema.schema` is missing or no object"),
        );
        check(
            with(json!({ "name": "x", "schema": "x" })),
            Err("`response_format.json_schema.schema` is missing or no object"),
        );
        check(
            with(json!({ "name": "x", "schema": schema, "strict": "yes" })),
            Err("`response_format.json_schema.strict` must be true or false"),
        );
        let long = json!({ "type": "object", "description": "x".repeat(100) });
        check(
            with(json!({ "name": "x", "schema": long })),
            Err("`response_format.json_schema.schema` has 134 bytes; at most 100 are accepted"),
        );
    }
}
