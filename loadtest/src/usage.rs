//! What a process has used, as the kernel tells.

use serde::{Deserialize, Serialize};
use std::fs;

/// Processor time is told in hundredths of a second to every program (USER_HZ, proc(5)).
const TICKS_PER_S: f64 = 100.0;

/// Processor time and memory of a process so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Usage {
    /// In user and kernel mode, over all threads.
    pub cpu_s: f64,
    /// Largest resident memory so far, in MiB.
    pub peak_mib: f64,
}

impl Usage {
    /// That of process `pid`; `None` when there is no such process.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self { cpu_s: cpu_s(&stat)?, peak_mib: peak_mib(&status)? })
    }

    /// What was used since `earlier`, and the peak now.
    pub fn since(self, earlier: Self) -> Self {
        Self { cpu_s: self.cpu_s - earlier.cpu_s, ..self }
    }
}

/// Fields 14 and 15 of `stat`; the second field, a name in brackets, may contain anything.
fn cpu_s(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

fn peak_mib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 5 1000 10";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(peak_mib("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2.0));
        assert_eq!((cpu_s(""), peak_mib("")), (None, None));
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(Usage::of(std::process::id()).unwrap().peak_mib > 0.0);
        assert!(Usage::of(u32::MAX).is_none());
    }
}
