//! Writing: a file is there whole or not at all.
//!
//! Everything goes to a sibling file first, is flushed to the disk, and then takes the name; a crash in
//! between leaves the old file. Tensors with wider elements come first, so that all of them are aligned.

use serde_json::json;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::WeightsError;
use crate::safetensors::{Dtype, SafetensorsError};
use crate::text::{cut, is_name};

/// A tensor to be written: name, dtype, shape, little-endian bytes.
pub type NewTensor<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);

/// Writes a safetensors file.
pub fn save_safetensors(path: &Path, tensors: &[NewTensor<'_>]) -> Result<(), WeightsError> {
    let wrong = |error| WeightsError::Safetensors { path: path.to_owned(), error };
    check(tensors).map_err(wrong)?;
    let mut ordered = tensors.to_vec();
    ordered.sort_by_key(|(_, dtype, ..)| std::cmp::Reverse(dtype.bits()));
    let header = header(&ordered);
    replace_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        ordered.iter().try_for_each(|(.., bytes)| file.write_all(bytes))
    })
}

/// Writes a file through a sibling that takes its name when all is on the disk.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WeightsError> {
    let sibling = sibling(path);
    let written = write_new(&sibling, write).and_then(|()| fs::rename(&sibling, path)).and_then(|()| {
        // The name is on the disk when the folder is. Not every system can open a folder.
        parent(path).map_or(Ok(()), |folder| File::open(folder).map_or(Ok(()), |folder| folder.sync_all()))
    });
    written.map_err(|error| {
        // The sibling is of no use to anybody; if it cannot be removed, the first error says why.
        let _ = fs::remove_file(&sibling);
        WeightsError::Io { path: path.to_owned(), error }
    })
}

fn write_new(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, file);
    write(&mut buffered)?;
    buffered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// A name beside `path` that no other writer has.
fn sibling(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

fn parent(path: &Path) -> Option<&Path> {
    let folder = path.parent()?;
    Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

fn check(tensors: &[NewTensor<'_>]) -> Result<(), SafetensorsError> {
    let mut seen = HashSet::new();
    for &(name, dtype, shape, bytes) in tensors {
        let tensor = || name.to_owned();
        if !is_name(name) {
            return Err(SafetensorsError::Name { found: cut(name) });
        }
        if name == "__metadata__" {
            return Err(SafetensorsError::ReservedName);
        }
        if !seen.insert(name) {
            return Err(SafetensorsError::Duplicate { tensor: tensor() });
        }
        let (shape, found): (Vec<u64>, _) =
            (shape.iter().map(|&dim| dim as u64).collect(), bytes.len() as u64);
        match dtype.bytes(&shape) {
            None => return Err(SafetensorsError::Size { tensor: tensor(), shape, dtype: dtype.name() }),
            Some(expected) if expected != found => {
                let dtype = dtype.name();
                return Err(SafetensorsError::Length { tensor: tensor(), shape, dtype, expected, found });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The JSON header, padded with spaces so that the data begins at a multiple of 8.
fn header(tensors: &[NewTensor<'_>]) -> Vec<u8> {
    let (mut entries, mut end) = (serde_json::Map::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let begin = end;
        end += bytes.len();
        let info = json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end] });
        entries.insert((*name).to_owned(), info);
    }
    let mut text = serde_json::Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    text
}
