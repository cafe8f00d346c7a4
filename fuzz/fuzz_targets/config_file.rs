//! A file of options for `k2 serve`.
#![no_main]

use k2_server::{Takes, parse_config};
use libfuzzer_sys::fuzz_target;

const KNOWN: [(&str, Takes); 4] = [
    ("model", Takes::Value),
    ("port", Takes::Value),
    ("insecure", Takes::Nothing),
    ("allowed-host", Takes::List),
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for option in parse_config(text, &KNOWN).into_iter().flatten() {
        let takes = KNOWN.iter().find(|(name, _)| *name == option.name).map(|(_, takes)| *takes);
        match takes.expect("a known option") {
            Takes::Nothing => assert!(option.values.is_empty()),
            Takes::Value => assert_eq!(option.values.len(), 1),
            Takes::List => assert!(!option.values.is_empty()),
        }
    }
});
