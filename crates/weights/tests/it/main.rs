//! Tests of the `weights` crate as its users see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

mod fixtures;
