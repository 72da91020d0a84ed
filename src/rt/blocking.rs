//! Helper threads for everything that may block: file creation, flushing, compiling schemas, reading registries.

use super::cpus;
use crossbeam_queue::ArrayQueue;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// How much more willingly than the cores a helper gives way (nice values of setpriority(2)). A core that has to wait for a
/// helper's slice of the processor makes everybody on it wait; a helper still gets a quarter of a busy one.
const NICENESS: i32 = 5;
/// The slice of the processor that a helper asks for, in nanoseconds (sched(7), Linux 6.12 or newer): longer than what others get by
/// themselves, so that whoever wakes up takes the processor from it at once. The kernel's own thread that ends a write of the journal had
/// to wait for a helper for up to 0.5 ms, and every producer with it.
const SLICE_NS: u64 = 10_000_000;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for a thread. A core that has one more waits itself.
const QUEUED_JOBS_MAX: usize = 4096;
/// Time between two attempts of it: nobody says when there is room, which thousands of jobs in the way make a matter of many of these.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A handle to a small pool of threads. The threads live as long as the process.
#[derive(Clone)]
pub struct Pool {
    queue: Arc<Queue>,
}

/// Jobs that wait for a thread, without a lock: a helper that lost its processor while it held one would keep a core waiting, for
/// milliseconds where both want the same processor.
struct Queue {
    jobs: ArrayQueue<Job>,
    /// Threads that sleep until there is a job, or are about to.
    idle: AtomicUsize,
    /// One of them is being woken. It wakes the next one if there is more to do: to wake a thread takes a core up to 50 µs where that
    /// interrupts a processor that sleeps, and a core starts many jobs at a time.
    waking: AtomicBool,
    /// A byte for each thread that is woken.
    sleeping: PipeReader,
    wake: PipeWriter,
}

impl Pool {
    /// Starts `threads` threads named after `name`, on `cpus` if any are given.
    pub fn start(name: &str, threads: usize, cpus: &[usize]) -> io::Result<Self> {
        let queue = Arc::new(Queue::new()?);
        for number in 0..threads {
            let (queue, cpus) = (queue.clone(), cpus.to_vec());
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || work(&queue, &cpus))?;
        }
        Ok(Self { queue })
    }

    /// Runs `job` on one of the threads and waits for its result without blocking the core.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = futures_channel::oneshot::channel();
        self.queue.add(Box::new(move || drop(done.send(job()))));
        result.await.expect("a job always sends its result: panics abort the process")
    }
}

impl Queue {
    fn new() -> io::Result<Self> {
        let (sleeping, wake) = io::pipe()?;
        let (idle, waking) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self { jobs: ArrayQueue::new(QUEUED_JOBS_MAX), idle, waking, sleeping, wake })
    }

    fn add(&self, mut job: Job) {
        while let Err(refused) = self.jobs.push(job) {
            job = refused;
            std::thread::sleep(FULL_PAUSE);
        }
        self.wake_one();
    }

    fn take(&self) -> Job {
        loop {
            if let Some(job) = self.jobs.pop() {
                self.wake_one();
                return job;
            }
            self.idle.fetch_add(1, SeqCst);
            // Whoever adds a job after this look sees that somebody is idle.
            if self.jobs.is_empty() {
                self.sleep();
            }
            self.idle.fetch_sub(1, SeqCst);
        }
    }

    /// Until somebody wakes this thread, or has tried to wake one when none slept.
    fn sleep(&self) {
        (&self.sleeping).read_exact(&mut [0]).expect("a pipe of this process is read");
        self.waking.store(false, SeqCst);
    }

    /// Wakes a thread if there is a job for it and no other one is on its way.
    fn wake_one(&self) {
        if !self.jobs.is_empty() && self.idle.load(SeqCst) > 0 && !self.waking.swap(true, SeqCst) {
            (&self.wake).write_all(&[0]).expect("a pipe of this process is written");
        }
    }
}

fn work(queue: &Queue, cpus: &[usize]) -> ! {
    give_way();
    cpus::stay_on(cpus);
    loop {
        queue.take()();
    }
}

/// Has the calling thread leave the processor to others. A refusal changes nothing else.
fn give_way() {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: NICENESS,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the first call has no preconditions. The structure is readable and as long as it says. 0 is the calling thread or no flags.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::executor;
    use futures_lite::future::zip;

    #[test]
    fn helpers_give_way_to_others() {
        let pool = Pool::start("test", 1, &[]).unwrap();
        executor::run_here(async move {
            // SAFETY: the call has no preconditions.
            let niceness = pool.run(|| unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }).await;
            assert_eq!(niceness, NICENESS);
        });
    }

    #[test]
    fn jobs_that_wait_for_each_other_run_at_the_same_time() {
        let pool = Pool::start("test", 3, &[]).unwrap();
        executor::run_here(async move {
            for _ in 0..200 {
                let all = Arc::new(std::sync::Barrier::new(3));
                let meet = || {
                    let all = all.clone();
                    pool.run(move || all.wait().is_leader())
                };
                let (one, (two, three)) = zip(meet(), zip(meet(), meet())).await;
                assert_eq!([one, two, three].iter().filter(|leads| **leads).count(), 1);
            }
        });
    }

    #[test]
    fn results_come_back_to_the_core_that_asked() {
        let pool = Pool::start("test", 2, &[]).unwrap();
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
