//! The body of a request to `/v1/responses`.
#![no_main]

mod post;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| post::post("/v1/responses", data));
