//! How the kernel sets up the rings of the executors.
//!
//! glommio 0.9 is older than `IORING_SETUP_COOP_TASKRUN` (Linux 5.19), without which the kernel interrupts the CPU of an executor
//! for each socket that becomes readable while it works: one executor took 22,000 single events a second from 64 producers with these
//! interrupts and 40,000 without. It makes system calls all the time, and then it learns of its sockets just as well. The linker puts [`set_up`] in the place of liburing's system call; `build.rs`
//! tells it to.

use std::ffi::{c_int, c_long, c_uint, c_void};

/// Complete what has happened when the executor enters the kernel by itself (`include/uapi/linux/io_uring.h`).
const COOP_TASKRUN: u32 = 1 << 8;
/// Position of `flags` in `struct io_uring_params`, in units of 32 bits.
const FLAGS: usize = 2;

/// io_uring_setup(2) with one more flag, or without it where the kernel does not know it.
///
/// # Safety
///
/// `parameters` points to a `struct io_uring_params`.
#[unsafe(export_name = "__wrap___sys_io_uring_setup")]
unsafe extern "C" fn set_up(entries: c_uint, parameters: *mut u32) -> c_int {
    // SAFETY: the structure is made of 32-bit numbers, and the caller owns it.
    let flags = unsafe { &mut *parameters.add(FLAGS) };
    *flags |= COOP_TASKRUN;
    // SAFETY: the caller vouches for the structure.
    let set_up = unsafe { system_call(entries, parameters) };
    #[cfg(test)]
    tests::note(*flags);
    if set_up >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return set_up;
    }
    // SAFETY: as above.
    unsafe {
        *parameters.add(FLAGS) &= !COOP_TASKRUN;
        system_call(entries, parameters)
    }
}

/// # Safety
///
/// `parameters` points to a `struct io_uring_params`.
unsafe fn system_call(entries: c_uint, parameters: *mut u32) -> c_int {
    // SAFETY: the caller vouches for the structure.
    let result: c_long =
        unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters.cast::<c_void>()) };
    result as c_int
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::executor;

    /// The flags of every ring that the thread set up.
    thread_local!(static ASKED: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) });

    pub(super) fn note(flags: u32) {
        ASKED.with_borrow_mut(|asked| asked.push(flags));
    }

    #[test]
    fn the_linker_puts_it_in_place_and_the_kernel_takes_the_flag() {
        executor::run_here(async {});
        ASKED.with_borrow(|asked| {
            assert!(!asked.is_empty());
            assert!(asked.iter().all(|flags| flags & COOP_TASKRUN != 0), "{asked:?}");
        });
    }
}
