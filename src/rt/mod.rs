//! The runtime, and the only module that knows glommio: executors, tasks, timers, sockets, files, queues between cores.
//!
//! The rules that glommio 0.9 asks for, all kept here:
//!
//! * Tasks end by returning. Cancelling or dropping a pending task leaks it, so [`spawn`] detaches and gives no handle.
//! * I/O is polled only when the run queue is empty. A long computation calls [`breathe`] between bounded pieces; it
//!   waits for the reactor, where a plain `yield` would not let the reactor run.
//! * An executor may park with runnable work: [`ring`] does not let it. [`pulse`] wakes every core every few milliseconds all the same, and
//!   notices the ones that make no progress.
//! * An executor that falls asleep interrupts all others of the process: on x86, `barrier` spares them that.
//! * No task may keep its core for long: [`stall`] measures each poll of each, and [`allocator`] keeps a long one off it.
//! * Sockets have no timeouts of their own: [`deadline`] shuts a socket down when its time is up.
//! * Blocking work runs on threads of [`blocking`], never on an executor, and not on its processor either where there is another.

pub mod allocator;
#[cfg(target_arch = "x86_64")]
mod barrier;
pub mod blocking;
pub mod buffers;
pub mod bus;
pub mod cpus;
pub mod deadline;
pub mod executor;
pub mod file;
pub mod notify;
pub mod pulse;
mod ring;
pub mod socket;
pub mod stall;
mod task;

use std::future::Future;
use std::time::Duration;

/// Runs `task` on this core until it returns.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task::supervise(task)).detach();
}

/// For how long this core was not idle since it started.
pub fn busy() -> Duration {
    glommio::executor().executor_stats().executor_runtime()
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    task::sleep(duration).await;
}

/// Lets the reactor and every other runnable task of this core run before the caller goes on.
pub async fn breathe() {
    task::sleep(Duration::ZERO).await;
}
