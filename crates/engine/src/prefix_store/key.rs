//! The name of a block on disk: a chain of hashes over all that its bits depend on.
//!
//! SHA-256 over the identity of the model, then for each block over the key before it and its own rows. Equal
//! keys mean equal weights, config, formats, program and rows (`row`) from the first to the last, so a hit is never a
//! guess and never somebody else's.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

use k2_model::kv_cache::BLOCK_TOKENS;
use sha2::{Digest, Sha256};

/// A block, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(super) [u8; 32]);

/// Everything that bits in the cache depend on, besides rows.
pub(super) struct Identity {
    /// `Checkpoint::identity`.
    pub(super) weights: [u8; 32],
    /// [`program`].
    pub(super) program: [u8; 32],
    pub(super) config: String,
    pub(super) cache_dtype: String,
    pub(super) precision: String,
    /// Does not rely on all of them giving the same bits.
    pub(super) isa: &'static str,
}

impl Identity {
    /// The key of the empty beginning.
    pub(super) fn root(&self) -> Key {
        let mut hash = Sha256::new();
        let Identity { weights, program, config, cache_dtype, precision, isa } = self;
        let parts: [&[u8]; 6] = [
            weights,
            program,
            config.as_bytes(),
            cache_dtype.as_bytes(),
            precision.as_bytes(),
            isa.as_bytes(),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Key(hash.finalize().into())
    }
}

impl Key {
    /// The block of these rows behind this one.
    pub(crate) fn child(&self, rows: &[u32; BLOCK_TOKENS]) -> Key {
        let mut hash = Sha256::new_with_prefix(self.0);
        rows.iter().for_each(|row| hash.update(row.to_le_bytes()));
        Key(hash.finalize().into())
    }

    /// 64 digits.
    pub(super) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From 64 digits, as [`hex`](Self::hex) writes them.
    pub(super) fn from_hex(text: &str) -> Option<Key> {
        let digits = text.as_bytes().as_chunks::<2>();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let bytes: Option<Vec<u8>> =
            digits.0.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect();
        Some(Key(bytes?.try_into().ok()?)).filter(|_| digits.1.is_empty())
    }
}

/// The hash of the running program's file: another build may sum in another order.
pub(super) fn program() -> io::Result<[u8; 32]> {
    static HASH: OnceLock<[u8; 32]> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(*hash);
    }
    let (mut file, mut hash, mut buffer) =
        (File::open(std::env::current_exe()?)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(*HASH.get_or_init(|| hash.finalize().into())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_identity_and_every_token_counts() {
        let identity = |changed: usize| {
            let of = |part: usize, usual: &str, other: &str| {
                if part == changed { other.to_owned() } else { usual.to_owned() }
            };
            Identity {
                weights: if changed == 0 { [1; 32] } else { [0; 32] },
                program: if changed == 1 { [1; 32] } else { [0; 32] },
                config: of(2, "a", "ab"),
                cache_dtype: of(3, "bf16", "q8"),
                precision: of(4, "Fast", "Exact"),
                isa: if changed == 5 { "avx2" } else { "avx512" },
            }
        };
        let roots: Vec<Key> = (0..7).map(|changed| identity(changed).root()).collect();
        let mut keys = roots.clone();
        let tokens = [7; BLOCK_TOKENS];
        keys.push(roots[6].child(&tokens));
        keys.push(roots[6].child(&tokens).child(&tokens));
        for place in 0..BLOCK_TOKENS {
            let mut other = tokens;
            other[place] += 1;
            keys.push(roots[6].child(&other));
        }
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "key {i} is not new");
        }
        assert_eq!(identity(6).root(), roots[6]);
    }

    #[test]
    fn names_are_64_digits() {
        let key = Key(std::array::from_fn(|i| i as u8 * 8));
        assert_eq!(Key::from_hex(&key.hex()), Some(key));
        for wrong in ["", "00", &key.hex()[1..], &format!("{}0", key.hex()), &key.hex().to_uppercase()] {
            assert_eq!(Key::from_hex(wrong), None, "{wrong}");
        }
    }
}
