//! A pool of threads for fork-join loops.
//!
//! [`Pool::run`] hands out task numbers until none is left; the caller works too. Each thread begins with a run of
//! neighbouring tasks of its own, which read neighbouring memory, and then takes what others have left. A forward pass has
//! hundreds of such loops per token, so workers spin briefly before they park, and a loop never waits
//! for a worker that has not begun: one that the operating system has put aside costs nothing.
//! Which thread runs a task never matters to its result.
//!
//! On a machine of several [`Nodes`] the threads of a node have the same part of each matrix whenever it is worked on
//! ([`Pool::run_parts`]), and take from each other before they take from another node.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::nodes::Nodes;

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
    /// For each thread what is left of its own run; set before a loop opens.
    runs: Vec<Run>,
    nodes: Nodes,
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
}

/// The next of a thread's tasks and their end; on a cache line of its own, so that threads do not wait for each other's.
#[derive(Default)]
#[repr(align(64))]
struct Run {
    next: AtomicUsize,
    end: AtomicUsize,
}

struct Job<'a> {
    body: &'a (dyn Fn(usize, usize) + Sync),
    order: Order<'a>,
    runs: &'a [Run],
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

thread_local! {
    /// Whether this thread is inside a task; a loop begun there runs on this thread alone.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`Pool::run`] being one of them.
    pub fn new(threads: usize) -> Pool {
        Pool::on(Nodes::of_this_machine(), threads)
    }

    /// The same on these nodes, of which each thread keeps to one; the caller too once it has asked to
    /// ([`Pool::keep_caller`]).
    pub fn on(nodes: &Nodes, threads: usize) -> Pool {
        let workers = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            runs: (0..=workers).map(|_| Run::default()).collect(),
            nodes: nodes.clone(),
            parked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
        });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            let node = node(index, workers + 1, shared.nodes.count());
            thread::spawn(move || shared.work(index, node))
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

    /// Binds the calling thread, and those that it starts from now on, to the node whose rows are its own in [`Pool::run`]. For
    /// a thread that does nothing else.
    pub fn keep_caller(&self) {
        let nodes = &self.shared.nodes;
        nodes.bind(node(self.workers.len(), self.threads(), nodes.count()));
    }

    /// Calls `body(0)` to `body(tasks - 1)`, each once, on all threads; returns when all are done.
    /// A panic in a task is raised again here once no task is running.
    pub fn run(&self, tasks: usize, body: impl Fn(usize) + Sync) {
        self.run_parts(Parts::Alike { matrices: 1, parts: tasks }, |_, task| body(task));
    }

    /// Calls `body(matrix, part)` for every part of every matrix, as [`Pool::run`] does. Parts are counted from a
    /// matrix's first row to its last; the same share of each matrix belongs to the same node.
    pub fn run_parts(&self, parts: Parts<'_>, body: impl Fn(usize, usize) + Sync) {
        let threads = self.threads();
        let nodes = self.shared.nodes.count().min(threads);
        self.run_in(Order { parts, threads, nodes }, &body);
    }

    fn run_in(&self, order: Order<'_>, body: &(dyn Fn(usize, usize) + Sync)) {
        let tasks = order.tasks();
        if tasks <= 1 || self.workers.is_empty() || INSIDE.get() {
            return (0..tasks).map(|task| order.at(task)).for_each(|(matrix, part)| body(matrix, part));
        }
        let _one_at_a_time = lock(&self.running);
        let job = Job { body, order, runs: &self.shared.runs, panic: Mutex::new(None) };
        for (thread, run) in job.runs.iter().enumerate() {
            let tasks = job.order.run(thread);
            run.next.store(tasks.start, SeqCst);
            run.end.store(tasks.end, SeqCst);
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
    fn work(&self, index: usize, node: usize) {
        self.nodes.bind(node);
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
    /// The tasks of a thread, then those that others have not begun, first those of its node.
    fn work(&self, thread: usize) {
        INSIDE.set(true);
        let (first, end) = self.order.neighbours(thread);
        let threads = self.runs.len();
        (thread..end).chain(first..thread).for_each(|owner| self.take_all(owner));
        (end..threads).chain(0..first).for_each(|owner| self.take_all(owner));
        INSIDE.set(false);
    }

    fn take_all(&self, owner: usize) {
        let Run { next, end } = &self.runs[owner];
        loop {
            let task = next.fetch_add(1, SeqCst);
            if task >= end.load(SeqCst) {
                break;
            }
            let (matrix, part) = self.order.at(task);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (self.body)(matrix, part))) {
                lock(&self.panic).get_or_insert(payload);
                self.runs.iter().for_each(|run| run.next.store(self.order.tasks(), SeqCst));
            }
        }
    }
}

/// Into how many parts matrices are cut.
#[derive(Clone, Copy, Debug)]
pub enum Parts<'a> {
    /// Each into a number of its own.
    Each(&'a [usize]),
    /// All into the same number.
    Alike {
        /// How many matrices.
        matrices: usize,
        /// How many parts of each.
        parts: usize,
    },
}

/// The order of a loop's tasks: node after node; of a node its share of every matrix; each thread has a run of it.
struct Order<'a> {
    parts: Parts<'a>,
    threads: usize,
    nodes: usize,
}

