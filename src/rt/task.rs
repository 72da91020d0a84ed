//! What every task of a core is wrapped in: its polls are measured ([`super::stall`]), and it counts as runnable from its wake-up until
//! it runs.
//!
//! glommio 0.9 looks for a reason to leave the CPU, such as a signal of another core, before it runs the first task of a round. When
//! there is one it takes the round for empty and parks, though tasks are runnable, until something else happens: with nothing but
//! [`super::pulse`] to happen, for up to 5 ms. So [`super::ring`] asks here before an executor waits.

use super::stall;
use glommio::timer::Timer;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The shortest wait: longer than it takes to set a timer, and over when the reactor looks next. An executor that has nothing else to do sets
/// a timer of the processor otherwise, and sleeps until that interrupts it.
const BREATH: Duration = Duration::from_nanos(500);

thread_local! {
    /// Of the executor that runs on this thread.
    static RUNNABLE: RefCell<Option<Runnable>> = const { RefCell::new(None) };
}

/// How many tasks of an executor were woken and have not run since.
type Runnable = Arc<AtomicUsize>;

/// An executor that runs on this thread until this is dropped.
pub(super) struct Home(());

/// Wakes a task and counts it as runnable.
struct TaskWaker {
    task: Waker,
    runnable: Runnable,
    /// It counts as runnable, or has ended.
    counted: AtomicBool,
}

impl Home {
    pub fn enter() -> Self {
        RUNNABLE.set(Some(Runnable::default()));
        Self(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        RUNNABLE.set(None);
    }
}

/// Whether tasks of this thread's executor have been woken and have not run.
pub(super) fn any_runnable() -> bool {
    RUNNABLE.with_borrow(|runnable| runnable.as_ref().is_some_and(|tasks| tasks.load(SeqCst) > 0))
}

/// Runs `task` as one task of the executor.
pub(super) async fn supervise<F: Future>(task: F) -> F::Output {
    let mut task = pin!(task);
    let mut own = None;
    poll_fn(|cx| {
        // The waker of a task is the same at every poll.
        let (waker, handle) = own.get_or_insert_with(|| TaskWaker::of(cx.waker()));
        handle.runs();
        let poll = || task.as_mut().poll(&mut Context::from_waker(waker));
        let polled = stall::measure(std::any::type_name::<F>(), poll);
        if polled.is_ready() {
            handle.ends();
        }
        polled
    })
    .await
}

/// Waits for `duration`, at least for one look of the reactor at all it has.
pub(super) async fn sleep(duration: Duration) {
    let mut timer: Option<Timer> = None;
    poll_fn(|cx| match &mut timer {
        Some(timer) => Pin::new(timer).poll(cx).map(drop),
        None => {
            timer = Some(set(duration.max(BREATH), cx));
            Poll::Pending
        }
    })
    .await;
}

/// A timer that waits. One that is over when it is looked at for the first time would not, and its task would go on without a
/// pause: timers of a nanosecond always were.
fn set(mut duration: Duration, cx: &mut Context<'_>) -> Timer {
    loop {
        let mut timer = Timer::new(duration);
        if Pin::new(&mut timer).poll(cx).is_pending() {
            return timer;
        }
        // A clock can take longer to read than the wait is.
        duration *= 2;
    }
}

impl TaskWaker {
    fn of(task: &Waker) -> (Waker, Arc<Self>) {
        let runnable = RUNNABLE.with_borrow(|runnable| runnable.clone().expect("tasks run on executors"));
        let own = Arc::new(Self { task: task.clone(), runnable, counted: AtomicBool::new(false) });
        (Waker::from(own.clone()), own)
    }

    fn runs(&self) {
        if self.counted.swap(false, SeqCst) {
            self.runnable.fetch_sub(1, SeqCst);
        }
    }

    /// Later wake-ups are of no account.
    fn ends(&self) {
        if self.counted.swap(true, SeqCst) {
            self.runnable.fetch_sub(1, SeqCst);
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Counted first: once it is woken it may run, on its own thread.
        if !self.counted.swap(true, SeqCst) {
            self.runnable.fetch_add(1, SeqCst);
        }
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::notify::Notify;
    use crate::rt::{self, executor};
    use std::rc::Rc;

    #[test]
    fn tasks_that_breathe_take_turns() {
        let turns = Rc::new(RefCell::new(String::new()));
        let log = turns.clone();
        executor::run_here(async move {
            for name in ['a', 'b'] {
                let turns = turns.clone();
                rt::spawn(async move {
                    for _ in 0..3 {
                        turns.borrow_mut().push(name);
                        rt::breathe().await;
                    }
                });
            }
            while turns.borrow().len() < 6 {
                rt::breathe().await;
            }
        });
        assert_eq!(log.take(), "ababab");
    }

    #[test]
    fn tasks_count_as_runnable_from_their_wake_up_until_they_run() {
        executor::run_here(async {
            let flag = Rc::new(Notify::default());
            let waiting = flag.clone();
            rt::spawn(async move { waiting.notified().await });
            assert!(!any_runnable());
            flag.notify();
            assert!(any_runnable());
            rt::breathe().await;
            assert!(!any_runnable());
        });
    }

    #[test]
    fn wake_ups_by_other_threads_count_once_and_those_of_ended_tasks_never() {
        executor::run_here(async {
            let left = Rc::new(RefCell::new(None::<Waker>));
            let (waker, waiting) = (left.clone(), Rc::new(Notify::default()));
            let end = waiting.clone();
            rt::spawn(async move {
                poll_fn(|cx| Poll::Ready(waker.replace(Some(cx.waker().clone())))).await;
                waiting.notified().await;
            });
            let waker = left.take().expect("the task ran at once");
            let foreign = waker.clone();
            std::thread::spawn(move || (foreign.wake_by_ref(), foreign.wake())).join().unwrap();
            assert!(any_runnable());
            while any_runnable() {
                rt::breathe().await;
            }
            end.notify();
            rt::breathe().await;
            waker.wake();
            assert!(!any_runnable());
        });
    }
}
