//! Files mapped into memory: the only `unsafe` of this crate.
//!
//! A mapped file is a [`Bytes`], so a tensor is a reference-counted slice of it; the map lives until the
//! last slice is gone.

#![allow(unsafe_code)] // two calls, see below

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
    let map = Arc::new(map);
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|map| map.strong_count() > 0);
    maps.push(Arc::downgrade(&map));
    Ok(Bytes::from_owner(Shared(map)))
}

/// What is mapped now.
static MAPS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes what this process has read of mapped files out of its memory; the system's cache of the files stays. What is
/// read again comes back from there. For whoever has a copy in another form: the two shall not both count.
pub fn release_mapped_pages() {
    #[cfg(unix)]
    for map in MAPS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        // SAFETY: these maps are of files, shared and never written, so a page that is dropped is read again from the
        // file. A refusal leaves the pages, which is harmless.
        let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}
