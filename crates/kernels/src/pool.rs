//! A pool of threads for fork-join loops.
//!
//! [`Pool::run`] hands out task numbers until none is left; the caller works too. Each thread begins with a run of
//! neighbouring tasks of its own, which read neighbouring memory, and then takes what others have left. A forward pass has
//! hundreds of such loops per token, so workers spin briefly before they park, and a loop never waits
//! for a worker that has not begun: one that the operating system has put aside costs nothing.
//! Which thread runs a task never matters to its result.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// How often a waiting thread looks before it parks or yields; some tens of microseconds.
const SPINS: usize = 2000;

/// Set in `state` while tasks of the current loop may be begun. The low half counts workers inside.
const OPEN: u64 = 1 << 32;

/// One more loop has been opened.
const EPOCH: u64 = 1 << 33;

/// A fixed set of threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    running: Mutex<()>,
}

struct Shared {
    /// Epoch, [`OPEN`] and the number of workers inside the current loop.
    state: AtomicU64,
    /// The current loop; only read by a thread that is counted inside it.
    job: AtomicPtr<Job<'static>>,
    /// For each thread the next task of its own run; set before a loop opens.
    next: Vec<Counter>,
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
}

/// On a cache line of its own, so that threads do not wait for each other's.
#[repr(align(64))]
struct Counter(AtomicUsize);

struct Job<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: &'a [Counter],
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