impl Order<'_> {
    fn tasks(&self) -> usize {
        self.before(self.nodes)
    }

    /// The first thread of a node; of the one behind the last, the number of threads.
    fn first_thread(&self, node: usize) -> usize {
        (node * self.threads).div_ceil(self.nodes)
    }

    /// The threads of a thread's node: the first, and the one behind the last.
    fn neighbours(&self, thread: usize) -> (usize, usize) {
        let node = node(thread, self.threads, self.nodes);
        (self.first_thread(node), self.first_thread(node + 1))
    }

    /// Parts of one matrix, of so many, that belong to earlier nodes: each thread has as many.
    fn cut(&self, parts: usize, node: usize) -> usize {
        parts * self.first_thread(node) / self.threads
    }

    /// Tasks of earlier nodes.
    fn before(&self, node: usize) -> usize {
        match self.parts {
            Parts::Each(parts) => parts.iter().map(|parts| self.cut(*parts, node)).sum(),
            Parts::Alike { matrices, parts } => matrices * self.cut(parts, node),
        }
    }

    /// The matrix and the part of a task.
    fn at(&self, task: usize) -> (usize, usize) {
        let node = (1..self.nodes).find(|node| task < self.before(*node)).unwrap_or(self.nodes) - 1;
        let mut left = task - self.before(node);
        let here = |parts| self.cut(parts, node)..self.cut(parts, node + 1);
        match self.parts {
            Parts::Alike { parts, .. } => {
                (left / here(parts).len(), here(parts).start + left % here(parts).len())
            }
            Parts::Each(parts) => {
                let mut matrix = 0;
                while left >= here(parts[matrix]).len() {
                    left -= here(parts[matrix]).len();
                    matrix += 1;
                }
                (matrix, here(parts[matrix]).start + left)
            }
        }
    }

    /// The tasks that a thread begins with.
    fn run(&self, thread: usize) -> std::ops::Range<usize> {
        let node = node(thread, self.threads, self.nodes);
        let (first, end) = self.neighbours(thread);
        let threads = end - first;
        let (start, end) = (self.before(node), self.before(node + 1));
        let (share, rest) = ((end - start) / threads, (end - start) % threads);
        let begin = |thread: usize| start + share * thread + rest.min(thread);
        begin(thread - first)..begin(thread - first + 1)
    }
}

/// The node of a thread; neighbours share one, the caller of the loop is the last thread.
fn node(thread: usize, threads: usize, nodes: usize) -> usize {
    thread * nodes.min(threads) / threads
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

    const PARTS: [Parts<'_>; 5] = [
        Parts::Alike { matrices: 1, parts: 1000 },
        Parts::Alike { matrices: 9, parts: 7 },
        Parts::Alike { matrices: 384, parts: 1 },
        Parts::Each(&[5, 0, 31, 2]),
        Parts::Each(&[]),
    ];

    fn parts(parts: Parts<'_>, matrix: usize) -> usize {
        match parts {
            Parts::Each(parts) => parts[matrix],
            Parts::Alike { parts, .. } => parts,
        }
    }

    #[test]
    fn a_node_has_the_same_share_of_every_matrix() {
        for (threads, nodes, cut) in [1, 2, 3, 8]
            .into_iter()
            .flat_map(|t| [1, 2, 3].map(|n| (t, n)))
            .flat_map(|(t, n)| PARTS.map(|p| (t, n, p)))
        {
            let order = Order { parts: cut, threads, nodes: nodes.min(threads) };
            let mut next = 0;
            for thread in 0..threads {
                let run = order.run(thread);
                assert_eq!(
                    run.start, next,
                    "runs follow each other: {threads} threads, {nodes} nodes, {cut:?}"
                );
                next = run.end;
                for (matrix, part) in run.map(|task| order.at(task)) {
                    let share = node(thread, threads, order.nodes);
                    let all = parts(cut, matrix);
                    assert!((order.cut(all, share)..order.cut(all, share + 1)).contains(&part));
                }
            }
            assert_eq!(next, order.tasks());
        }
    }

    #[test]
    fn each_part_runs_once_whatever_the_nodes() {
        for (threads, nodes) in [(1, 2), (2, 2), (4, 2), (5, 3), (3, 8)] {
            let pool = Pool::on(&Nodes::pretended(nodes), threads);
            for cut in PARTS {
                let counts: Vec<AtomicUsize> = (0..400_000).map(|_| AtomicUsize::new(0)).collect();
                pool.run_parts(cut, |matrix, part| {
                    counts[matrix * 1000 + part].fetch_add(1, SeqCst);
                });
                for (at, count) in counts.iter().enumerate() {
                    let matrices = match cut {
                        Parts::Each(parts) => parts.len(),
                        Parts::Alike { matrices, .. } => matrices,
                    };
                    let expected = at / 1000 < matrices && at % 1000 < parts(cut, at / 1000);
                    assert_eq!(
                        count.load(SeqCst),
                        usize::from(expected),
                        "{threads} threads, {nodes} nodes, {cut:?}"
                    );
                }
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
