//! Work in which a bug must cost one request and not the engine.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does the work; if it panics, what it said. The caller uses nothing again that the work may have left half changed.
pub(crate) fn caught<T>(place: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(place, panic.as_ref()))
}

fn message(place: &str, panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("internal error in the {place}: {said}")
}
