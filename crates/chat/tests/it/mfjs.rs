//! Moonshot's JSON schema: its validator's published cases, and a table of our own with the messages.

use k2_chat::{Json, mfjs};

use crate::fixtures::walle;

#[test]
fn every_published_case() {
    let mut wrong = Vec::new();
    for case in walle() {
        let Ok(schema) = Json::parse(&case.schema) else {
            assert!(!case.valid, "{}", case.schema);
            continue; // some of the invalid ones are no JSON
        };
        match (mfjs::validate(&schema), case.valid) {
            (Ok(()), true) => {}
            (Ok(()), false) => wrong.push(format!("accepted, expected {:?}: {}", case.expect, case.schema)),
            (Err(violation), true) => wrong.push(format!("refused {violation}: {}", case.schema)),
            (Err(violation), false) => assert!(!violation.rule.is_empty()),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `expected` is the message, or empty for a schema of the subset.
fn check(schema: &str, expected: &str) {
    let found = mfjs::validate(&Json::parse(schema).unwrap());
    assert_eq!(found.err().map(|violation| violation.to_string()).unwrap_or_default(), expected, "{schema}");
}

#[test]
fn rules_and_their_messages() {
    check("{}", "");
    check(r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"required":["a"]}"#, "");
    check(r#"{"type":"object","additionalProperties":{}}"#, "");
    check(r#"{"type":["string","null"],"enum":["a",null]}"#, "");
    check(r##"{"type":"object","properties":{"next":{"$ref":"#"}}}"##, "");
    check("[]", "at its root: the schema must be an object");
    check(r#"{"description":"x"}"#, "");
    check(r#"{"minLength":1}"#, "at its root: it needs `type`, `anyOf` or `$ref`");
    let property = |schema: &str| format!(r#"{{"type":"object","properties":{{"a":{schema}}}}}"#);
    let at_a = |schema: &str, rule: &str| check(&property(schema), &format!("at /properties/a: {rule}"));
    check(&property("{}"), "");
    at_a(r#"{"enum":[1]}"#, "it needs `type`, `anyOf` or `$ref`");
    at_a("true", "a subschema must be an object");
    at_a(r#"{"type":"string","format":"date"}"#, "`format` is not a supported keyword");
    at_a(r#"{"type":"string","$id":"x"}"#, "`$id` must be at root level");
    at_a(r#"{"type":"string","title":1}"#, "`title` must be a string");
    at_a(
        r#"{"type":"text"}"#,
        "\"text\" is no type; types are object, array, string, number, integer, boolean, null",
    );
    at_a(r#"{"type":[]}"#, "the array `type` cannot be empty");
    at_a(r#"{"type":1}"#, "`type` must be a string or an array of strings");
    at_a(r#"{"type":"string","minimum":1}"#, "`minimum` is no keyword of type \"string\"");
    at_a(
        r#"{"type":["string","integer"],"minimum":1}"#,
        "`minimum` is not allowed in combination with multiple types; use `anyOf`",
    );
    at_a(
        r#"{"type":["string","object"],"enum":["a"]}"#,
        "`enum` is not allowed in combination with these types; it goes with one simple type, or with that and \"null\"",
    );
    at_a(r#"{"type":"string","enum":[]}"#, "`enum` has 0 values; it must have 1 to 1000");
    at_a(r#"{"type":"string","enum":{}}"#, "`enum` must be an array");
    at_a(
        r#"{"type":"integer","enum":[1.5]}"#,
        "the `enum` value 1.5 does not match any type of [\"integer\"]",
    );
    at_a(r#"{"type":"string","minLength":-1}"#, "`minLength` must be an integer that is non-negative");
    at_a(
        r#"{"type":"string","minLength":2,"maxLength":1}"#,
        "`minLength` is 2, which is greater than `maxLength`, 1",
    );
    at_a(r#"{"type":"array","minItems":"1"}"#, "`minItems` must be an integer that is non-negative");
    at_a(r#"{"type":"array","items":[]}"#, "`items` must be a schema");
    at_a(r#"{"type":"integer","minimum":1.5}"#, "`minimum` must be an integer");
    at_a(r#"{"type":"number","maximum":"1"}"#, "`maximum` must be a number of double precision");
    at_a(
        r#"{"type":"number","enum":[1e999]}"#,
        "the `enum` value 1e999 does not match any type of [\"number\"]",
    );
    at_a(r#"{"type":"string","pattern":1}"#, "`pattern` must be a string");
    at_a(r#"{"type":"object","required":"a"}"#, "`required` must be an array");
    at_a(r#"{"type":"object","required":["b"]}"#, "\"b\" is required, but `properties` is missing");
    at_a(
        r#"{"type":"object","properties":{},"required":["b"]}"#,
        "\"b\" is required, but not defined in `properties`",
    );
    at_a(
        r#"{"type":"object","additionalProperties":1}"#,
        "`additionalProperties` must be a boolean or a schema",
    );
    at_a(
        r#"{"type":"string","anyOf":[]}"#,
        "`type` is not allowed beside `anyOf`; it belongs into what that stands for",
    );
    at_a(r#"{"anyOf":[]}"#, "`anyOf` has 0 branches; it must have 1 to 500");
    at_a(r#"{"$ref":"x"}"#, "`$ref` is \"x\"; references must start with #/$defs/, or be #");
    at_a(r##"{"$ref":"#/$defs/b"}"##, "`$defs` has no \"b\", which \"#/$defs/b\" refers to");
    check(
        r#"{"type":"object","properties":{"anyOf":{"type":"string"}}}"#,
        "at /properties: the name `anyOf` is reserved for JSON schema itself",
    );
    check(
        r#"{"type":"object","properties":{"":{"type":"string"}}}"#,
        "at /properties: a name cannot be empty",
    );
    check(
        r#"{"type":"object","$defs":{"a/b":{"type":"string"}}}"#,
        "at /$defs: the name \"a/b\" has a `/`, which names inside `$defs` cannot have",
    );
    check(
        r##"{"type":"object","$defs":{"a":{"anyOf":[{"type":"string"}]}},"properties":{"a":{"$ref":"#/$defs/a/anyOf"}}}"##,
        "at /properties/a: \"#/$defs/a/anyOf\" is an invalid $ref path: it leads to no subschema",
    );
    let endless =
        "at its root: infinite recursion: what is required contains itself, so nothing finite is valid";
    check(r##"{"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]}"##, endless);
    check(
        r##"{"type":"object","properties":{"a":{"type":"string"},"next":{"$ref":"#"}},"required":["a","next"]}"##,
        endless,
    );
    check(
        r##"{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["next"]}"##,
        "",
    );
    let deep = (0..6).fold(r#"{"type":"string"}"#.to_owned(), |inner, _| property(&inner));
    check(
        &deep,
        "at its root: the schema depth exceeds the limit: properties are nested 6 deep, references followed; at most 5 are allowed",
    );
    let chain: Vec<String> =
        (0..502).map(|n| format!(r##""d{n}":{{"$ref":"#/$defs/d{}"}}"##, n + 1)).collect();
    check(
        &format!(r##"{{"type":"object","$defs":{{{},"d502":{{"type":"null"}}}}}}"##, chain.join(",")),
        "at its root: the schema has 502 different references; at most 500 are allowed",
    );
    let wide: Vec<String> = (0..3001).map(|name| format!(r#""{name}":{{"type":"null"}}"#)).collect();
    check(
        &format!(r#"{{"type":"object","properties":{{{}}}}}"#, wide.join(",")),
        "at /properties: there are 3001 properties up to here; at most 3000 are allowed",
    );
    let long = format!(r#"{{"type":"string","description":"{}"}}"#, "x".repeat(120_000));
    check(&long, "at its root: the schema has 120034 bytes; at most 120000 are allowed");
}

/// A schema whose references branch twice at each of 60 steps takes no longer than its length.
#[test]
fn references_do_not_multiply() {
    let definition = |n: usize| {
        let next = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, n + 1);
        format!(r#""d{n}":{{"anyOf":[{next},{next}]}}"#)
    };
    let mut definitions: Vec<String> = (0..60).map(definition).collect();
    definitions.push(r#""d60":{"type":"string"}"#.to_owned());
    check(&format!(r##"{{"$defs":{{{}}},"anyOf":[{{"$ref":"#/$defs/d0"}}]}}"##, definitions.join(",")), "");
}
