//! A file of keys: `NAME: KEY` lines. No error says a key.
#![no_main]

use k2_server::Keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Err(error) = Keys::parse(data) else { return };
    let said = error.to_string();
    for line in String::from_utf8_lossy(data).lines() {
        let key = line.split_once([':', '=']).map_or("", |(_, key)| key.trim());
        // Shorter ones can stand in any message.
        assert!(key.len() < 100 || !said.contains(key), "{said}");
    }
});
