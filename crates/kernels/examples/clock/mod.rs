//! A clock that a busy machine does not move: one thread is timed by what it has of a processor, where the system tells
//! (Linux), several by the wall.

use k2_kernels::Pool;
use std::time::{Duration, Instant};

/// How long to measure at least: the clock of one thread moves in steps of some milliseconds.
const LONG_ENOUGH: Duration = Duration::from_millis(150);

/// Seconds of one round of so many as take longer than the clock is coarse; each is told its number.
pub(crate) fn seconds_per_round(pool: &Pool, mut round: impl FnMut(usize)) -> f64 {
    let (clock, begin, mut rounds) = (Clock::start(pool), Instant::now(), 0);
    while begin.elapsed() < LONG_ENOUGH {
        round(rounds);
        rounds += 1;
    }
    clock.seconds() / rounds as f64
}

/// Measures one stretch of work.
struct Clock {
    start: Instant,
    on_processor: Option<f64>,
}

impl Clock {
    fn start(pool: &Pool) -> Clock {
        let on_processor = if pool.threads() == 1 { seconds_on_processor() } else { None };
        Clock { start: Instant::now(), on_processor }
    }

    fn seconds(&self) -> f64 {
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
