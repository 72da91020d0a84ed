//! Which processors threads run on.

use std::io;

/// CPUs this process may run on, in ascending order.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = empty();
    // SAFETY: `set` is writable for the given size during the call.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is below the capacity of the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Keeps the calling thread on `cpus`. Without any, or if the kernel refuses, it stays where it is.
pub(super) fn stay_on(cpus: &[usize]) {
    let mut set = empty();
    for &cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index is below the capacity of the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is readable for the given size during the call, which refuses an empty one.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_what_it_is_given_and_moves_freely_without() {
        let all = allowed().unwrap();
        let last = all[all.len() - 1..].to_vec();
        let seen = std::thread::spawn(move || {
            stay_on(&last);
            stay_on(&[]);
            (allowed().unwrap(), last)
        });
        let (seen, last) = seen.join().unwrap();
        assert_eq!((seen, allowed().unwrap()), (last, all));
    }
}
