//! One pinned glommio executor per core.

use super::task::{Home, supervise};
use glommio::{LocalExecutorBuilder, Placement};
use std::future::Future;
use std::io;

/// Bytes of registered I/O memory per executor. With this little, 16 executors start within 8 MiB of locked memory.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Submissions that a ring of an executor holds. The kernel derives from it in how many lists it keeps the sockets that are
/// waited for, and each time that an executor goes to sleep, glommio takes back a timer, for which the kernel searches one of
/// them. With glommio's default of 128 there are 8 lists, with this 64: for 2,500 idle connections each search took 10 µs.
const RING_DEPTH: usize = 1024;
/// Locked memory that one executor needs to start.
pub const LOCKED_BYTES_PER_EXECUTOR: u64 = 512 << 10;

/// Starts an executor on its own thread, pinned to `cpu`, that runs the future `make` returns.
pub fn start<F: Future<Output = ()> + 'static>(
    core: usize,
    cpu: usize,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    builder(Placement::Fixed(cpu))
        .name(&format!("core-{core}"))
        .spawn(move || {
            let home = Home::enter();
            let main = make();
            async move {
                supervise(main).await;
                drop(home);
            }
        })
        .map(drop)
        .map_err(|e| io::Error::other(format!("executor {core} on CPU {cpu} does not start: {e}")))
}

/// Runs `future` on an unpinned executor on this thread: for tests of code that needs one.
pub fn run_here<T>(future: impl Future<Output = T>) -> T {
    let executor = builder(Placement::Unbound).make().expect("an executor starts");
    let _home = Home::enter();
    executor.run(supervise(future))
}

fn builder(placement: Placement) -> LocalExecutorBuilder {
    // The preempt timer keeps its default of 100 ms: shorter ones make glommio park with runnable work.
    LocalExecutorBuilder::new(placement).io_memory(IO_MEMORY_BYTES).ring_depth(RING_DEPTH)
}
