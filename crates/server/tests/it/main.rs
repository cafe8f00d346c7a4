//! Tests of the server from outside: HTTP in, HTTP out, with a small model behind it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod access;
mod completions;
mod cut_calls;
mod fixtures;
mod metrics;
mod refusals;
mod sampling;
mod sockets;
mod streams;
mod tools;
