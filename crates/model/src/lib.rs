//! The Kimi K2 forward pass.
