//! Files mapped into memory: the only `unsafe` of this crate.
//!
//! A mapped file is a [`Bytes`], so a tensor is a reference-counted slice of it; the map lives until the
//! last slice is gone.

#![allow(unsafe_code)] // one call, see below

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

use crate::error::WeightsError;
use crate::files::require_file;

/// Maps a whole regular file for reading. Costs nothing until bytes are touched.
pub(crate) fn map(path: &Path) -> Result<Bytes, WeightsError> {
    require_file(path)?;
    let io = |error| WeightsError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Ok(Bytes::new()); // an empty map is an error on some systems
    }
    // SAFETY: the map is read-only and private to this process's view of the file. What the type system
    // cannot see is another process changing or truncating the file meanwhile; numbers would change, or
    // the process would get SIGBUS, as with every program that maps weights. Nothing here relies on the
    // bytes staying the same for its memory safety: every read of them is bounds-checked.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Bytes::from_owner(map))
}
