//! JSON with numbers as written, and Python's way of printing it.

use k2_chat::{
    Json,
    python_json::{Style, dumps, float_repr},
};

fn check(text: &str, default: &str, compact_sorted: &str) {
    let json: Json = serde_json::from_str(text).unwrap();
    assert_eq!(dumps(&json, Style::Default), default);
    assert_eq!(dumps(&json, Style::CompactSorted), compact_sorted);
    assert_eq!(Json::parse(text).unwrap(), json);
    assert_eq!(serde_json::from_str::<Json>(&serde_json::to_string(&json).unwrap()).unwrap(), json);
}

#[test]
fn structure() {
    check("null", "null", "null");
    check(" [ ] ", "[]", "[]");
    check("{ }", "{}", "{}");
    check("[1,[true , false],{}]", "[1, [true, false], {}]", "[1,[true,false],{}]");
    check(
        r#"{"b":{"d":1,"c":2},"a":[]}"#,
        r#"{"b": {"d": 1, "c": 2}, "a": []}"#,
        r#"{"a":[],"b":{"c":2,"d":1}}"#,
    );
    // The last of equal keys stands in the first place, as in a Python dict.
    check(r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#, r#"{"a":3,"b":2}"#);
}

#[test]
fn keys_are_sorted_by_code_point() {
    // U+FF5E sorts before U+1F600 here, after it in UTF-16.
    let text = "{\"😀\":1,\"～\":2,\"é\":3,\"Z\":4,\"a\":5,\"\":6}";
    check(
        text,
        "{\"😀\": 1, \"～\": 2, \"é\": 3, \"Z\": 4, \"a\": 5, \"\": 6}",
        "{\"\":6,\"Z\":4,\"a\":5,\"é\":3,\"～\":2,\"😀\":1}",
    );
}

#[test]
fn strings() {
    let raw = "\"\\u5317\\ud83d\\ude00 \\/ \\u007f\\u2028 <>&'\"";
    check(raw, "\"北😀 / \u{7f}\u{2028} <>&'\"", "\"北😀 / \u{7f}\u{2028} <>&'\"");
    let control = r#""\"\\\b\f\n\r\t\u0000\u001f""#;
    check(control, control, control);
    check(r#"{"\"\\":"}"}"#, r#"{"\"\\": "}"}"#, r#"{"\"\\":"}"}"#);
}

#[test]
fn numbers() {
    let cases = [
        ("0", "0"),
        ("-0", "0"),
        ("-17", "-17"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("-18446744073709551617", "-18446744073709551617"),
        ("1.0", "1.0"),
        ("-0.0", "-0.0"),
        ("1e5", "100000.0"),
        ("1E+5", "100000.0"),
        ("2.50", "2.5"),
        ("0.1", "0.1"),
        ("3.14159265358979323846", "3.141592653589793"),
        ("1e15", "1000000000000000.0"),
        ("1e16", "1e+16"),
        ("12345678901234567.0", "1.2345678901234568e+16"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("1.5e-7", "1.5e-07"),
        ("1e100", "1e+100"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("1e400", "Infinity"),
        ("-1e400", "-Infinity"),
    ];
    for (written, printed) in cases {
        check(written, printed, printed);
    }
    assert_eq!(float_repr(f64::from_bits(0x3ff3c083126e978d)), "1.2345");
}

#[test]
fn values_of_serde_json_go_both_ways() {
    let value: serde_json::Value = serde_json::from_str(r#"{"a":[1,2.5,"x",null,true],"b":{}}"#).unwrap();
    assert_eq!(Json::from(value.clone()).to_value(), value);
    assert_eq!(serde_json::from_value::<Json>(value.clone()).unwrap(), Json::from(value));
}

#[test]
fn what_is_refused() {
    let error = |text: &str| Json::parse(text).unwrap_err().to_string();
    assert!(error("{\"a\":}").starts_with("expected value"));
    assert!(error("[1] 2").starts_with("trailing characters"));
    assert!(error("\"\\ud800\"").contains("hex escape"));
    assert!(error("{\"\\udc00\": 1}").contains("surrogate"));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::parse(&nested(127)).is_ok());
    assert_eq!(error(&nested(129)), "JSON nested deeper than 128 levels");
    assert_eq!(error(&nested(100_000)), "JSON nested deeper than 128 levels");
}
