//! The trainer's tests: against values computed by other implementations, and against itself.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod bpe;
mod copy_task;
mod data;
mod dialogues;
mod evaluate;
mod export;
mod fine_tuning;
mod finite_differences;
mod fixtures;
mod models;
mod optimizer;
mod plot;
mod qk_clip;
mod recipe;
mod tiny_grad;
mod trainer;
mod whole_dialogues;
