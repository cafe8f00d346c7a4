//! Integration tests of the crate: golden files, properties, and small cases of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod fixtures;
mod golden_chat;
mod golden_tokenizer;
mod golden_tool_calls;
