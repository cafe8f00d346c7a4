//! How much memory is free: of the machine, and of what the control groups around this process let it have.
//!
//! A container has the `MemAvailable` of its whole host and may use a part of it. Words are those of proc(5) and of the
//! kernel's *Control Group v2*; the first version's files have other names.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Bytes that are free to be used; `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    available_in(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

fn available_in(proc: &Path, cgroup: &Path) -> Option<u64> {
    let of_machine = read_to_string(proc.join("meminfo")).ok().and_then(|text| {
        let kilobytes = field(&text, "MemAvailable:")?;
        kilobytes.checked_mul(1024)
    });
    let membership = read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let of_groups = membership.lines().flat_map(|line| groups(cgroup, line));
    of_groups.filter_map(|(folder, version)| version.room(&folder)).chain(of_machine).min()
}

/// The control groups that a line of `/proc/self/cgroup` (`id:controllers:path`) names and that limit memory: the path's
/// own and all around it. A container may see its own as the root, whatever the path says.
fn groups(cgroup: &Path, line: &str) -> Vec<(PathBuf, &'static Version)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (root, version) = match controllers {
        "" => (cgroup.to_owned(), &SECOND),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            (cgroup.join("memory"), &FIRST)
        }
        _ => return Vec::new(),
    };
    let own = Path::new(path.trim_start_matches('/'));
    own.ancestors().map(|folder| (root.join(folder), version)).collect()
}

/// What the files of a control group are called.
struct Version {
    limit: &'static str,
    used: &'static str,
    /// Of `memory.stat`: pages of files, which the kernel gives up when they are in the way, and those among them that it
    /// can not, as no file is behind them.
    file: &'static str,
    shmem: &'static str,
}

const FIRST: Version = Version {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    file: "total_cache ",
    shmem: "total_shmem ",
};

const SECOND: Version =
    Version { limit: "memory.max", used: "memory.current", file: "file ", shmem: "shmem " };

impl Version {
    /// What a group leaves; `None` without a limit.
    fn room(&self, folder: &Path) -> Option<u64> {
        let bytes = |name| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, used) = (bytes(self.limit)?, bytes(self.used)?);
        let stat = read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let of_stat = |name| field(&stat, name).unwrap_or(0);
        let freed = of_stat(self.file).saturating_sub(of_stat(self.shmem));
        Some(limit.saturating_sub(used.saturating_sub(freed)))
    }
}

/// The number behind `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MEMINFO: &str =
        "MemTotal:       64000000 kB\nMemFree:         1000000 kB\nMemAvailable:   40000000 kB\n";

    /// A tree of files, and what is free by it.
    fn check(name: &str, files: &[(&str, &str)], expected: Option<u64>) {
        let root = std::env::temp_dir().join(format!("k2-memory-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = available_in(&root.join("proc"), &root.join("cgroup"));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn what_is_free_is_the_least_of_machine_and_groups() {
        const OF_MACHINE: Option<u64> = Some(40_000_000 * 1024);
        let machine = ("proc/meminfo", MEMINFO);
        check("machine", &[machine], OF_MACHINE);
        check("nothing", &[("proc/other", "")], None);
        check("words", &[("proc/meminfo", "MemAvailable: many kB\n")], None);
        check(
            "no limit",
            &[
                machine,
                ("proc/self/cgroup", "0::/user\n"),
                ("cgroup/user/memory.max", "max\n"),
                ("cgroup/user/memory.current", "5000\n"),
            ],
            OF_MACHINE,
        );
        let inside = ("proc/self/cgroup", "0::/system/unit\n");
        let outer = ("cgroup/system/memory.max", "9000\n");
        let outer_used = ("cgroup/system/memory.current", "8500\n");
        check(
            "own group, without pages of files",
            &[
                machine,
                inside,
                ("cgroup/system/unit/memory.max", "1000000\n"),
                ("cgroup/system/unit/memory.current", "700000\n"),
                ("cgroup/system/unit/memory.stat", "anon 100\nfile 300000\nfile_mapped 7\nshmem 50000\n"),
            ],
            Some(1_000_000 - (700_000 - 250_000)),
        );
        check("a group around it", &[machine, inside, outer, outer_used], Some(500));
        check(
            "its own group as the root",
            &[machine, inside, ("cgroup/memory.max", "7\n"), ("cgroup/memory.current", "9\n")],
            Some(0),
        );
        check(
            "the first version",
            &[
                machine,
                ("proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/docker/b\n"),
                ("cgroup/memory/docker/b/memory.limit_in_bytes", "4096\n"),
                ("cgroup/memory/docker/b/memory.usage_in_bytes", "1024\n"),
                ("cgroup/memory/docker/b/memory.stat", "cache 1\ntotal_cache 24\ntotal_shmem 0\n"),
            ],
            Some(4096 - 1000),
        );
    }
}