thread_local! {
    /// Whether this thread is inside a task; a loop begun there runs on this thread alone.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`Pool::run`] being one of them.
    pub fn new(threads: usize) -> Pool {
        let workers = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            next: (0..=workers).map(|_| Counter(AtomicUsize::new(0))).collect(),
            parked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
        });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work(index))
        };
        Pool { workers: (0..workers).map(spawn).collect(), shared, running: Mutex::new(()) }
    }

    /// A pool with one thread for each processor.
    pub fn for_this_machine() -> Pool {
        Pool::new(thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// How many threads share the work.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(0)` to `body(tasks - 1)`, each once, on all threads; returns when all are done.
    /// A panic in a task is raised again here once no task is running.
    pub fn run(&self, tasks: usize, body: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() || INSIDE.get() {
            return (0..tasks).for_each(body);
        }
        let _one_at_a_time = lock(&self.running);
        let job = Job { body: &body, tasks, next: &self.shared.next, panic: Mutex::new(None) };
        for (thread, counter) in job.next.iter().enumerate() {
            counter.0.store(job.first_task(thread), SeqCst);
        }
        self.open(&job);
        job.work(self.workers.len());
        self.close();
        if let Some(payload) = lock(&job.panic).take() {
            resume_unwind(payload);
        }
    }

    fn open(&self, job: &Job<'_>) {
        self.shared.job.store(std::ptr::from_ref(job).cast_mut().cast(), SeqCst);
        self.shared.state.fetch_add(EPOCH | OPEN, SeqCst);
        for (parked, worker) in self.shared.parked.iter().zip(&self.workers) {
            if parked.swap(false, SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    /// Lets no further worker in and waits for those inside.
    fn close(&self) {
        let mut waited = 0;
        self.shared.state.fetch_and(!OPEN, SeqCst);
        while self.shared.state.load(SeqCst) & (OPEN - 1) != 0 {
            waited += 1;
            if waited < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panics were handed to the caller of `run`; there is nothing left to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        while !self.stop.load(SeqCst) {
            let state = self.state.load(SeqCst);
            if state & OPEN == 0 || state / EPOCH == seen {
                self.wait(index, seen);
            } else if self.state.compare_exchange(state, state + 1, SeqCst, SeqCst).is_ok() {
                seen = state / EPOCH;
                // SAFETY: counted inside an open loop, whose caller keeps the job alive until the
                // count is back at zero (`close`); the pointer was stored before the loop opened.
                unsafe { &*self.job.load(SeqCst) }.work(index);
                self.state.fetch_sub(1, SeqCst);
            }
        }
    }

    /// Returns soon after a loop other than `seen` has opened; spins first, then parks.
    fn wait(&self, index: usize, seen: u64) {
        let idle = || {
            let state = self.state.load(SeqCst);
            (state & OPEN == 0 || state / EPOCH == seen) && !self.stop.load(SeqCst)
        };
        for _ in 0..SPINS {
            if !idle() {
                return;
            }
            std::hint::spin_loop();
        }
        self.parked[index].store(true, SeqCst);
        while idle() && self.parked[index].load(SeqCst) {
            thread::park();
        }
        self.parked[index].store(false, SeqCst);
    }
}

impl Job<'_> {
    /// The tasks of a thread, then those that others have not begun.
    fn work(&self, thread: usize) {
        INSIDE.set(true);
        let threads = self.next.len();
        (thread..threads).chain(0..thread).for_each(|owner| self.take_all(owner));
        INSIDE.set(false);
    }

    fn take_all(&self, owner: usize) {
        let last = self.first_task(owner + 1);
        loop {
            let task = self.next[owner].0.fetch_add(1, SeqCst);
            if task >= last {
                break;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.body)(task))) {
                lock(&self.panic).get_or_insert(payload);
                self.next.iter().for_each(|next| next.0.store(self.tasks, SeqCst));
            }
        }
    }

    /// Where the run of a thread begins; that of the one behind the last is the number of tasks.
    fn first_task(&self, thread: usize) -> usize {
        let (share, rest) = (self.tasks / self.next.len(), self.tasks % self.next.len());
        share * thread + rest.min(thread)
    }
}

/// Locks; a poisoned lock guards nothing that a panic could leave half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice whose elements several tasks write, each its own.
pub(crate) struct Disjoint<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: all access goes through `slice`, whose caller promises that ranges do not overlap.
unsafe impl<T: Send> Sync for Disjoint<T> {}

impl<T> Disjoint<T> {
    pub(crate) fn new(slice: &mut [T]) -> Disjoint<T> {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// The `len` elements from `first` on.
    ///
    /// # Safety
    /// No two calls whose results are alive at the same time may overlap, and the slice that this
    /// was made from must outlive the result.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first <= self.len && len <= self.len - first, "{first}+{len} of {}", self.len);
        // SAFETY: inside the slice by the assertion, unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

/// A buffer of rows that tasks fill, each row by one task.
pub struct SharedRows<'a> {
    rows: Disjoint<f32>,
    taken: Vec<AtomicBool>,
    width: usize,
    _buffer: std::marker::PhantomData<&'a mut [f32]>,
}

impl<'a> SharedRows<'a> {
    /// Shares out `buffer` as rows of `width` numbers.
    pub fn new(buffer: &'a mut [f32], width: usize) -> SharedRows<'a> {
        let taken = (0..buffer.len() / width).map(|_| AtomicBool::new(false)).collect();
        SharedRows { rows: Disjoint::new(buffer), taken, width, _buffer: std::marker::PhantomData }
    }

    /// Calls `fill` with `count` rows from `first` on. Panics if a row is asked for a second time.
    pub fn with_rows(&self, first: usize, count: usize, fill: impl FnOnce(&mut [f32])) {
        for taken in &self.taken[first..first + count] {
            assert!(!taken.swap(true, SeqCst), "a row of a shared buffer was asked for twice");
        }
        // SAFETY: each row is handed out at most once, as just asserted; the buffer is borrowed.
        fill(unsafe { self.rows.slice(first * self.width, count * self.width) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |task| {
                    counts[task].fetch_add(1, SeqCst);
                });
                assert!(counts.iter().all(|n| n.load(SeqCst) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn a_loop_inside_a_task_runs_on_its_thread() {
        let (pool, count) = (Pool::new(3), AtomicUsize::new(0));
        pool.run(4, |_| {
            pool.run(5, |_| {
                count.fetch_add(1, SeqCst);
            })
        });
        assert_eq!(count.load(SeqCst), 20);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let panicked = catch_unwind(AssertUnwindSafe(|| pool.run(50, |task| assert_ne!(task, 17))));
        assert!(panicked.is_err());
        let count = AtomicUsize::new(0);
        pool.run(50, |_| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(count.load(SeqCst), 50);
    }
}
