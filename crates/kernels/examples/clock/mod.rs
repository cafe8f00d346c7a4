//! A clock that a busy machine does not move: one thread is timed by what it has of a processor, where the system tells
//! (Linux), several by the wall.

use k2_kernels::Pool;
use std::time::Instant;

/// Measures one stretch of work.
pub(crate) struct Clock {
    start: Instant,
    on_processor: Option<f64>,
}

impl Clock {
    pub(crate) fn start(pool: &Pool) -> Clock {
        let on_processor = if pool.threads() == 1 { seconds_on_processor() } else { None };
        Clock { start: Instant::now(), on_processor }
    }

    pub(crate) fn seconds(&self) -> f64 {
        match (self.on_processor, seconds_on_processor()) {
            (Some(before), Some(now)) => now - before,
            _ => self.start.elapsed().as_secs_f64(),
        }
    }
}

/// What this thread has used so far.
fn seconds_on_processor() -> Option<f64> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(schedstat.split_whitespace().next()?.parse::<f64>().ok()? * 1e-9)
}
