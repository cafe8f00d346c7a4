//! A stack for the library's recursions, as deep as [`bounds`](super::bounds) lets them be.

use std::thread;

use super::GrammarError;

/// Bytes of the stack. They are addresses; memory is what of them has been used.
pub(super) const BYTES: usize = 64 << 20;

/// Does work on a thread of its own, and waits for it.
pub(super) fn large<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, GrammarError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("grammar".to_owned()).stack_size(BYTES);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| GrammarError::NoThread { bytes: BYTES, error })?;
        thread.join().map_err(|_| GrammarError::Library("it panicked".to_owned()))
    })
}
