//! What was used last stays: a map with a budget in bytes that forgets the longest unused first.

use std::collections::{BTreeMap, HashMap};

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
}
