//! The files of a prefix store: found again, written whole, and removed when their room is needed.
//!
//! `KEY.block` are blocks; `KEY.N.tmp` are blocks that somebody is writing, who holds a lock on them: what can
//! be locked was left behind by a process that was killed. Nothing else in the directory is touched. Blocks that
//! were used longest ago go first; one counts as a second older than the one before it in its sequence, so that
//! of a sequence the end goes before the beginning. Other processes may write, read and remove at any time: a
//! file is opened by its name and checked, and what this process believes to be there is only a guess.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::PrefixStoreError;
use super::file::{self, HEADER_BYTES};
use super::key::Key;
use crate::stats::{PrefixStoreStats, add};

const BLOCK: &str = ".block";
const TEMPORARY: &str = ".tmp";

/// How long what is believed to be there is believed.
const RESCAN: Duration = Duration::from_secs(60);

/// Of the budget, the part that is made free when it is used up, so that this is seldom done.
const FREED: u64 = 20;

/// A directory of blocks.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    budget: u64,
    block_bytes: usize,
    index: Mutex<Index>,
    /// Somebody may wait for the writer to be done.
    settled: Condvar,
    pub(super) counters: Counters,
}

/// Those of [`PrefixStoreStats`] that only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) wanted: AtomicU64,
    read: AtomicU64,
    found: AtomicU64,
    pub(super) written: AtomicU64,
    removed: AtomicU64,
    evicted: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// What is believed to be there.
#[derive(Debug)]
struct Index {
    files: HashMap<Key, Stored>,
    /// Bytes of the files.
    bytes: u64,
    /// Blocks that are given to the writer.
    expected: HashSet<Key>,
    scanned: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    bytes: u64,
    used: SystemTime,
}

impl Directory {
    /// Opens or makes it, removes what killed processes left half written, and looks what is there.
    pub(super) fn open(path: &Path, budget: u64, block_bytes: usize) -> Result<Directory, PrefixStoreError> {
        let wrong = |error| PrefixStoreError::Io { directory: path.to_owned(), error };
        make(path).map_err(wrong)?;
        let path = path.canonicalize().map_err(wrong)?;
        let mode = mode(&path.metadata().map_err(wrong)?);
        if mode & 0o077 != 0 {
            return Err(PrefixStoreError::Open { directory: path, mode });
        }
        let index =
            Index { files: HashMap::new(), bytes: 0, expected: HashSet::new(), scanned: Instant::now() };
        let directory = Directory {
            path,
            budget,
            block_bytes,
            index: Mutex::new(index),
            settled: Condvar::new(),
            counters: Counters::default(),
        };
        directory.scan().map_err(wrong)?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of a block's rows.
    pub(super) fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Whether a block is believed to be there, or will be soon.
    pub(super) fn has(&self, key: &Key) -> bool {
        let index = self.index();
        index.files.contains_key(key) || index.expected.contains(key)
    }

    /// A block is given to the writer.
    pub(super) fn expect(&self, key: Key) {
        self.index().expected.insert(key);
    }

    /// The writer is done with a block; it has so many bytes now, or could not be written.
    pub(super) fn settle(&self, key: &Key, depth: usize, bytes: Option<u64>) {
        let mut index = self.index();
        index.expected.remove(key);
        if let Some(bytes) = bytes {
            index.insert(*key, Stored { bytes, used: used_at(depth) });
        }
        self.settled.notify_all();
    }

    /// Waits until the writer has done what it was given; false if it takes longer.
    pub(crate) fn flush(&self, longest: Duration) -> bool {
        let waits = |index: &mut Index| !index.expected.is_empty();
        let waited = self.settled.wait_timeout_while(self.index(), longest, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What was done here, and how much is there.
    pub(crate) fn stats(&self) -> PrefixStoreStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { wanted, read: opened, found, written, removed, evicted, failed } = &self.counters;
        PrefixStoreStats {
            wanted: read(wanted),
            read: read(opened),
            found: read(found),
            written: read(written),
            removed: read(removed),
            evicted: read(evicted),
            failed: read(failed),
            bytes: self.index().bytes,
            budget_bytes: self.budget,
        }
    }

    /// The whole file of a block, if it is there and is what it should be. Anything else under its name is removed;
    /// what cannot be read now stays.
    pub(super) fn read(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path_of(key);
        match self.read_checked(&path, key) {
            Ok(bytes) => {
                add(&self.counters.read, 1);
                add(&self.counters.found, 1);
                // Another process may have written it.
                self.index().learn(*key, bytes.len() as u64);
                Some(bytes)
            }
            Err(error) => {
                self.missed(&path, key, &error);
                None
            }
        }
    }

    fn missed(&self, path: &Path, key: &Key, error: &io::Error) {
        let file = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => {}
            io::ErrorKind::InvalidData => {
                tracing::warn!(%file, %error, "a file of the prefix store is removed");
                // If it cannot be removed, it stays a miss.
                let _ = fs::remove_file(path);
                add(&self.counters.read, 1);
                add(&self.counters.removed, 1);
            }
            // Too many open files, a disk that fails once: the block may be good.
            _ => return tracing::warn!(%file, %error, "a file of the prefix store cannot be read now"),
        }
        self.index().remove(key);
    }

    fn read_checked(&self, path: &Path, key: &Key) -> io::Result<Vec<u8>> {
        let other = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        // Not a pipe that nobody writes, and not a link to elsewhere.
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(other(file::FileError::Foreign));
        }
        let expected = HEADER_BYTES + self.block_bytes;
        let mut bytes = Vec::with_capacity(expected + 1);
        // One byte more than there should be, to see that there is none.
        File::open(path)?.take(expected as u64 + 1).read_to_end(&mut bytes)?;
        file::check(&bytes, key, self.block_bytes).map_err(other)?;
        Ok(bytes)
    }

