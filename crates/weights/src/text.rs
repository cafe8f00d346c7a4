//! Text of files as it appears in names and messages: short, and nothing that a terminal would obey.

use serde_json::Value;

/// Longest name of a tensor or a key accepted; official ones have some 80 bytes.
pub(crate) const NAME_LIMIT: usize = 512;

/// Whether a text can be a name: not empty, not long, no control characters.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_LIMIT && !text.contains(char::is_control)
}

/// The beginning of a text, control characters escaped.
pub(crate) fn cut(text: &str) -> String {
    const LONGEST: usize = 100;
    let escape = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    let mut shown: String = text.chars().take(LONGEST).map(escape).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// A JSON value as shown in a message.
pub(crate) fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

/// Why JSON was not accepted. The parser quotes what it found, however long.
pub(crate) fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(reason) => cut(reason) + &place,
        None => cut(&text),
    }
}
