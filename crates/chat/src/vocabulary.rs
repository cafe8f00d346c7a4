//! The ordinary tokens: id ↔ bytes.
//!
//! All token bytes lie end to end in one arena; a hash table of ids answers "which token is
//! exactly these bytes". An id is also a merge rank: byte-pair encoding joins the pair whose
//! joined bytes have the lowest id (tiktoken's reading of a vocabulary). Ids without bytes (holes)
//! belong to special tokens, which [`crate::special`] keeps.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Ordinary tokens by id and by bytes.
#[derive(Clone, Default)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// The bytes of id `i` are `bytes[ends[i - 1]..ends[i]]`; an empty range is a hole.
    ends: Vec<usize>,
    table: HashTable<u32>,
    longest: usize,
}

impl Vocabulary {
    /// An empty vocabulary with room for `tokens` ids.
    pub fn with_capacity(tokens: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(tokens.saturating_mul(8)),
            ends: Vec::with_capacity(tokens),
            table: HashTable::with_capacity(tokens),
            longest: 0,
        }
    }

    /// Gives the next id to `token`. An empty token makes a hole. If another id already has these
    /// bytes nothing is added and that id comes back as the error.
    pub fn push(&mut self, token: &[u8]) -> Result<(), u32> {
        let id = self.len();
        if !token.is_empty() {
            if let Some(first) = self.id(token) {
                return Err(first);
            }
            self.bytes.extend_from_slice(token);
            self.longest = self.longest.max(token.len());
        }
        self.ends.push(self.bytes.len());
        if !token.is_empty() {
            let (bytes, ends) = (&self.bytes, &self.ends);
            self.table.insert_unique(hash(token), id, |&other| hash(slice(bytes, ends, other)));
        }
        Ok(())
    }

    /// Number of ids, holes included.
    pub fn len(&self) -> u32 {
        // Every reader of outside vocabularies caps the count far below u32::MAX.
        self.ends.len() as u32
    }

    /// True when there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The token that is exactly these bytes.
    #[inline]
    pub fn id(&self, token: &[u8]) -> Option<u32> {
        if token.len() > self.longest {
            return None;
        }
        self.table.find(hash(token), |&id| slice(&self.bytes, &self.ends, id) == token).copied()
    }

    /// The bytes of an ordinary token; `None` for a hole and beyond the end.
    #[inline]
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        if id >= self.len() {
            return None;
        }
        Some(slice(&self.bytes, &self.ends, id)).filter(|bytes| !bytes.is_empty())
    }

    /// The first byte that is no token of its own. With one missing, some texts could not be
    /// encoded, so readers refuse such a vocabulary.
    pub fn missing_byte(&self) -> Option<u8> {
        (0..=u8::MAX).find(|&byte| self.id(&[byte]).is_none())
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[usize], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &bytes[start..ends[id]]
}

#[inline]
fn hash(token: &[u8]) -> u64 {
    // A fixed seed is safe here: the keys come from the vocabulary, not from requests.
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(token);
    hasher.finish()
}
