//! `tiktoken.model`: the rank file.
#![no_main]

use k2_chat::tiktoken;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(vocabulary) = tiktoken::parse(data) {
        for id in 0..vocabulary.len() {
            let bytes = vocabulary.bytes(id).expect("every rank has its token");
            assert_eq!(vocabulary.id(bytes), Some(id));
        }
    }
});
