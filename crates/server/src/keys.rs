//! Keys: who may use the server, each under a name.
//!
//! A key is kept as its SHA-256, and a key that comes is compared with every one in constant time: neither how long it
//! takes nor what is refused says which key was nearly right.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// Largest key file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most keys.
const MAX_KEYS: usize = 1000;
/// Bytes that a key may have: fewer can be guessed, more is no key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=512;
/// Bytes that a name may have.
const NAME_BYTES: usize = 64;

/// The keys that are let in; none lets everybody in.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    name: Arc<str>,
    sha256: [u8; 32],
}

/// What is wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is larger than any list of keys.
    #[error("{}: more than {MAX_FILE_BYTES} bytes", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or change the secrets in the file.
    #[error("{0}: mode {mode:03o} lets others at it; chmod 600 {0}", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is no text.
    #[error("line {line}: not UTF-8")]
    Utf8 {
        /// Counted from 1.
        line: usize,
    },
    /// A line has no name or no key.
    #[error("line {line}: expected `name: key` or `name=key`")]
    Form {
        /// Counted from 1.
        line: usize,
    },
    /// A name that metrics and logs could not show.
    #[error(
        "line {line}: a name has letters, digits, `_`, `-` and `.`, at most {NAME_BYTES}; this one has {bytes} bytes"
    )]
    Name {
        /// Counted from 1.
        line: usize,
        /// Length of the name.
        bytes: usize,
    },
    /// A key that cannot be sent or could be guessed.
    #[error(
        "{}a key has {} to {} visible ASCII characters; this one has {bytes} bytes",
        at(.line), KEY_BYTES.start(), KEY_BYTES.end()
    )]
    Key {
        /// Counted from 1; 0 is a key from elsewhere.
        line: usize,
        /// Length of the key.
        bytes: usize,
    },
    /// Two keys have one name.
    #[error("line {line}: the name {name:?} is there already")]
    SameName {
        /// Counted from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// Two names have one key.
    #[error("line {line}: the key is that of {name:?} already")]
    SameKey {
        /// Counted from 1.
        line: usize,
        /// The other name.
        name: String,
    },
    /// No limit of requests could be kept for so many.
    #[error("line {line}: more than {MAX_KEYS} keys")]
    Count {
        /// Counted from 1.
        line: usize,
    },
    /// The file lets nobody in.
    #[error("there are no keys in it")]
    Empty,
    /// Something is wrong inside a file.
    #[error("{}: {source}", path.display())]
    Inside {
        /// The file.
        path: PathBuf,
        /// What.
        source: Box<KeyError>,
    },
    /// The key beside the file.
    #[error("the key named \"default\" (--api-key or K2_API_KEY): {0}")]
    Single(#[source] Box<KeyError>),
}

/// Where a key stands, if it is from a file.
fn at(line: &usize) -> String {
    if *line == 0 { String::new() } else { format!("line {line}: ") }
}

impl Keys {
    /// The keys of a file, which must be out of reach of others.
    pub fn open(path: &Path) -> Result<Keys, KeyError> {
        let text = read_private(path)?;
        Keys::parse(&text)
            .map_err(|source| KeyError::Inside { path: path.to_owned(), source: Box::new(source) })
    }

    /// Lines `name: key` or `name=key`; empty lines and those that begin with `#` say nothing.
    pub fn parse(text: &[u8]) -> Result<Keys, KeyError> {
        let mut keys = Keys::default();
        for (index, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = index + 1;
            let text = std::str::from_utf8(bytes).map_err(|_| KeyError::Utf8 { line })?.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (name, key) = text.split_once([':', '=']).ok_or(KeyError::Form { line })?;
            keys.add(name.trim(), key.trim(), line)?;
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
    }

    /// Adds one key, under the name "default".
    pub fn with_single(mut self, key: &str) -> Result<Keys, KeyError> {
        self.add("default", key, 0).map_err(|error| KeyError::Single(Box::new(error)))?;
        Ok(self)
    }

    /// Whether everybody is let in.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn add(&mut self, name: &str, key: &str, line: usize) -> Result<(), KeyError> {
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(in_name) {
            return Err(KeyError::Name { line, bytes: name.len() });
        }
        if !KEY_BYTES.contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Key { line, bytes: key.len() });
        }
        if self.keys.len() == MAX_KEYS {
            return Err(KeyError::Count { line });
        }
        let sha256 = Sha256::digest(key).into();
        for other in &self.keys {
            if *other.name == *name {
                return Err(KeyError::SameName { line, name: name.to_owned() });
            }
            if other.sha256 == sha256 {
                return Err(KeyError::SameKey { line, name: other.name.to_string() });
            }
        }
        self.keys.push(Key { name: name.into(), sha256 });
        Ok(())
    }

    /// The name of a key that came; all are compared, whatever the first ones say.
    pub(crate) fn name_of(&self, sent: &[u8]) -> Option<&Arc<str>> {
        let sent: [u8; 32] = Sha256::digest(sent).into();
        let mut found = u32::MAX;
        for (index, key) in self.keys.iter().enumerate() {
            found.conditional_assign(&(index as u32), key.sha256.ct_eq(&sent));
        }
        self.keys.get(found as usize).map(|key| &key.name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.keys.iter().map(|key| &key.name)
    }
}

