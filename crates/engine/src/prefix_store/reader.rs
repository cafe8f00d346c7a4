//! The reader's thread: a block for each sequence that waits, in turn, so that nobody waits for the end of another's
//! conversation, or until another takes what has been read.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::thread::{self, Thread};
use std::time::Duration;

use k2_model::kv_cache::BLOCK_TOKENS;

use super::Block;
use super::directory::Directory;
use super::key::Key;
use crate::stats::add;

/// How long the reader sleeps when nobody has room for a block.
const FULL: Duration = Duration::from_millis(1);

/// A sequence's blocks that somebody waits for.
pub(super) struct LoadRequest {
    /// The block before the first.
    pub(super) parent: Key,
    /// How many blocks come before.
    pub(super) depth: usize,
    /// Tokens of the blocks that are wanted.
    pub(super) tokens: Vec<[u32; BLOCK_TOKENS]>,
    pub(super) blocks: SyncSender<Block>,
    /// Who waits.
    pub(super) waker: Thread,
}

/// A request that is being read.
struct OpenLoad {
    request: LoadRequest,
    /// Blocks that have been read.
    found: Vec<Key>,
    /// The last of them, while there is no room for it.
    block: Option<Block>,
}

/// What became of a request's turn.
#[derive(PartialEq, Eq)]
enum Turn {
    Given,
    Full,
    Ended,
}

/// Reads for each request up to the first block that is missing, until nobody can ask any more.
pub(super) fn read_all(directory: &Directory, requests: &Receiver<LoadRequest>) {
    let mut open: Vec<OpenLoad> = Vec::new();
    let begin = |request| OpenLoad::begin(request, directory);
    loop {
        if open.is_empty() {
            let Ok(request) = requests.recv() else { return };
            open.push(begin(request));
        }
        open.extend(requests.try_iter().map(begin));
        let mut are_full = true;
        let ended = open.extract_if(.., |load| {
            let turn = load.turn(directory);
            are_full &= turn == Turn::Full;
            turn == Turn::Ended
        });
        ended.for_each(|load| load.end(directory));
        if are_full {
            thread::sleep(FULL);
        }
    }
}

impl OpenLoad {
    fn begin(request: LoadRequest, directory: &Directory) -> OpenLoad {
        add(&directory.counters.wanted, request.tokens.len());
        OpenLoad { request, found: Vec::new(), block: None }
    }

    /// Gives the next block, if there is room for it.
    fn turn(&mut self, directory: &Directory) -> Turn {
        let Some(block) = self.block.take().or_else(|| self.read(directory)) else { return Turn::Ended };
        match self.request.blocks.try_send(block) {
            Ok(()) => {
                self.request.waker.unpark();
                Turn::Given
            }
            Err(TrySendError::Full(block)) => {
                self.block = Some(block);
                Turn::Full
            }
            Err(TrySendError::Disconnected(_)) => Turn::Ended,
        }
    }

    fn read(&mut self, directory: &Directory) -> Option<Block> {
        let tokens = self.request.tokens.get(self.found.len())?;
        let key = self.found.last().unwrap_or(&self.request.parent).child(tokens);
        let block = directory.read(&key)?;
        self.found.push(key);
        Some(block)
    }

    /// No more blocks come; who waits hears of it first.
    fn end(self, directory: &Directory) {
        let LoadRequest { depth, blocks, waker, .. } = self.request;
        drop(blocks);
        waker.unpark();
        directory.used(depth, &self.found);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;
    use crate::prefix_store::file;

    const ROWS: usize = 100;

    /// Writes a block for each of the tokens, in a row from `parent` on.
    fn write(directory: &Directory, mut parent: Key, tokens: &[[u32; BLOCK_TOKENS]]) {
        for (depth, tokens) in tokens.iter().enumerate() {
            parent = parent.child(tokens);
            let mut bytes = file::header_room(ROWS);
            bytes.resize(file::HEADER_BYTES + ROWS, depth as u8);
            file::seal(&mut bytes, &parent);
            assert!(directory.write(&parent, depth, &bytes).unwrap());
        }
    }

    #[test]
    fn who_takes_nothing_keeps_nobody_waiting() {
        let path = std::env::temp_dir().join(format!("k2-reader-{}", std::process::id()));
        let directory = Directory::open(&path, 1 << 20, ROWS).unwrap();
        let (parent, tokens) = (Key([0; 32]), [1, 2, 3, 4, 5].map(|id| [id; BLOCK_TOKENS]));
        write(&directory, parent, &tokens);
        let (requests, asked) = channel();
        let reader = thread::spawn(move || read_all(&directory, &asked));
        let ask = |capacity| {
            let (blocks, receiver) = sync_channel(capacity);
            let (tokens, waker) = (tokens.to_vec(), thread::current());
            requests.send(LoadRequest { parent, depth: 0, tokens, blocks, waker }).unwrap();
            receiver
        };
        let (idle, gone, busy) = (ask(1), ask(1), ask(1));
        drop(gone);
        let longest = Duration::from_secs(20);
        let depths = |blocks: &Receiver<Block>| -> Vec<u8> {
            std::iter::from_fn(|| blocks.recv_timeout(longest).ok())
                .map(|block| block[file::HEADER_BYTES])
                .collect()
        };
        assert_eq!(depths(&busy), [0, 1, 2, 3, 4]);
        assert_eq!(depths(&idle), [0, 1, 2, 3, 4]);
        drop(requests);
        reader.join().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }
}
