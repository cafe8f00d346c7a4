//! What was used last stays: a map with a budget in bytes that forgets the longest unused first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values by text.
pub struct Cache<V> {
    entries: HashMap<String, Entry<V>>,
    /// Texts by the time of their last use.
    by_use: BTreeMap<u64, String>,
    clock: u64,
    bytes: usize,
    most: usize,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<V: Clone> Cache<V> {
    /// An empty cache for `most` bytes.
    pub fn new(most: usize) -> Cache<V> {
        Cache { entries: HashMap::new(), by_use: BTreeMap::new(), clock: 0, bytes: 0, most }
    }

    /// The value of a text.
    pub fn get(&mut self, text: &str) -> Option<V> {
        let entry = self.entries.get_mut(text)?;
        self.clock += 1;
        if let Some(text) = self.by_use.remove(&entry.used) {
            self.by_use.insert(self.clock, text);
        }
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Adds a value that takes so many bytes, and forgets others until it fits; larger ones are not kept.
    pub fn insert(&mut self, text: String, value: V, bytes: usize) {
        self.remove(&text);
        if bytes > self.most {
            return;
        }
        while self.bytes + bytes > self.most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.remove(&oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.by_use.insert(self.clock, text.clone());
        self.entries.insert(text, Entry { value, bytes, used: self.clock });
    }

    fn remove(&mut self, text: &str) {
        if let Some(entry) = self.entries.remove(text) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

/// The same for several threads: a value that some of them want at the same time is made once.
pub struct SharedCache<V> {
    cache: Mutex<Cache<V>>,
    /// Texts whose values are being made, each with a lock that is held meanwhile.
    making: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl<V: Clone> SharedCache<V> {
    /// An empty cache for `most` bytes.
    pub fn new(most: usize) -> SharedCache<V> {
        SharedCache { cache: Mutex::new(Cache::new(most)), making: Mutex::default() }
    }

    /// The value of a text, and whether this call has not made it. `make` gives a value and its bytes.
    pub fn get_or_make<E>(
        &self,
        text: &str,
        make: impl FnOnce() -> Result<(V, usize), E>,
    ) -> Result<(V, bool), E> {
        if let Some(value) = lock(&self.cache).get(text) {
            return Ok((value, true));
        }
        let turn = Arc::clone(lock(&self.making).entry(text.to_owned()).or_default());
        let _turn = lock(&turn);
        if let Some(value) = lock(&self.cache).get(text) {
            return Ok((value, true));
        }
        let made = make();
        if let Ok((value, bytes)) = &made {
            lock(&self.cache).insert(text.to_owned(), value.clone(), *bytes);
        }
        lock(&self.making).remove(text);
        made.map(|(value, _)| (value, false))
    }
}

/// Nothing of a cache is half done when a thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inserts and uses texts of 4 bytes in a cache of 10; which are there at the end?
    #[test]
    fn what_was_used_last_stays() {
        let check = |steps: &[&str], expected: &[&str]| {
            let mut cache = Cache::new(10);
            for step in steps {
                match step.strip_prefix('?') {
                    Some(text) => assert_eq!(cache.get(text), Some(text.len())),
                    None => cache.insert(step.to_string(), step.len(), step.len()),
                }
            }
            let mut kept: Vec<&str> = cache.entries.keys().map(String::as_str).collect();
            kept.sort_unstable();
            assert_eq!(kept, expected, "{steps:?}");
            assert_eq!(cache.bytes, kept.iter().map(|text| text.len()).sum::<usize>());
            assert_eq!(cache.by_use.len(), kept.len());
        };
        check(&["aaaa", "bbbb"], &["aaaa", "bbbb"]);
        check(&["aaaa", "bbbb", "cccc"], &["bbbb", "cccc"]);
        check(&["aaaa", "bbbb", "?aaaa", "cccc"], &["aaaa", "cccc"]);
        check(&["aaaa", "aaaa", "bb"], &["aaaa", "bb"]);
        check(&["aaaa", "bbbb", "cccccccccc"], &["cccccccccc"]);
        check(&["aaaa", "ccccccccccc"], &["aaaa"]);
    }

    #[test]
    fn what_several_want_at_once_is_made_once() {
        let (cache, made) = (SharedCache::new(100), Mutex::new(0));
        let make = || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            *lock(&made) += 1;
            Ok::<_, ()>((7, 1))
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| cache.get_or_make("text", make))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(found.iter().filter(|found| **found == Ok((7, false))).count(), 1, "{found:?}");
        assert!(found.iter().all(|found| matches!(found, Ok((7, _)))) && *lock(&made) == 1);
        // What cannot be made is tried again by the next.
        assert_eq!(cache.get_or_make("other", || Err::<(i32, usize), _>("no")), Err("no"));
        assert_eq!(cache.get_or_make("other", || Ok::<_, &str>((8, 1))), Ok((8, false)));
        assert!(lock(&cache.making).is_empty());
    }
}