    /// Says that blocks of one sequence have been used, the first of them `depth` blocks from its beginning.
    pub(super) fn used(&self, depth: usize, keys: &[Key]) {
        for (place, key) in keys.iter().enumerate() {
            let used = used_at(depth + place);
            // Whoever may not open it for writing keeps the old time.
            let _ =
                File::options().append(true).open(self.path_of(key)).and_then(|file| file.set_modified(used));
            if let Some(stored) = self.index().files.get_mut(key) {
                stored.used = used;
            }
        }
    }

    /// Writes a block, `depth` blocks from the beginning. False: it is larger than the budget, or somebody else
    /// removed what was half written.
    pub(super) fn write(&self, key: &Key, depth: usize, bytes: &[u8]) -> io::Result<bool> {
        if bytes.len() as u64 > self.budget {
            return Ok(false);
        }
        self.make_room(bytes.len() as u64)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temporary = self.path.join(format!("{}.{number}{TEMPORARY}", key.hex()));
        let written = write_locked(&temporary, used_at(depth), bytes)
            .and_then(|()| fs::rename(&temporary, self.path_of(key)));
        match written {
            // The name itself is not forced to the disk: after a loss of power it may be missing, which is a miss.
            Ok(()) => Ok(true),
            Err(error) => {
                let stolen = error.kind() == io::ErrorKind::NotFound && self.path.is_dir();
                let _ = fs::remove_file(&temporary);
                if stolen { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Removes the blocks that were used longest ago, if so many bytes more would be too many.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let too_many = || self.index().bytes + bytes > self.budget;
        if too_many() || self.index().scanned.elapsed() > RESCAN {
            self.scan()?;
        }
        if !too_many() {
            return Ok(());
        }
        let left = (self.budget - self.budget / FREED).saturating_sub(bytes);
        for key in self.by_use() {
            if self.index().bytes <= left {
                break;
            }
            match fs::remove_file(self.path_of(&key)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                removed => {
                    add(&self.counters.evicted, removed.is_ok().into());
                    self.index().remove(&key);
                }
            }
        }
        Ok(())
    }

    /// What is believed to be there, the longest unused first.
    fn by_use(&self) -> Vec<Key> {
        let used = |(key, stored): (&Key, &Stored)| (stored.used, *key);
        let mut by_use: Vec<(SystemTime, Key)> = self.index().files.iter().map(used).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        by_use.into_iter().map(|(_, key)| key).collect()
    }

    /// Looks what is there, and removes what nobody is writing any more. The index is locked at the end only:
    /// the engine's thread asks it.
    fn scan(&self) -> io::Result<()> {
        let mut files = HashMap::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if is_temporary(name) {
                remove_if_left_behind(&entry.path());
            } else if let Some(key) = name.strip_suffix(BLOCK).and_then(Key::from_hex) {
                // It may have gone meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.insert(key, Stored { bytes: metadata.len(), used });
            }
        }
        let index = &mut self.index();
        for (key, stored) in &mut files {
            stored.used = index.files.get(key).map_or(stored.used, |known| known.used.max(stored.used));
        }
        index.bytes = files.values().map(|stored| stored.bytes).sum();
        index.files = files;
        index.scanned = Instant::now();
        Ok(())
    }

    fn path_of(&self, key: &Key) -> PathBuf {
        self.path.join(key.hex() + BLOCK)
    }

    /// A poisoned lock guards a guess.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, key: Key, stored: Stored) {
        self.remove(&key);
        self.bytes += stored.bytes;
        self.files.insert(key, stored);
    }

    /// A file that was seen, used now.
    fn learn(&mut self, key: Key, bytes: u64) {
        if !self.files.contains_key(&key) {
            self.insert(key, Stored { bytes, used: SystemTime::now() });
        }
    }

    fn remove(&mut self, key: &Key) {
        self.bytes -= self.files.remove(key).map_or(0, |stored| stored.bytes);
    }
}

/// When a block that is used now counts as used.
fn used_at(depth: usize) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(Duration::from_secs(depth as u64)).unwrap_or(now)
}

