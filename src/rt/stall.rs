//! How long single pieces of work keep a core from everything else: one poll of a task, with what it starts right away.
//!
//! Measuring costs two reads of the processor's time stamp counter. Only for a poll that took long the operating system is asked
//! for how much of it the thread ran, and whether it stood still because it waited or because others had its CPU.

use std::cell::{Cell, RefCell};
use std::time::Instant;

/// Upper bounds of the buckets of [`Durations`], in nanoseconds; one more bucket has none.
pub const BOUNDS_NS: [u64; 10] = [
    100_000,
    250_000,
    500_000,
    750_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
];
/// Polls shorter than this belong into the first bucket, however slow the counter runs between 1 and 10 GHz.
const SHORT_TICKS: u64 = 100_000;
/// When so much has passed since the thread was last looked at, it is looked at again before a poll.
const STALE_TICKS: u64 = 1_000_000;
/// After so long a pause it is as well: the executor has probably parked, which counts as waiting.
const PAUSE_TICKS: u64 = 50_000;
/// Work that takes longer is logged with the name of its task.
const NOTED_NS: u64 = 1_000_000;

/// A histogram.
#[derive(Clone, Default, Debug)]
pub struct Durations {
    /// How many fell into each bucket and not into one before.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    pub sum_ns: u64,
}

/// What the executor of this thread measured since it started.
#[derive(Clone, Default, Debug)]
pub struct Stalls {
    /// Polls, by for how long they ran.
    pub ran: Durations,
    /// Polls that waited, for instance for a page or a lock, by how long.
    pub waited: Durations,
    /// Polls that did not go on because others had the CPU, other machines on the same hardware included, by how long.
    pub descheduled: Durations,
}

impl Durations {
    fn record(&mut self, ns: u64) {
        self.buckets[BOUNDS_NS.partition_point(|bound| *bound < ns)] += 1;
        self.sum_ns += ns;
    }
}

thread_local! {
    static METER: Meter = Meter::new();
}

struct Meter {
    /// The same moment on both clocks.
    origin: (Instant, u64),
    /// A task is being polled; what it spawns is polled within.
    polling: Cell<bool>,
    short: Cell<u64>,
    short_ticks: Cell<u64>,
    /// When the last poll ended.
    ended: Cell<u64>,
    thread: Cell<Thread>,
    long: RefCell<Stalls>,
}

/// The state of this thread at one moment.
#[derive(Clone, Copy, Default)]
struct Thread {
    ticks: u64,
    /// Time on a CPU.
    ran_ns: u64,
    /// How often it gave its CPU up because it had to wait.
    waits: i64,
}

/// Polls a task called `name` and measures it.
pub(super) fn measure<T>(name: &'static str, poll: impl FnOnce() -> T) -> T {
    METER.with(|meter| {
        if meter.polling.replace(true) {
            return poll();
        }
        let began = ticks();
        let age = began.wrapping_sub(meter.thread.get().ticks);
        if age > STALE_TICKS || began.wrapping_sub(meter.ended.get()) > PAUSE_TICKS {
            meter.thread.set(Thread::now());
        }
        let polled = poll();
        let ended = ticks();
        let took = ended.wrapping_sub(began);
        meter.ended.set(ended);
        meter.polling.set(false);
        if took < SHORT_TICKS {
            meter.short.set(meter.short.get() + 1);
            meter.short_ticks.set(meter.short_ticks.get() + took);
        } else {
            meter.record_long(name, took);
        }
        polled
    })
}

/// What was measured on this thread so far.
pub fn stalls() -> Stalls {
    METER.with(|meter| {
        let mut stalls = meter.long.borrow().clone();
        stalls.ran.buckets[0] += meter.short.get();
        stalls.ran.sum_ns += meter.ns(meter.short_ticks.get());
        stalls
    })
}

