//! What an executor does before it sleeps, so that no message sent meanwhile is overlooked.
//!
//! It writes down that it sleeps and then looks once more for messages; who sends one puts it down and then looks whether the executor
//! sleeps. Between write and look each side needs a full memory barrier, or both can miss the other. glommio 0.9 has one on both sides: the
//! sender's look is an atomic exchange, which on x86 is a full barrier whatever ordering it asks for (Intel SDM vol. 3, 9.2.3.9; AMD APM
//! vol. 2, 7.4.2), and yet the sleeper calls membarrier(2), which interrupts every processor that runs a thread of the process. Two executors that
//! wake each other spent a tenth of their time on that. The sleeper's own barrier is enough.
//!
//! The linker puts [`system_call`] in the place of libc's `syscall`, by which alone the call is reachable; `build.rs` tells it to.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{Ordering, fence};

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` (`include/uapi/linux/membarrier.h`).
const PRIVATE_EXPEDITED: c_int = 1 << 3;

unsafe extern "C" {
    fn __real_syscall(number: c_long, ...) -> c_long;
}

/// syscall(2), but for the barrier.
///
/// # Safety
///
/// That of the system call. Variable arguments of this kind come where these do, the last on the stack and the others in registers (System V
/// ABI, 3.2.3). Calls with fewer leave the rest to chance, which libc, too, passes on to the kernel.
#[unsafe(export_name = "__wrap_syscall")]
unsafe extern "C" fn system_call(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == libc::SYS_membarrier && a as c_int == PRIVATE_EXPEDITED {
        fence(Ordering::SeqCst);
        #[cfg(test)]
        tests::SEEN.set(true);
        return 0;
    }
    // SAFETY: the caller vouches for the arguments, which are passed on as they came.
    unsafe { __real_syscall(number, a, b, c, d, e, f) }
}

#[cfg(test)]
mod tests {
    use crate::rt::{self, executor};
    use std::cell::Cell;
    use std::time::Duration;

    // Whether the thread wanted a barrier of everybody.
    thread_local!(pub(super) static SEEN: Cell<bool> = const { Cell::new(false) });

    #[test]
    fn the_linker_puts_it_in_place_and_an_executor_that_sleeps_comes_by() {
        // There is no condition to wait for: that the executor falls asleep is what is tested.
        executor::run_here(rt::sleep(Duration::from_millis(20)));
        assert!(SEEN.get());
    }
}
