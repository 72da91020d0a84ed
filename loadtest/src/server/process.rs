//! What a process has used, and what was written to its disk (proc(5), the kernel's `Documentation/block/stat`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MIB: f64 = 1024.0 * 1024.0;
/// Sectors of `stat` files, whatever those of the device are.
const SECTOR_BYTES: u64 = 512;
/// Fields of a device's `stat`: sectors written is the seventh.
const SECTORS_WRITTEN: usize = 6;

/// Totals since the process, or the machine, began.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Over all threads, to the nanosecond.
    pub cpu_s: f64,
    /// Bytes that reached the device of the data directory, by whomever. Where the device is not known, what the process
    /// made dirty, which is more: the kernel counts whole folios.
    pub written_bytes: u64,
}

impl Reading {
    /// That of process `pid` with its data in `data`; `None` when there is none, or it may not be looked at.
    pub fn of(pid: u32, data: Option<&Path>) -> Option<Self> {
        let written = data.and_then(written_to_device).or_else(|| written_by(pid));
        Some(Self { cpu_s: cpu_s(pid)?, written_bytes: written? })
    }
}

/// The first field of `schedstat` is the time on a processor in nanoseconds.
fn cpu_s(pid: u32) -> Option<f64> {
    let mut ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end while it is looked at.
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).unwrap_or_default();
        ns += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
    }
    Some(ns as f64 / 1e9)
}

fn written_by(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

fn written_to_device(data: &Path) -> Option<u64> {
    let device = fs::metadata(data).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_ascii_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

/// Proportional set size: what is shared with other processes counts in part.
pub fn pss_mib(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_others_are_not_there() {
        let own = std::process::id();
        assert!(Reading::of(own, None).unwrap().cpu_s > 0.0 && pss_mib(own).unwrap() > 0.1);
        assert!(Reading::of(u32::MAX, None).is_none() && pss_mib(u32::MAX).is_none());
    }
}
