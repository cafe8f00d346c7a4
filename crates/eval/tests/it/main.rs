//! Tests of the crate: a vendor that does everything right, and the ways in which one can be wrong.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod endpoint;
mod load;
mod requests;
mod smallest;
mod sse;
mod vendor;
mod verify;
mod walle;
