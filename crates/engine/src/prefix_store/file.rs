//! A block's file: a header, then the rows of all layers in the cache's format.
//!
//! ```text
//!  0  "K2PREFIX"
//!  8  version, u32           12  tokens of a block, u32        (little-endian)
//! 16  bytes of rows, u64
//! 24  the block's key, 32 bytes
//! 56  SHA-256 of the bytes 0 to 55 and of the rows
//! 88  rows
//! ```

use k2_model::kv_cache::BLOCK_TOKENS;
use sha2::{Digest, Sha256};

use super::key::Key;

/// Where the rows begin.
pub const HEADER_BYTES: usize = CHECKSUM + 32;

const MAGIC: &[u8; 8] = b"K2PREFIX";
/// 1 had the bits of long prompts as they were before they attended through panels.
const VERSION: u32 = 2;
const CHECKSUM: usize = 56;

/// Why a file is not the block that its name says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It begins otherwise.
    #[error("not a file of a prefix store")]
    Foreign,
    /// Of another version.
    #[error("version {found}; this program reads {VERSION}")]
    Version {
        /// The file's.
        found: u32,
    },
    /// Blocks of another size.
    #[error("blocks of {found} tokens; this program has blocks of {BLOCK_TOKENS}")]
    BlockTokens {
        /// The file's.
        found: u32,
    },
    /// Shorter or longer than a block of this model.
    #[error("{found} bytes; a block has {expected}")]
    Length {
        /// The file's.
        found: u64,
        /// With the header.
        expected: u64,
    },
    /// Its name is another block's.
    #[error("the header names another block")]
    Key,
    /// Not what was written.
    #[error("the checksum is wrong")]
    Checksum,
}

/// An empty header with room for `rows` bytes behind it.
pub(super) fn header_room(rows: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rows);
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

/// Fills in the header before the rows.
pub(super) fn seal(bytes: &mut [u8], key: &Key) {
    let rows = (bytes.len() - HEADER_BYTES) as u64;
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(BLOCK_TOKENS as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&rows.to_le_bytes());
    bytes[24..CHECKSUM].copy_from_slice(&key.0);
    let checksum = checksum(bytes);
    bytes[CHECKSUM..HEADER_BYTES].copy_from_slice(&checksum);
}

/// The rows of a file of this key, `rows` bytes of them.
pub(super) fn check<'a>(bytes: &'a [u8], key: &Key, rows: usize) -> Result<&'a [u8], FileError> {
    let expected = (HEADER_BYTES + rows) as u64;
    if bytes.len() < HEADER_BYTES || bytes[..8] != *MAGIC {
        return Err(FileError::Foreign);
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(8) != VERSION {
        return Err(FileError::Version { found: number(8) });
    }
    if number(12) != BLOCK_TOKENS as u32 {
        return Err(FileError::BlockTokens { found: number(12) });
    }
    let said = u64::from(number(16)) | u64::from(number(20)) << 32;
    if bytes.len() as u64 != expected || said != rows as u64 {
        let found =
            if said == rows as u64 { bytes.len() as u64 } else { said.saturating_add(HEADER_BYTES as u64) };
        return Err(FileError::Length { found, expected });
    }
    if bytes[24..CHECKSUM] != key.0 {
        return Err(FileError::Key);
    }
    if bytes[CHECKSUM..HEADER_BYTES] != checksum(bytes) {
        return Err(FileError::Checksum);
    }
    Ok(&bytes[HEADER_BYTES..])
}

/// Checks bytes as the file of the block that they name, as long as they are: what fuzzing calls.
pub fn check_any(bytes: &[u8]) -> Result<&[u8], FileError> {
    let key = bytes.get(24..CHECKSUM).and_then(|key| key.try_into().ok()).map(Key);
    check(bytes, &key.ok_or(FileError::Foreign)?, bytes.len().saturating_sub(HEADER_BYTES))
}

fn checksum(bytes: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix(&bytes[..CHECKSUM]).chain_update(&bytes[HEADER_BYTES..]).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(rows: &[u8], key: &Key) -> Vec<u8> {
        let mut bytes = header_room(rows.len());
        bytes.extend(rows);
        seal(&mut bytes, key);
        bytes
    }

    #[test]
    fn every_way_of_being_wrong() {
        let (key, rows) = (Key([5; 32]), [1, 2, 3, 4, 5]);
        let good = sealed(&rows, &key);
        assert_eq!(check(&good, &key, 5), Ok(&rows[..]));
        assert_eq!(check_any(&good), Ok(&rows[..]));
        let wrong = |change: &dyn Fn(&mut Vec<u8>), expected: FileError| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(check(&bytes, &key, 5), Err(expected));
        };
        wrong(&|bytes| bytes.truncate(HEADER_BYTES - 1), FileError::Foreign);
        wrong(&|bytes| bytes[0] = 0, FileError::Foreign);
        wrong(&|bytes| bytes[8] = 1, FileError::Version { found: 1 });
        wrong(&|bytes| bytes[12] = 16, FileError::BlockTokens { found: 16 });
        wrong(&|bytes| bytes[16] = 6, FileError::Length { found: 94, expected: 93 });
        wrong(&|bytes| bytes[16..24].fill(255), FileError::Length { found: u64::MAX, expected: 93 });
        wrong(&|bytes| bytes.push(0), FileError::Length { found: 94, expected: 93 });
        wrong(&|bytes| bytes.truncate(HEADER_BYTES), FileError::Length { found: 88, expected: 93 });
        wrong(&|bytes| bytes[30] = 0, FileError::Key);
        wrong(&|bytes| bytes[HEADER_BYTES + 2] ^= 1, FileError::Checksum);
        wrong(&|bytes| bytes[CHECKSUM] ^= 1, FileError::Checksum);
        assert_eq!(check(&good, &Key([6; 32]), 5), Err(FileError::Key));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let key = Key([5; 32]);
        let good = sealed(&[9; 40], &key);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes, &key, 40).is_err(), "bit {bit}");
        }
    }
}
