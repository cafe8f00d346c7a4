//! Rows of a shared buffer: each to one task.

use k2_kernels::Pool;
use k2_kernels::pool::SharedRows;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn tasks_fill_their_own_rows() {
    let (pool, mut buffer) = (Pool::new(3), vec![0.0; 101 * 7]);
    let rows = SharedRows::new(&mut buffer, 7);
    pool.run(34, |task| {
        let count = 3.min(101 - 3 * task);
        rows.with_rows(3 * task, count, |row| row.fill(task as f32));
    });
    drop(rows);
    assert!(buffer.iter().enumerate().all(|(i, number)| *number == (i / 7 / 3) as f32));
}

#[test]
fn a_row_is_not_given_twice() {
    let mut buffer = vec![0.0; 12];
    let rows = SharedRows::new(&mut buffer, 3);
    rows.with_rows(1, 2, |_| {});
    for (first, count) in [(1, 1), (2, 2), (0, 2), (3, 2)] {
        let asked = catch_unwind(AssertUnwindSafe(|| rows.with_rows(first, count, |_| {})));
        assert!(asked.is_err(), "{count} rows from {first} on");
    }
}
