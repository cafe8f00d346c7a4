//! Python's `json.dumps(value, ensure_ascii=False)`, byte for byte.
//!
//! Kimi's chat templates print tools and arguments through it, so the model has read its habits:
//! floats as `repr` writes them, blanks after separators or none. Strings are escaped as
//! serde_json does it (`"`, `\`, short forms, `\u00xx` for other control characters), which is the
//! same rule.

use crate::json::Json;

/// Where blanks stand and whether keys are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `", "` and `": "`, keys as they come: the defaults.
    Default,
    /// `","` and `":"`, keys of every object sorted by code point: what Kimi's
    /// `apply_chat_template` does to tools (`deep_sort_dict`, `separators=(',', ':')`).
    CompactSorted,
}

/// Writes `value` in `style`.
pub fn dumps(value: &Json, style: Style) -> String {
    let mut out = String::new();
    write(value, style, &mut out);
    out
}

fn write(value: &Json, style: Style, out: &mut String) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(literal) => out.push_str(&number(literal)),
        Json::String(text) => write_string(text, out),
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                write_comma(i, style, out);
                write(item, style, out);
            }
            out.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if style == Style::CompactSorted {
                members.sort_unstable_by_key(|(key, _)| *key); // UTF-8 sorts by code point
            }
            out.push('{');
            for (i, (key, value)) in members.into_iter().enumerate() {
                write_comma(i, style, out);
                write_string(key, out);
                out.push_str(if style == Style::Default { ": " } else { ":" });
                write(value, style, out);
            }
            out.push('}');
        }
    }
}

fn write_comma(i: usize, style: Style, out: &mut String) {
    if i > 0 {
        out.push_str(if style == Style::Default { ", " } else { "," });
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// What Python prints after reading the number literal: whole numbers of any size as they are,
/// all others as the nearest double.
fn number(literal: &str) -> String {
    match literal {
        "-0" => "0".to_owned(),
        _ if literal.contains(['.', 'e', 'E']) => {
            literal.parse().map_or_else(|_| literal.to_owned(), float_repr)
        }
        _ => literal.to_owned(),
    }
}

/// Python's `repr` of a float: the shortest digits that read back the same, in positional notation
/// for decimal exponents from -4 to 15.
pub fn float_repr(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(); // json.dumps's names
    }
    let scientific = format!("{value:e}"); // shortest digits: "-1.25e-7"
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let positional = format!("{value}"); // Rust never uses an exponent here
    if positional.contains('.') { positional } else { positional + ".0" }
}
