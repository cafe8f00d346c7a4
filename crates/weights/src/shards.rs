//! `model.safetensors.index.json`: which shard holds which tensor.
//!
//! The file is `{"metadata": {...}, "weight_map": {tensor: file}}`. It must agree with the shards both
//! ways: a tensor that one names and the other does not have is an error.

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Component, Path};

use crate::text::{cut, is_name, why};

/// File name of an index.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest index read; that of K2 has 20 MB.
pub const INDEX_LIMIT: u64 = 64 << 20;

/// A parsed index.
#[derive(Debug)]
pub struct Index {
    /// The shards, in the order of their first mention.
    pub files: Vec<String>,
    /// Tensor name to position in `files`.
    pub tensors: HashMap<String, usize>,
}

/// Why an index is not one, or does not describe its shards.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are what the messages show
pub enum IndexError {
    /// Not JSON of that form.
    #[error("not a valid index: {}", why(error))]
    Json { error: serde_json::Error },
    /// A name is given twice.
    #[error("tensor `{tensor}` is in `weight_map` twice")]
    Duplicate { tensor: String },
    /// A name that is empty or unfit to be shown.
    #[error(
        "a tensor is called \"{found}\", expected a name: not empty, at most 512 bytes, no control characters"
    )]
    Name { found: String },
    /// A path that is not plainly inside the folder.
    #[error(
        "tensor `{tensor}` is said to be in `{file}`; expected the name of a .safetensors file in this folder"
    )]
    FileName { tensor: String, file: String },
    /// The index names a tensor that its shard lacks.
    #[error("tensor `{tensor}` is said to be in `{file}`, which does not have it")]
    Absent { tensor: String, file: String },
    /// A shard holds a tensor that the index does not place there.
    #[error("`{file}` holds tensor `{tensor}`, which the index {}", elsewhere.as_ref().map_or("does not name".into(), |f| format!("places in `{f}`")))]
    Unlisted { tensor: String, file: String, elsewhere: Option<String> },
}

/// Reads an index. File names in it are checked to be plain; whether they exist is not.
pub fn parse(json: &[u8]) -> Result<Index, IndexError> {
    let RawIndex { weight_map: Pairs(pairs), .. } =
        serde_json::from_slice(json).map_err(|error| IndexError::Json { error })?;
    let mut index = Index { files: Vec::new(), tensors: HashMap::with_capacity(pairs.len()) };
    let mut positions: HashMap<String, usize> = HashMap::new();
    for (tensor, file) in pairs {
        if !is_name(&tensor) {
            return Err(IndexError::Name { found: cut(&tensor) });
        }
        let position = match positions.get(&file) {
            Some(position) => *position,
            None => {
                if !is_plain(&file) {
                    return Err(IndexError::FileName { tensor, file: cut(&file) });
                }
                positions.insert(file.clone(), index.files.len());
                index.files.push(file);
                index.files.len() - 1
            }
        };
        match index.tensors.entry(tensor) {
            Entry::Occupied(entry) => return Err(IndexError::Duplicate { tensor: entry.key().clone() }),
            Entry::Vacant(entry) => entry.insert(position),
        };
    }
    Ok(index)
}

impl Index {
    /// Checks that the shards hold exactly what the index says. `found` is every tensor of the shards, with
    /// its file's position in `files`.
    pub fn check(&self, found: &[(usize, &str)]) -> Result<(), IndexError> {
        found.iter().try_for_each(|&(position, name)| self.check_tensor(position, name))?;
        if found.len() == self.tensors.len() { Ok(()) } else { self.first_absent(found) }
    }

    /// Checks that the index places a tensor in the file where it was found. Asked of each shard as it is read, so that not
    /// more is kept than the index lists, however often it names one file by other ways.
    pub fn check_tensor(&self, position: usize, name: &str) -> Result<(), IndexError> {
        match self.tensors.get(name).copied() {
            Some(listed) if listed == position => Ok(()),
            listed => Err(IndexError::Unlisted {
                tensor: name.to_owned(),
                file: self.files[position].clone(),
                elsewhere: listed.map(|other| self.files[other].clone()),
            }),
        }
    }

    /// All that was found is listed, and it is less than the list: something is missing.
    fn first_absent(&self, found: &[(usize, &str)]) -> Result<(), IndexError> {
        let found: HashSet<&str> = found.iter().map(|(_, name)| *name).collect();
        let absent = self.tensors.iter().filter(|(name, _)| !found.contains(name.as_str())).min();
        match absent {
            None => Ok(()),
            Some((tensor, &position)) => {
                Err(IndexError::Absent { tensor: tensor.clone(), file: self.files[position].clone() })
            }
        }
    }
}

/// A relative path that only goes down, without anything a file system might read otherwise.
fn is_plain(file: &str) -> bool {
    let down = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    down && is_name(file) && file.ends_with(".safetensors") && !file.contains(['\\', ':'])
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(default, rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    weight_map: Pairs,
}

/// An object's string pairs in order, repeated names kept.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensor and file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}
