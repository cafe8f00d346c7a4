//! Tests of the built `k2`: what a user types, and what comes out.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod bench;
mod doors;
mod errors;
mod fixtures;
mod inspect;
mod k2;
mod killed_server;
mod killed_training;
mod prefix_store;
mod run;
mod serve;
mod shipped;
mod talk;
mod train;
