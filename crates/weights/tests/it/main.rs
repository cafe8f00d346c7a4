//! Tests of the `weights` crate as its users see it.

mod fixtures;
