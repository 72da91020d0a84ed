//! The machine on which something ran, as far as it explains the figures.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::thread;

/// What the kernel says about the machine; empty or 0 where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    /// Cores that this program may use.
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    /// Type of the file system that holds the broker's data, when the broker was started here.
    pub filesystem: Option<String>,
}

impl Machine {
    /// This machine. `data`: where the broker's data are.
    pub fn here(data: Option<&Path>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: value_of(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_mib(&read("/proc/meminfo")).unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: data.and_then(|path| filesystem(&read("/proc/self/mountinfo"), path)),
        }
    }
}

/// The value of the first line `name : value`.
fn value_of(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value)
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib: u64 = value_of(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

/// The type of the file system that `path` is on (proc_pid_mountinfo(5)): the longest mount point above it, and of
/// several the last, which hides the others.
fn filesystem(mountinfo: &str, path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        let kind = after.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), kind))
    };
    mountinfo.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_a_kernel() {
        let here = Machine::here(Some(Path::new("/proc")));
        assert!(here.cores > 0 && here.memory_mib > 0 && !here.kernel.is_empty(), "{here:?}");
        assert_eq!(here.filesystem.as_deref(), Some("proc"));
    }

    #[test]
    fn the_longest_mount_point_decides_and_of_equal_ones_the_last() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                      2 1 8:2 / /data\\040of rw shared:1 - ext4 /dev/b rw\n\
                      3 2 8:3 / /data\\040of rw - xfs /dev/c rw\n";
        assert_eq!(filesystem(mounts, Path::new("/data of/x")).as_deref(), Some("xfs"));
        assert_eq!(filesystem(mounts, Path::new("/data")).as_deref(), Some("ext4"));
    }
}