impl Meter {
    fn new() -> Self {
        Self {
            origin: (Instant::now(), ticks()),
            polling: Cell::default(),
            short: Cell::default(),
            short_ticks: Cell::default(),
            ended: Cell::default(),
            thread: Cell::default(),
            long: RefCell::default(),
        }
    }

    fn record_long(&self, name: &'static str, took: u64) {
        let (before, now) = (self.thread.get(), Thread::now());
        self.thread.set(now);
        let ns = self.ns(took);
        let ran_ns = now.ran_ns.saturating_sub(before.ran_ns).min(ns);
        let waited = now.waits > before.waits;
        let mut long = self.long.borrow_mut();
        long.ran.record(ran_ns);
        match ns - ran_ns {
            0 => {}
            still_ns if waited => long.waited.record(still_ns),
            still_ns => long.descheduled.record(still_ns),
        }
        drop(long);
        let own_ns = if waited { ns } else { ran_ns };
        if own_ns > NOTED_NS {
            tracing::debug!(task = name, waited, took_us = own_ns / 1000, "a task kept its core for long");
        }
    }

    /// The counter's rate is taken from all the time since the thread started, so it needs no calibration.
    fn ns(&self, ticks_taken: u64) -> u64 {
        let (since, ticks_then) = self.origin;
        let ticks_passed = ticks().wrapping_sub(ticks_then).max(1);
        (ticks_taken as f64 * since.elapsed().as_nanos() as f64 / ticks_passed as f64) as u64
    }
}

impl Thread {
    fn now() -> Self {
        let (mut ran, mut usage) = (
            libc::timespec { tv_sec: 0, tv_nsec: 0 },
            // SAFETY: zeros are a value of this structure of numbers.
            unsafe { std::mem::zeroed::<libc::rusage>() },
        );
        // SAFETY: both structures are writable during the calls, which do not fail with these constants.
        unsafe {
            libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ran);
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        }
        let ran_ns = ran.tv_sec as u64 * 1_000_000_000 + ran.tv_nsec as u64;
        Self { ticks: ticks(), ran_ns, waits: usage.ru_nvcsw }
    }
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: every processor of this architecture has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    static SINCE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    SINCE.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{self, executor};
    use std::time::Duration;

    fn on_a_thread_of_its_own(task: impl FnOnce() + Send + 'static) {
        std::thread::spawn(task).join().unwrap();
    }

    fn longer_than(durations: &Durations, ns: u64) -> u64 {
        let first = BOUNDS_NS.iter().position(|bound| *bound == ns).unwrap() + 1;
        durations.buckets[first..].iter().sum()
    }

    #[test]
    fn a_poll_that_blocks_counts_with_the_time_for_which_it_did() {
        on_a_thread_of_its_own(|| {
            executor::run_here(async {
                // The sleep waits for nothing: it is the stall.
                std::thread::sleep(Duration::from_millis(6));
                rt::breathe().await;
                let stalls = stalls();
                assert_eq!(longer_than(&stalls.waited, 5_000_000), 1);
                assert!(stalls.waited.sum_ns >= 5_000_000);
            });
        });
    }

    #[test]
    fn waiting_counts_as_nothing() {
        on_a_thread_of_its_own(|| {
            executor::run_here(async {
                for _ in 0..3 {
                    rt::sleep(Duration::from_millis(20)).await;
                }
                let stalls = stalls();
                assert!(stalls.ran.buckets.iter().sum::<u64>() >= 3);
                assert!(stalls.ran.sum_ns < 60_000_000, "{stalls:?}");
            });
        });
    }

    #[test]
    fn a_task_that_is_started_within_a_poll_belongs_to_it() {
        on_a_thread_of_its_own(|| {
            executor::run_here(async {
                // The sleeps are the stall.
                rt::spawn(async { std::thread::sleep(Duration::from_millis(6)) });
                std::thread::sleep(Duration::from_millis(6));
                rt::breathe().await;
                assert_eq!(longer_than(&stalls().waited, 10_000_000), 1);
            });
        });
    }
}
