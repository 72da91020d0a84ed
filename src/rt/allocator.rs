//! Memory that was freed goes back to the system on a helper thread.
//!
//! Left to itself mimalloc gives it back now and then on whichever thread happens to free something. On an executor that is a stall:
//! a millisecond for 40 MiB, longer where other processors must be interrupted to forget the addresses.

use super::blocking::Pool;
use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use std::time::Duration;

/// Time between two times that memory is given back. What is needed again by then costs page faults.
const EVERY: Duration = Duration::from_secs(5);
/// `mi_option_purge_delay` of mimalloc.h: after how many milliseconds the allocator gives memory back by itself.
const PURGE_DELAY: mi_option_t = 15;
const BY_ITSELF_AFTER_MS: std::ffi::c_long = 600_000;

/// Gives memory back for as long as the process lives. Changes nothing in a program with another allocator.
pub async fn give_back(pool: Pool) {
    loop {
        super::sleep(EVERY).await;
        // SAFETY: any thread may ask for it at any time.
        pool.run(|| unsafe { mi_collect(true) }).await;
    }
}

/// Has no thread give memory back by itself, for a time within which [`give_back`] does. To be said before there are executors, and before much
/// is freed: what waits to be given back keeps its time.
pub fn keep() {
    // SAFETY: sets a number that the allocator reads whenever it frees.
    unsafe { mi_option_set(PURGE_DELAY, BY_ITSELF_AFTER_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::{mi_free, mi_malloc, mi_option_get};
    use std::ffi::c_void;

    const BYTES: usize = 8 << 20;
    const PAGE: usize = 4096;

    #[test]
    fn what_is_freed_stays_until_a_helper_gives_it_back() {
        // That it is this option is seen at once: without a delay nothing stays.
        // SAFETY: sets a number.
        unsafe { mi_option_set(PURGE_DELAY, 0) };
        assert_eq!(resident(freed()), 0);
        keep();
        // SAFETY: reads a number.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, BY_ITSELF_AFTER_MS);
        let memory = freed();
        assert!(resident(memory) > BYTES / PAGE / 2);
        // SAFETY: any thread may ask for it at any time, and has an effect when it has used the allocator, as helpers have.
        let helper = || unsafe {
            mi_free(mi_malloc(1));
            mi_collect(true);
        };
        std::thread::spawn(helper).join().unwrap();
        assert_eq!(resident(memory), 0);
    }

    /// Where [`BYTES`] were written and freed.
    fn freed() -> *const c_void {
        // SAFETY: there are so many bytes, which are freed where they came from.
        unsafe {
            let memory = mi_malloc(BYTES);
            memory.write_bytes(1, BYTES);
            mi_free(memory);
            memory
        }
    }

    /// Pages in memory of the ones wholly within [`BYTES`] from `memory` on, which stay mapped.
    fn resident(memory: *const c_void) -> usize {
        let first = memory.addr().next_multiple_of(PAGE) - memory.addr();
        let pages = BYTES / PAGE - 1;
        let mut resident = vec![0; pages];
        // SAFETY: asks for the state of addresses, and there is a byte for each page.
        let failed =
            unsafe { libc::mincore(memory.add(first).cast_mut(), pages * PAGE, resident.as_mut_ptr()) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        resident.iter().filter(|page| **page & 1 == 1).count()
    }
}
