//! What the broker needs of the machine, checked before anything else so that the answer is one clear line.

use crate::partition::map::page_bytes;
use crate::rt::executor::LOCKED_BYTES_PER_EXECUTOR;
use std::io;

/// Kernels in which io_uring timers do not fire reliably: from the first to below the second.
const BROKEN_TIMERS: ((u32, u32, u32), (u32, u32, u32)) = ((6, 15, 0), (6, 15, 5));
/// The oldest kernel with everything that is used (`IORING_FEAT_EXT_ARG`, `MADV_POPULATE_READ`).
const OLDEST_KERNEL: (u32, u32, u32) = (5, 14, 0);

/// Tells why the broker cannot run here with `cores` executors, if it cannot.
pub fn check(cores: usize) -> Result<(), String> {
    check_kernel(&read("/proc/sys/kernel/osrelease")?)?;
    check_io_uring(read("/proc/sys/kernel/io_uring_disabled").unwrap_or_default().trim())?;
    check_mincore()?;
    check_locked_memory(
        cores,
        locked_memory_limit().map_err(|e| format!("RLIMIT_MEMLOCK cannot be read: {e}"))?,
    )
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{path} cannot be read: {e}"))
}

fn check_kernel(release: &str) -> Result<(), String> {
    let Some(version) = version_of(release) else {
        return Err(format!("the kernel release {:?} is not understood", release.trim()));
    };
    let (a, b, c) = version;
    if version < OLDEST_KERNEL {
        return Err(format!("Linux {a}.{b}.{c} is too old: nistru needs 5.14 or newer"));
    }
    if (BROKEN_TIMERS.0..BROKEN_TIMERS.1).contains(&version) {
        return Err(format!(
            "Linux {a}.{b}.{c} has a defect in io_uring timers (6.15.0 to 6.15.4): update the kernel"
        ));
    }
    Ok(())
}

fn version_of(release: &str) -> Option<(u32, u32, u32)> {
    let numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let mut numbers = numbers.take(3).map(Option::unwrap_or_default);
    Some((numbers.next().filter(|&major| major > 0)?, numbers.next()?, numbers.next().unwrap_or(0)))
}

/// `kernel.io_uring_disabled`: 0 all may use it, 1 only members of a group and root, 2 nobody.
fn check_io_uring(disabled: &str) -> Result<(), String> {
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    match disabled {
        "2" => Err("io_uring is switched off: set the sysctl kernel.io_uring_disabled to 0".into()),
        "1" if !root && !in_io_uring_group() => Err(
            "io_uring is restricted: set the sysctl kernel.io_uring_disabled to 0, or kernel.io_uring_group to a group of this user".into(),
        ),
        _ => Ok(()),
    }
}

fn in_io_uring_group() -> bool {
    let group = std::fs::read_to_string("/proc/sys/kernel/io_uring_group")
        .ok()
        .and_then(|s| s.trim().parse::<i64>().ok());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    // SAFETY: getegid has no preconditions.
    let own = i64::from(unsafe { libc::getegid() });
    group.is_some_and(|group| group == own || groups.split_whitespace().any(|g| g.parse() == Ok(group)))
}

fn check_locked_memory(cores: usize, limit: u64) -> Result<(), String> {
    let needed = cores as u64 * LOCKED_BYTES_PER_EXECUTOR;
    if needed <= limit {
        return Ok(());
    }
    Err(format!(
        "{cores} cores need {} KiB of locked memory, and the limit is {} KiB: raise `ulimit -l` (LimitMEMLOCK= in the unit) or lower `cores`",
        needed >> 10,
        limit >> 10
    ))
}

fn locked_memory_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable during the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads of segments ask which pages are in memory; where a sandbox forbids the question, every page would count as cold.
fn check_mincore() -> Result<(), String> {
    let page = page_bytes();
    let memory = vec![0u8; 2 * page];
    let start = memory.as_ptr().align_offset(page);
    let mut resident = 0u8;
    // SAFETY: a whole page from its start on lies within `memory`, and `resident` has the one byte for it.
    match unsafe { libc::mincore(memory.as_ptr().add(start).cast_mut().cast(), page, &mut resident) } {
        0 => Ok(()),
        _ => Err(format!("the system call mincore is not allowed here: {}", io::Error::last_os_error())),
    }
}

/// Raises the soft limit on open files to the hard one: every connection is one.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for both calls. A failure leaves the limit as it is, which is safe.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Lets no page of this process be a huge one. The allocator asks for them, and of 2 MiB that one small block touches an idle broker
/// uses little: half of its memory were such pages.
pub fn forbid_huge_pages() {
    // SAFETY: the call takes numbers only. When it is refused, memory is taken as before.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_are_too_old_or_defective_are_named() {
        assert!(check_kernel("6.18.44-fc\n").is_ok());
        assert!(check_kernel("5.14.0-570.el9").is_ok());
        assert!(check_kernel("5.10.0-30-amd64").unwrap_err().contains("5.10.0 is too old"));
        assert!(check_kernel("6.15.3").unwrap_err().contains("defect"));
        assert!(check_kernel("6.15.5").is_ok());
        assert!(check_kernel("6.15").unwrap_err().contains("defect"));
        assert!(check_kernel("generic").is_err());
    }

    #[test]
    fn too_little_locked_memory_says_how_much_is_needed() {
        assert!(check_locked_memory(16, 8 << 20).is_ok());
        let error = check_locked_memory(2, 64 << 10).unwrap_err();
        assert!(error.contains("1024 KiB") && error.contains("64 KiB"), "{error}");
    }

    #[test]
    fn this_machine_tells_which_pages_are_in_memory() {
        assert_eq!(check_mincore(), Ok(()));
    }

    #[test]
    fn a_kernel_without_io_uring_is_named() {
        assert!(check_io_uring("0").is_ok());
        assert!(check_io_uring("2").unwrap_err().contains("io_uring_disabled"));
    }
}