fn write_locked(path: &Path, used: SystemTime, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.lock()?;
    file.write_all(bytes)?;
    file.set_modified(used)?;
    file.sync_all()
}

fn is_temporary(name: &str) -> bool {
    let key = name.strip_suffix(TEMPORARY).and_then(|name| name.get(..64));
    key.and_then(Key::from_hex).is_some()
}

/// Nothing here is worth an error: what stays is looked at again next time.
fn remove_if_left_behind(path: &Path) {
    if File::open(path).is_ok_and(|file| file.try_lock().is_ok()) {
        let _ = fs::remove_file(path);
    }
}

fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o777
}

/// Elsewhere a user's folders are the user's own.
#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> u32 {
    0o700
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 100;
    const FILE: u64 = (HEADER_BYTES + ROWS) as u64;

    fn new(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("k2-directory-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn open(path: &Path, blocks: u64) -> Directory {
        Directory::open(path, blocks * FILE, ROWS).unwrap()
    }

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    fn block(number: u8) -> Vec<u8> {
        let mut bytes = file::header_room(ROWS);
        bytes.resize(HEADER_BYTES + ROWS, number);
        file::seal(&mut bytes, &key(number));
        bytes
    }

    fn write(directory: &Directory, number: u8, depth: usize) {
        assert!(directory.write(&key(number), depth, &block(number)).unwrap());
        directory.settle(&key(number), depth, Some(FILE));
    }

    fn held(directory: &Directory, numbers: std::ops::Range<u8>) -> Vec<u8> {
        numbers.filter(|number| directory.read(&key(*number)).is_some()).collect()
    }

    #[test]
    fn blocks_are_found_again_and_belong_to_their_owner_alone() {
        let path = new("again");
        let first = open(&path, 10);
        (0..3).for_each(|number| write(&first, number, 0));
        let second = open(&path, 10);
        assert_eq!(second.read(&key(1)), Some(block(1)));
        assert!(second.has(&key(2)) && !second.has(&key(3)));
        // What another process writes later is found too.
        write(&first, 3, 0);
        assert_eq!(held(&second, 0..5), [0, 1, 2, 3]);
        assert!(second.has(&key(3)), "what was read need not be written again");
        assert_eq!(second.stats().bytes, 4 * FILE);
        #[cfg(unix)]
        {
            let file = path.join(key(1).hex() + BLOCK);
            assert_eq!((mode(&path.metadata().unwrap()), mode(&file.metadata().unwrap())), (0o700, 0o600));
            let wide = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, wide).unwrap();
            let error = Directory::open(&path, 10, ROWS).err().unwrap().to_string();
            assert!(error.ends_with("(mode 755); expected a directory of your own: chmod 700"), "{error}");
        }
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_end_of_what_was_used_longest_ago_goes_first() {
        let path = new("budget");
        let directory = open(&path, 20);
        // Two sequences of ten blocks; the first was used long ago, and is used again.
        (0..10).for_each(|number| write(&directory, number, 1000 + usize::from(number)));
        (10..20).for_each(|number| write(&directory, number, usize::from(number - 10)));
        directory.used(0, &(0..10).map(key).collect::<Vec<_>>());
        write(&directory, 20, 0);
        // A twentieth of the budget is freed beside the room of the new one.
        assert_eq!(held(&directory, 0..21), (0..21).filter(|n| ![9, 19].contains(n)).collect::<Vec<_>>());
        (21..23).for_each(|number| write(&directory, number, 0));
        let files = fs::read_dir(&path).unwrap().count() as u64;
        assert!(files <= 20, "{files} files");
        assert!(
            !directory.write(&key(99), 0, &vec![0; 21 * FILE as usize]).unwrap(),
            "larger than everything"
        );
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_is_not_a_block_is_a_miss_and_is_removed_and_what_is_not_ours_stays() {
        let path = new("foreign");
        let directory = open(&path, 10);
        let mut torn = block(1);
        torn.truncate(120);
        let mut flipped = block(2);
        flipped[150] ^= 4;
        for (number, bytes) in [(1, torn), (2, flipped), (3, block(4)), (4, Vec::new()), (5, vec![7; 4000])] {
            let file = path.join(key(number).hex() + BLOCK);
            fs::write(&file, bytes).unwrap();
            assert_eq!(directory.read(&key(number)), None, "{number}");
            assert!(!file.exists(), "{number}");
        }
        fs::create_dir(path.join(key(6).hex() + BLOCK)).unwrap();
        assert_eq!(directory.read(&key(6)), None);
        fs::write(path.join("notes.txt"), "mine").unwrap();
        fs::write(path.join("notes.tmp"), "mine").unwrap();
        open(&path, 10);
        assert!(path.join("notes.txt").exists() && path.join("notes.tmp").exists());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_read_now_stays() {
        let (path, aside) = (new("unreadable"), new("unreadable-aside"));
        let directory = open(&path, 10);
        write(&directory, 1, 0);
        // A file where the directory was: an error that says nothing about the block.
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(directory.read(&key(1)), None);
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert!(directory.has(&key(1)));
        assert_eq!(directory.read(&key(1)), Some(block(1)));
        assert_eq!(directory.stats().removed, 0);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn half_written_files_go_when_their_writer_is_gone() {
        let path = new("temporary");
        drop(open(&path, 10));
        let [left, alive] = ["1", "2"].map(|n| path.join(format!("{}.{n}{TEMPORARY}", key(1).hex())));
        fs::write(&left, "half").unwrap();
        let writer = File::create(&alive).unwrap();
        writer.lock().unwrap();
        open(&path, 10);
        assert!(!left.exists() && alive.exists());
        drop(writer);
        open(&path, 10);
        assert!(!alive.exists());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_directory_that_goes_away_is_an_error_of_the_write_alone() {
        let path = new("gone");
        let directory = open(&path, 10);
        write(&directory, 1, 0);
        fs::remove_dir_all(&path).unwrap();
        assert!(directory.write(&key(2), 0, &block(2)).is_err());
        assert_eq!(directory.read(&key(1)), None);
        assert!(!directory.has(&key(1)));
        fs::write(&path, "a file").unwrap();
        assert!(Directory::open(&path, 10, ROWS).is_err());
        fs::remove_file(&path).unwrap();
    }
}
