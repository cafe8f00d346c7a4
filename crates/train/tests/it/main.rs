//! The trainer's tests: against values computed by other implementations, and against itself.

mod copy_task;
mod export;
mod finite_differences;
mod fixtures;
mod models;
mod optimizer;
mod tiny_grad;
mod trainer;
