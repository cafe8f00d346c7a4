//! The schemas as tools.

use k2_eval::{schema, walle};
use serde_json::Value;

use crate::smallest::smallest;

/// The selection of MoonshotAI/Kimi-Vendor-Verifier on the same cases: 205 are used, eight are not.
#[test]
fn the_selection_is_that_of_moonshots_verifier() {
    let cases = walle::cases();
    assert_eq!(cases.len(), 213);
    let passed_over: Vec<_> =
        cases.iter().filter(|case| case.parameters.is_err()).map(|case| case.name.as_str()).collect();
    let numbers = [3, 4, 24, 25, 27, 28].map(|number| format!("TestEnforcerCases:{number}"));
    let expected = numbers.iter().map(String::as_str).chain(["TestRangeConstraints:3", "TestReferences:7"]);
    assert_eq!(passed_over, expected.collect::<Vec<_>>());
}

#[test]
fn every_schema_has_a_value_and_refuses_another() {
    for case in walle::cases() {
        let Ok(parameters) = case.parameters else { continue };
        assert_eq!(
            schema::check(&parameters, &smallest(&parameters, &parameters).to_string()),
            Ok(()),
            "{}",
            case.name
        );
        assert!(schema::check(&parameters, "{}").is_err(), "{}: `value` is required", case.name);
        assert!(!parameters.to_string().contains("\"default\""), "{}", case.name);
    }
}

#[test]
fn cases_are_wrapped() {
    let check = |name: &str, expected: &str| {
        let case = walle::cases().into_iter().find(|case| case.name == name).unwrap();
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(case.parameters.unwrap(), expected, "{name}");
    };
    check(
        "TestAdditionalProperties:3",
        r#"{"type": "object", "required": ["value"], "additionalProperties": false,
            "properties": {"value": {"additionalProperties": {"type": "string"}, "type": "object"}}}"#,
    );
    // Definitions and `$id` belong to the root, and move there.
    check(
        "TestAnyOf:4",
        r##"{"type": "object", "required": ["value"], "additionalProperties": false,
            "properties": {"value": {"anyOf": [{"$ref": "#/$defs/StringType"}, {"$ref": "#/$defs/NumberType"}],
                                     "title": "anyOf with refs"}},
            "$defs": {"NumberType": {"type": "number"}, "StringType": {"type": "string"}}, "$id": "anyOf with refs"}"##,
    );
    // What was the root becomes a definition.
    let recursive = walle::cases().into_iter().find(|case| case.name == "TestNestedDefsDepth:3").unwrap();
    let recursive = recursive.parameters.unwrap();
    assert_eq!(recursive["properties"]["value"]["$ref"], "#/$defs/__case_schema");
    assert!(recursive["$defs"]["__case_schema"].is_object() && !recursive.to_string().contains(r##""#""##));
}
