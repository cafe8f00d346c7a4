//! The binary `k2`.
fn main() {}
