//! Work that keeps a processor for a while, away from the threads that serve connections: reading long bodies, encoding
//! prompts, compiling grammars. Running streams keep moving meanwhile.
//!
//! A request keeps its place until its work is done, so no more work waits than there are places.

use tokio::task::spawn_blocking;

use crate::error::ApiError;
use crate::record::Record;

/// Threads for it; more work waits.
pub(crate) const THREADS: usize = 4;

/// Does work for the current request, which stays the current one.
pub(crate) async fn blocking<T, W>(work: W) -> Result<T, ApiError>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    let record = Record::current();
    let done = spawn_blocking(move || match record {
        Some(record) => record.sync_scope(work),
        None => work(),
    });
    done.await.unwrap_or_else(|error| Err(ApiError::failed(format!("the request broke off: {error}"))))
}
