//! Beginnings of sequences that outlive the process: full blocks of the cache as files of a directory.
//!
//! A block is named by what it is made of (`key`), checked when it is read (`file`), and kept under a budget of
//! bytes (`directory`). Two threads do the reading and writing, so no step ever waits for a disk; what goes wrong
//! there costs a hit and never an answer. The idea is the RAM's prefix tree (`blocks`) continued on disk, as in
//! LMCache (arXiv 2510.09665) and Mooncake (arXiv 2407.00079).

mod directory;
pub mod file;
mod key;
mod reader;
mod stored;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use k2_kernels::isa::isa;
use k2_model::kv_cache::BLOCK_TOKENS;
use k2_model::{KimiK2, KvCache};
use tokio::sync::mpsc as bounded;

use crate::engine::Limits;
use crate::stats::add;
pub(crate) use directory::Directory;
use key::Identity;
use key::Key;
use reader::{LoadRequest, read_all};
pub(crate) use stored::StoredBlocks;

/// Bytes of blocks on their way to the disk, or from it for one sequence, at most.
const IN_FLIGHT: usize = 256 << 20;

/// Blocks on their way, at most.
const BLOCKS_IN_FLIGHT: usize = 4096;

/// How long nothing is written after a write has failed.
const PAUSE: Duration = Duration::from_secs(60);

/// Where beginnings are kept, and for which weights.
#[derive(Clone, Debug)]
pub struct PrefixStoreOptions {
    /// A directory for this alone; it is made if it does not exist. Several processes may share it.
    pub directory: PathBuf,
    /// Bytes that its files may take together.
    pub bytes: u64,
    /// Which weights the model has: blocks of others are never used.
    pub weights: [u8; 32],
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PrefixStoreError {
    /// Other users of the machine could read what is in prompts, or put files there.
    #[error(
        "the prefix store {} can be entered by others (mode {mode:o}); expected a directory of your own: chmod 700",
        directory.display()
    )]
    Open {
        /// The directory.
        directory: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The operating system's reason.
    #[error("the prefix store {}: {error}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// Blocks of another build may hold other bits: without the program's hash they could not be told apart.
    #[error("the prefix store needs this program's own file to tell builds apart, which cannot be read: {0}")]
    Program(std::io::Error),
    /// The operating system refused a thread.
    #[error("cannot start a thread of the prefix store: {0}")]
    Thread(std::io::Error),
}

/// The store as the engine's thread sees it: nothing here waits.
pub(crate) struct PrefixStore {
    root: Key,
    directory: Arc<Directory>,
    writes: bounded::Sender<Write>,
    loads: Sender<LoadRequest>,
    loads_in_flight: usize,
    resumes: Arc<Resumes>,
}

/// A block on its way to the disk.
struct Write {
    key: Key,
    depth: usize,
    bytes: Vec<u8>,
}

/// A file that has been checked; its rows are at [`file::HEADER_BYTES`].
pub(crate) type Block = Vec<u8>;

/// The blocks of one sequence as they come from the disk. Dropping it ends the reading.
#[derive(Debug)]
struct Load(Receiver<Block>);

/// The rows of a block.
pub(crate) fn rows(block: &Block) -> &[u8] {
    &block[file::HEADER_BYTES..]
}

impl PrefixStore {
    /// Opens the directory for blocks of this model in this format, and starts the threads.
    pub(crate) fn open(
        options: &PrefixStoreOptions,
        model: &KimiK2,
        limits: &Limits,
    ) -> Result<PrefixStore, PrefixStoreError> {
        let identity = Identity {
            weights: options.weights,
            program: key::program().map_err(PrefixStoreError::Program)?,
            config: format!("{:?}", model.config),
            cache_dtype: limits.cache_dtype.to_string(),
            precision: format!("{:?}", model.precision),
            isa: isa().name(),
        };
        let block_bytes = KvCache::bytes_per_token(&model.config, limits.cache_dtype) * BLOCK_TOKENS;
        let directory = Arc::new(Directory::open(&options.directory, options.bytes, block_bytes)?);
        let in_flight = (IN_FLIGHT / block_bytes.max(1)).clamp(2, BLOCKS_IN_FLIGHT);
        let resumes = Arc::new(Resumes::default());
        let (writes, jobs) = bounded::channel(in_flight);
        let (loads, requests) = mpsc::channel();
        let (of_writer, of_reader) = (Arc::clone(&directory), Arc::clone(&directory));
        let pauses = Arc::clone(&resumes);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(work).map_err(PrefixStoreError::Thread)
        };
        spawn("k2-prefix-write", Box::new(move || write_all(&of_writer, jobs, &pauses)))?;
        spawn("k2-prefix-read", Box::new(move || read_all(&of_reader, &requests)))?;
        Ok(PrefixStore {
            root: identity.root(),
            directory,
            writes,
            loads,
            loads_in_flight: in_flight,
            resumes,
        })
    }

    /// Its files.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// The key of the empty beginning.
    fn root(&self) -> Key {
        self.root
    }

    /// Whether a block is on the disk, or on its way there.
    fn has(&self, key: &Key) -> bool {
        self.directory.has(key)
    }

    /// Gives a block to the writer: `export` writes its rows. False: not now.
    fn write(&self, key: Key, depth: usize, export: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.resumes.is_paused() {
            return false;
        }
        let Ok(permit) = self.writes.try_reserve() else { return false };
        let mut bytes = file::header_room(self.directory.block_bytes());
        export(&mut bytes);
        self.directory.expect(key);
        permit.send(Write { key, depth, bytes });
        true
    }

    /// Begins to read the blocks that follow `parent`; this thread is woken as they come.
    fn load(&self, parent: Key, depth: usize, tokens: &[u32]) -> Load {
        let (blocks, receiver) = sync_channel(self.loads_in_flight);
        let tokens = tokens.as_chunks().0.to_vec();
        let request = LoadRequest { parent, depth, tokens, blocks, waker: thread::current() };
        // If the reader is gone, so is the sender in the request: the load ends at once.
        let _ = self.loads.send(request);
        Load(receiver)
    }
}

/// The writer's thread. A disk that is full, or any other failure, is said once and left alone for a while.
fn write_all(directory: &Directory, mut jobs: bounded::Receiver<Write>, resumes: &Resumes) {
    while let Some(Write { key, depth, mut bytes }) = jobs.blocking_recv() {
        file::seal(&mut bytes, &key);
        let written = if resumes.is_paused() { Ok(false) } else { directory.write(&key, depth, &bytes) };
        let is_written = matches!(written, Ok(true));
        add(&directory.counters.written, is_written.into());
        directory.settle(&key, depth, is_written.then_some(bytes.len() as u64));
        if let Err(error) = written {
            resumes.pause();
            add(&directory.counters.failed, 1);
            let (directory, seconds) = (directory.path().display(), PAUSE.as_secs());
            tracing::warn!(%directory, seconds, %error, "the prefix store is not written for a while");
        }
    }
}

/// Until when nothing is written.
struct Resumes {
    since: Instant,
    /// Milliseconds after that.
    at: AtomicU64,
}

impl Default for Resumes {
    fn default() -> Resumes {
        Resumes { since: Instant::now(), at: AtomicU64::new(0) }
    }
}

impl Resumes {
    fn is_paused(&self) -> bool {
        (self.since.elapsed().as_millis() as u64) < self.at.load(Ordering::Relaxed)
    }

    fn pause(&self) {
        self.at.store((self.since.elapsed() + PAUSE).as_millis() as u64, Ordering::Relaxed);
    }
}
