//! Integration tests of the crate: golden files, properties, and small cases of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod answers;
mod errors;
mod fixtures;
mod gguf;
mod golden_chat;
mod golden_tokenizer;
mod golden_tool_calls;
mod grammar;
mod histories;
mod json;
mod mfjs;
mod pieces;
mod prompts;
mod properties;
mod small;
mod templates;
mod tokens;
mod turns;
