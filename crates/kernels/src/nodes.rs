//! Which processors are near which memory (NUMA), so that threads stay near the weights that they read.
//!
//! On a machine of several nodes a thread reads another node's memory at a fraction of the speed of its own. The system
//! puts a page on the node of the thread that touches it first (Linux, Documentation/admin-guide/mm/numa_memory_policy.rst),
//! so it is enough that the same threads always work on the same rows: [`crate::Pool`] gives each node's threads the
//! same share of the rows of every matrix and every expert, and binds them to their node. Neither copies nor interleaves
//! weights: K2 has room for one copy.
//!
//! `K2_NODES=N` pretends that there are N nodes and binds nothing; 1 switches all of it off.

use std::path::Path;
use std::sync::OnceLock;

/// The nodes that this process may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Processors of each node; empty where nodes are pretended.
    processors: Vec<Vec<usize>>,
}

/// `K2_NODES` is no number of nodes.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("K2_NODES={found} is no number of nodes; 1 to {MOST} can be pretended")]
pub struct NodesError {
    found: String,
}

/// Most nodes that can be pretended.
const MOST: usize = 64;

impl Nodes {
    /// Those of this machine, or what `K2_NODES` says; a wrong value counts as 1 ([`check_environment`] reports it).
    pub fn of_this_machine() -> &'static Nodes {
        static FOUND: OnceLock<Nodes> = OnceLock::new();
        FOUND.get_or_init(|| check_environment().unwrap_or_else(|_| Nodes::pretended(1)))
    }

    /// So many nodes, to which nothing is bound.
    pub fn pretended(count: usize) -> Nodes {
        Nodes { processors: vec![Vec::new(); count.clamp(1, MOST)] }
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.processors.len()
    }

    /// Keeps the calling thread, and threads that it starts, on a node. A refusal changes nothing but speed.
    pub(crate) fn bind(&self, node: usize) {
        if let Some(processors) = self.processors.get(node).filter(|processors| !processors.is_empty()) {
            bind_to(processors);
        }
    }
}

/// Checks `K2_NODES`. The binary calls this first, so that a wrong value ends in an error message.
pub fn check_environment() -> Result<Nodes, NodesError> {
    choose(std::env::var_os("K2_NODES").map(|count| count.to_string_lossy().into_owned()).as_deref())
}

fn choose(wanted: Option<&str>) -> Result<Nodes, NodesError> {
    let Some(wanted) = wanted else { return Ok(found()) };
    match wanted.parse() {
        Ok(count @ 1..=MOST) => Ok(Nodes::pretended(count)),
        _ => Err(NodesError { found: wanted.to_owned() }),
    }
}

fn found() -> Nodes {
    found_in(Path::new("/sys/devices/system/node"), &allowed_processors())
}

/// What the system says of its nodes; one where it says nothing.
fn found_in(folder: &Path, allowed: &[usize]) -> Nodes {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok().and_then(|text| numbers(&text));
    let mut processors: Vec<Vec<usize>> = Vec::new();
    for node in read("online").unwrap_or_default() {
        let of_node = read(&format!("node{node}/cpulist")).unwrap_or_default();
        let usable: Vec<usize> = of_node.into_iter().filter(|cpu| allowed.contains(cpu)).collect();
        if !usable.is_empty() {
            processors.push(usable);
        }
    }
    if processors.len() < 2 { Nodes::pretended(1) } else { Nodes { processors } }
}

/// `0-3,8`: the form of lists under `/sys`.
fn numbers(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last.min(first + 65_535));
    }
    Some(all)
}

#[cfg(target_os = "linux")]
fn allowed_processors() -> Vec<usize> {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the size is that of the set, which the call fills.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: the numbers are below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

#[cfg(target_os = "linux")]
fn bind_to(processors: &[usize]) {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in processors.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the size is that of the set, which is only read.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
}

#[cfg(not(target_os = "linux"))]
fn allowed_processors() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn bind_to(_: &[usize]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(numbers("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(numbers("5"), Some(vec![5]));
        assert_eq!(numbers("\n"), Some(vec![]));
        for wrong in ["a", "1-", "-1", "1-2-3"] {
            assert_eq!(numbers(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_environment_pretends_or_is_refused() {
        assert_eq!(choose(Some("4")), Ok(Nodes::pretended(4)));
        for wrong in ["0", "65", "two", ""] {
            let error = choose(Some(wrong)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("K2_NODES={wrong} is no number of nodes")), "{error}");
        }
        assert!(choose(None).unwrap().count() >= 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_bound_thread_keeps_to_its_node() {
        let node = vec![*allowed_processors().last().unwrap()];
        let nodes = Nodes { processors: vec![Vec::new(), node.clone()] };
        let bound = std::thread::spawn(move || {
            nodes.bind(0); // pretended
            let before = allowed_processors();
            nodes.bind(1);
            (before, allowed_processors())
        });
        assert_eq!(bound.join().unwrap(), (allowed_processors(), node));
    }

    #[test]
    fn nodes_are_those_with_processors_that_may_be_used() {
        let folder = std::env::temp_dir().join(format!("k2-nodes-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("online", "0-3\n");
        write("node0/cpulist", "0-1,4\n");
        write("node1/cpulist", "2-3,5\n");
        write("node2/cpulist", "\n"); // memory alone
        write("node3/cpulist", "6-7\n");
        let found = |allowed: &[usize]| found_in(&folder, allowed).processors;
        assert_eq!(found(&[0, 1, 2, 3, 4]), [vec![0, 1, 4], vec![2, 3]]);
        assert_eq!(found(&[0, 1]), [Vec::<usize>::new()], "one node is none");
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found(&[0, 1, 2, 3]), [Vec::<usize>::new()], "nothing is said");
    }
}
