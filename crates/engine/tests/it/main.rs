//! Tests of the engine from outside: what a server or a command line does with it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod company;
mod engine;
mod errors;
mod fixtures;
mod grammar;
mod prefix_store;
mod sampler;
