//! A file of options: `k2.toml`.
//!
//! A key is an option's name without its dashes, a value is what the option takes: text or a number, `true` for an
//! option that takes nothing, a list for one that may be given several times. So the options themselves are the one
//! table of what a file may say.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is there or not.
    Nothing,
    /// One value.
    Value,
    /// One value each time it is given.
    List,
}

/// An option of the file: its name, and its values as a command line would have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOption {
    /// Without dashes at its head.
    pub name: String,
    /// Empty for an option that takes nothing and is switched on.
    pub values: Vec<String>,
}

/// What is wrong with a file of options.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than any such file.
    #[error("{}: {bytes} bytes; at most {MAX_FILE_BYTES} are accepted", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no TOML.
    #[error("not valid TOML: {0}")]
    Toml(#[from] toml::de::Error),
    /// No option has this name.
    #[error("there is no option `{key}`; {instead}")]
    Unknown {
        /// The key.
        key: String,
        /// What may have been meant.
        instead: String,
    },
    /// The value is of another kind.
    #[error("`{key}` is {found}, expected {expected}")]
    Kind {
        /// The key.
        key: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Something is wrong inside a file.
    #[error("{}: {source}", path.display())]
    Inside {
        /// The file.
        path: PathBuf,
        /// What.
        source: Box<ConfigError>,
    },
}

/// Reads a file; `known` are the options that it may have.
pub fn open_config(path: &Path, known: &[(&str, Takes)]) -> Result<Vec<ConfigOption>, ConfigError> {
    let wrong = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(wrong)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::FileSize { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    parse_config(&text, known)
        .map_err(|source| ConfigError::Inside { path: path.to_owned(), source: Box::new(source) })
}

/// Reads a file's text.
pub fn parse_config(text: &str, known: &[(&str, Takes)]) -> Result<Vec<ConfigOption>, ConfigError> {
    let table: Table = toml::from_str(text)?;
    let mut options = Vec::new();
    for (key, value) in table {
        let Some((_, takes)) = known.iter().find(|(name, _)| *name == key) else {
            return Err(ConfigError::Unknown { instead: instead(&key, known), key });
        };
        if let Some(values) = values(&key, value, *takes)? {
            options.push(ConfigOption { name: key, values });
        }
    }
    Ok(options)
}

/// None: the option is switched off.
fn values(key: &str, value: Value, takes: Takes) -> Result<Option<Vec<String>>, ConfigError> {
    let wrong =
        |found: &Value, expected| ConfigError::Kind { key: key.to_owned(), found: kind(found), expected };
    let one = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        other => Err(wrong(&other, "text or a number")),
    };
    match (takes, value) {
        (Takes::Nothing, Value::Boolean(on)) => Ok(on.then(Vec::new)),
        (Takes::Nothing, other) => Err(wrong(&other, "true or false")),
        (Takes::Value, value) => Ok(Some(vec![one(value)?])),
        (Takes::List, Value::Array(values)) => {
            let values = values.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
            Ok((!values.is_empty()).then_some(values))
        }
        (Takes::List, other) => Err(wrong(&other, "a list")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The option that a wrong key is nearest to, or all of them.
fn instead(key: &str, known: &[(&str, Takes)]) -> String {
    let key = key.to_lowercase().replace('_', "-");
    let likeness = |name: &str| strsim::jaro_winkler(&key, name);
    let nearest = known.iter().map(|(name, _)| *name).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) > 0.8) {
        Some(name) => format!("perhaps `{name}`"),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            format!("there are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, Takes); 4] = [
        ("port", Takes::Value),
        ("max-body", Takes::Value),
        ("insecure", Takes::Nothing),
        ("allowed-host", Takes::List),
    ];

    #[test]
    fn options() {
        let check = |text: &str, expected: &[(&str, &[&str])]| {
            let found = parse_config(text, &KNOWN).unwrap();
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, values)| ConfigOption {
                    name: (*name).to_owned(),
                    values: values.iter().map(|value| (*value).to_owned()).collect(),
                })
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        check("", &[]);
        check("port = 80", &[("port", &["80"])]);
        check("port = \"80\"", &[("port", &["80"])]);
        check("insecure = true", &[("insecure", &[])]);
        check("insecure = false", &[]);
        check("allowed-host = []", &[]);
        check("allowed-host = [\"a\", \"b\"]", &[("allowed-host", &["a", "b"])]);
    }

    #[test]
    fn wrong_options() {
        let check = |text: &str, expected: &str| {
            let found = parse_config(text, &KNOWN).unwrap_err().to_string();
            assert!(found.contains(expected), "{text}: {found}");
        };
        check("port", "not valid TOML: ");
        check("max_body = 1", "there is no option `max_body`; perhaps `max-body`");
        check("ports = 1", "there is no option `ports`; perhaps `port`");
        check("q = 1", "there is no option `q`; there are port, max-body, insecure, allowed-host");
        check("[port]", "`port` is a table, expected text or a number");
        check("port = true", "`port` is true or false, expected text or a number");
        check("insecure = 1", "`insecure` is a number, expected true or false");
        check("allowed-host = \"a\"", "`allowed-host` is text, expected a list");
        check("allowed-host = [[1]]", "`allowed-host` is a list, expected text or a number");
        check("port = 1979-05-27", "`port` is a date, expected text or a number");
    }
}
