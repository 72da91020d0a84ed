//! Helper threads for everything that may block: file creation, flushing, compiling schemas, reading registries.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// How much more willingly than the cores a helper gives way (nice values of setpriority(2)). A core that has to wait for a
/// helper's slice of the processor makes everybody on it wait; a helper still gets a quarter of a busy one.
const NICENESS: libc::c_int = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for a thread. Each caller awaits its own job, so the number of waiting jobs is bounded by design;
/// this is the point at which a mistake in that design would block instead of growing.
const QUEUED_JOBS_MAX: usize = 4096;

/// A handle to a small pool of threads. The pool lives as long as the process.
#[derive(Clone)]
pub struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    /// Starts `threads` threads named after `name`.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(QUEUED_JOBS_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` on one of the threads and waits for its result without blocking the core.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = futures_channel::oneshot::channel();
        let job = Box::new(move || drop(done.send(job())));
        self.jobs.send(job).expect("the pool's threads never end");
        result.await.expect("a job always sends its result: panics abort the process")
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    // SAFETY: the call has no preconditions. 0 is the calling thread; a refusal changes nothing else.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    loop {
        let next = queue.lock().expect("no job panics while it holds the lock").recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::executor;

    #[test]
    fn results_come_back_to_the_core_that_asked() {
        let pool = Pool::start("test", 2).unwrap();
        let sum = executor::run_here(async move {
            let mut sum = 0;
            for n in 0..100u64 {
                sum += pool.run(move || n * 2).await;
            }
            sum
        });
        assert_eq!(sum, 9900);
    }
}
