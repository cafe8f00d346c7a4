//! How many requests are served at the same time: all together, and for each key.
//!
//! Nothing of a request's body is read before it is admitted, so this bounds the memory of bodies too. Requests that are
//! not `POST` need no place, and their bodies are not read at all.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::keys::Keys;

/// The places.
#[derive(Debug)]
pub(crate) struct Admission {
    total: Arc<Semaphore>,
    max_total: usize,
    /// By the name of the key; empty if there is no limit.
    per_key: HashMap<Arc<str>, Arc<Semaphore>>,
    max_per_key: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _total: OwnedSemaphorePermit,
    _of_key: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// 0 for a key: no limit but the total.
    pub(crate) fn new(keys: &Keys, max_total: usize, max_per_key: usize) -> Admission {
        let max_total = max_total.clamp(1, u32::MAX as usize >> 3);
        let semaphore =
            |name: &Arc<str>| (Arc::clone(name), Arc::new(Semaphore::new(max_per_key.min(max_total))));
        let per_key = if max_per_key == 0 { HashMap::new() } else { keys.names().map(semaphore).collect() };
        Admission { total: Arc::new(Semaphore::new(max_total)), max_total, per_key, max_per_key }
    }

    /// A place for the key of this name.
    pub(crate) fn admit(&self, key: &str) -> Result<Place, ApiError> {
        let of_key = self.per_key.get(key).map(|places| Arc::clone(places).try_acquire_owned());
        let Ok(of_key) = of_key.transpose() else {
            let most = self.max_per_key;
            return Err(ApiError::too_many(format!(
                "this key has {most} requests running, the most it may have"
            )));
        };
        match Arc::clone(&self.total).try_acquire_owned() {
            Ok(total) => Ok(Place { _total: total, _of_key: of_key }),
            Err(_) => {
                let most = self.max_total;
                Err(ApiError::too_many(format!("{most} requests are being served, the most at a time")))
            }
        }
    }

    /// How many are being served.
    pub(crate) fn in_flight(&self) -> usize {
        self.max_total - self.total.available_permits().min(self.max_total)
    }

    /// Waits until none is.
    pub(crate) async fn idle(&self) {
        // The semaphore is never closed.
        let _ = self.total.acquire_many(self.max_total as u32).await;
    }
}
