//! How the kernel sets up the rings of the executors, and when it makes an executor wait.
//!
//! glommio 0.9 is older than `IORING_SETUP_COOP_TASKRUN` (Linux 5.19), without which the kernel interrupts the CPU of an executor
//! for each socket that becomes readable while it works: one executor took 22,000 single events a second from 64 producers with these
//! interrupts and 40,000 without. It makes system calls all the time, and then it learns of its sockets just as well.
//!
//! The linker puts [`set_up`] and [`enter`] in the place of liburing's system calls; `build.rs` tells it to.

use super::task::any_runnable;
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

/// io_uring_enter(2), with which an executor also parks. One that has runnable tasks does not wait: see [`super::task`].
///
/// # Safety
///
/// `argument` points to what `flags` and `bytes` say, or is null.
#[unsafe(export_name = "__wrap___sys_io_uring_enter2")]
unsafe extern "C" fn enter(
    ring: c_int,
    submitted: c_uint,
    awaited: c_uint,
    flags: c_uint,
    argument: *const c_void,
    bytes: c_int,
) -> c_int {
    let enter = |awaited: c_uint| {
        // SAFETY: the caller vouches for the argument.
        let result: c_long = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, ring, submitted, awaited, flags, argument, bytes as usize)
        };
        result as c_int
    };
    if awaited == 0 || !any_runnable() {
        return enter(awaited);
    }
    if enter(0) < 0 {
        return -1;
    }
    // SAFETY: the pointer is to this thread's own variable. A signal could have ended the wait just as early.
    unsafe { *libc::__errno_location() = libc::EINTR };
    -1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::executor;
    use std::future::poll_fn;
    use std::io;
    use std::task::Poll;

    /// `IORING_ENTER_GETEVENTS`.
    const GETEVENTS: c_uint = 1;

    // The flags of every ring that the thread set up.
    thread_local!(static ASKED: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) });

    pub(super) fn note(flags: u32) {
        ASKED.with_borrow_mut(|asked| asked.push(flags));
    }

    #[test]
    fn an_executor_does_not_wait_while_tasks_are_runnable() {
        executor::run_here(async {
            let mut parameters = [0u32; 30];
            // SAFETY: all zeros are parameters, 120 bytes long.
            let ring = unsafe { set_up(1, parameters.as_mut_ptr()) };
            assert!(ring >= 0);
            // This task runs, so its wake-up makes it runnable once more.
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Ready(())
            })
            .await;
            // Nothing ever completes on this ring: a wait would not end.
            // SAFETY: there is no argument.
            let entered = unsafe { enter(ring, 0, 1, GETEVENTS, std::ptr::null(), 0) };
            assert_eq!((entered, io::Error::last_os_error().kind()), (-1, io::ErrorKind::Interrupted));
            // SAFETY: nobody else uses the descriptor.
            unsafe { libc::close(ring) };
        });
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
