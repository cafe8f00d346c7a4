//! A file of the prefix store: header, sizes, checksum.
#![no_main]

use k2_engine::prefix_store::file::{HEADER_BYTES, check_any};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(rows) = check_any(data) {
        assert_eq!(rows.len(), data.len() - HEADER_BYTES);
    }
});