/// The keys that a request brings: OpenAI's header and Anthropic's.
pub(crate) fn sent(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let plain = headers.get("x-api-key").map(|value| value.as_bytes());
    bearer.into_iter().chain(plain)
}

/// RFC 6750, section 2.1; the scheme's name in any case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// A file of secrets: refused if others may read it, or those of its group write it.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>, KeyError> {
    let wrong = |source| KeyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(wrong)?.permissions().mode() & 0o777;
        if mode & 0o027 != 0 {
            return Err(KeyError::Mode { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(wrong)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(KeyError::FileSize { path: path.to_owned() }),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let check =
            |text: &str, expected: Result<&[&str], &str>| match (Keys::parse(text.as_bytes()), expected) {
                (Ok(keys), Ok(names)) => {
                    let found: Vec<_> = keys.names().map(|name| name.to_string()).collect();
                    assert_eq!(found, names, "{text:?}");
                }
                (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected, "{text:?}"),
                (found, expected) => panic!("{text:?}: {found:?}, expected {expected:?}"),
            };
        check("ann: 12345678\n# out: 12345678\n\n  bob = a:b=c:d=e \r\n", Ok(&["ann", "bob"]));
        check("", Err("there are no keys in it"));
        check("# none\n", Err("there are no keys in it"));
        check("ann: 12345678\n12345678\n", Err("line 2: expected `name: key` or `name=key`"));
        let name = "a name has letters, digits, `_`, `-` and `.`, at most 64; this one has";
        check(": 12345678", Err(&format!("line 1: {name} 0 bytes")));
        check("a b: 12345678", Err(&format!("line 1: {name} 3 bytes")));
        check(&format!("{}: 12345678", "n".repeat(65)), Err(&format!("line 1: {name} 65 bytes")));
        let key = "a key has 8 to 512 visible ASCII characters; this one has";
        check("\n\nann: 1234567", Err(&format!("line 3: {key} 7 bytes")));
        check("ann: 1234 5678", Err(&format!("line 1: {key} 9 bytes")));
        check(&format!("ann: {}", "k".repeat(513)), Err(&format!("line 1: {key} 513 bytes")));
        check("ann: 12345678\nann: 87654321", Err("line 2: the name \"ann\" is there already"));
        check("ann: 12345678\nbob: 12345678", Err("line 2: the key is that of \"ann\" already"));
        let many: String = (0..=MAX_KEYS).map(|number| format!("n{number}: key-{number:08}\n")).collect();
        check(&many, Err("line 1001: more than 1000 keys"));
        assert_eq!(Keys::parse(b"ann: 12345678\n\xff").unwrap_err().to_string(), "line 2: not UTF-8");
        let single = Keys::default().with_single("short").unwrap_err().to_string();
        assert!(single.starts_with("the key named \"default\" (--api-key or K2_API_KEY): "), "{single}");
    }

    #[test]
    fn the_right_key_has_its_name() {
        let keys =
            Keys::parse(b"ann: key-of-ann\nbob: key-of-bob").unwrap().with_single("key-of-all").unwrap();
        let check = |sent: &[u8], expected: Option<&str>| {
            assert_eq!(keys.name_of(sent).map(|name| &**name), expected, "{sent:?}");
        };
        check(b"key-of-ann", Some("ann"));
        check(b"key-of-bob", Some("bob"));
        check(b"key-of-all", Some("default"));
        check(b"key-of-an", None);
        check(b"key-of-ann ", None);
        check(b"", None);
        assert_eq!(Keys::default().name_of(b"key-of-ann"), None);
    }

    #[test]
    #[cfg(unix)]
    fn others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("k2-keys-{}", std::process::id()));
        std::fs::write(&path, "ann: 12345678\n").unwrap();
        let check = |mode: u32, allowed: bool| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = Keys::open(&path).map(|_| ()).map_err(|error| error.to_string());
            let refused = format!("{0}: mode {mode:03o} lets others at it; chmod 600 {0}", path.display());
            assert_eq!(found, if allowed { Ok(()) } else { Err(refused) });
        };
        check(0o600, true);
        check(0o440, true);
        check(0o644, false);
        check(0o660, false);
        check(0o601, false);
        std::fs::write(&path, "ann\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let inside = format!("{}: line 1: expected `name: key` or `name=key`", path.display());
        assert_eq!(Keys::open(&path).unwrap_err().to_string(), inside);
        std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert!(matches!(Keys::open(&path), Err(KeyError::FileSize { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Keys::open(&path), Err(KeyError::Read { .. })));
    }
}
