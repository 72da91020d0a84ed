//! A plain thread that wakes every core every few milliseconds, measures how long each takes to react, and tells whether all
//! of them make progress.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Time between wake-ups.
pub const INTERVAL: Duration = Duration::from_millis(5);
/// A core that has not reacted for this long makes no progress.
pub const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The pulse of one core, shared by the core and the pulse thread.
pub struct Heart {
    epoch: Instant,
    waker: Mutex<Option<Waker>>,
    /// Nanoseconds after `epoch` of the first wake-up that the core has not reacted to; 0 = it has reacted to all.
    woken_ns: AtomicU64,
}

impl Default for Heart {
    fn default() -> Self {
        Self { epoch: Instant::now(), waker: Mutex::new(None), woken_ns: AtomicU64::new(0) }
    }
}

/// Starts the thread. `every` runs on it after each round of wake-ups and is told whether all cores make progress.
pub fn start(hearts: Vec<Arc<Heart>>, mut every: impl FnMut(bool) + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("pulse".into()).spawn(move || {
        loop {
            std::thread::sleep(INTERVAL);
            let now = Instant::now();
            // Every core is woken, also after one that does not react.
            let stuck = hearts.iter().filter(|heart| !heart.beat(now)).count();
            every(stuck == 0);
        }
    })?;
    Ok(())
}

impl Heart {
    /// Wakes the core; tells whether it has reacted within [`STUCK_AFTER`].
    fn beat(&self, now: Instant) -> bool {
        let now_ns = (now - self.epoch).as_nanos() as u64;
        let pending_since = self.woken_ns.compare_exchange(0, now_ns, Relaxed, Relaxed).err();
        // Not under the lock: a wake-up can take the CPU from this thread, and the core would wait for the lock meanwhile.
        let waker = self.waker.lock().expect("nobody panics while holding the lock").clone();
        if let Some(waker) = waker {
            waker.wake();
        }
        pending_since.is_none_or(|since| now_ns - since < STUCK_AFTER.as_nanos() as u64)
    }

    /// Reacts to the pulse on the core, for ever; `reacted` gets the time from each wake-up to the reaction.
    pub async fn react(self: Arc<Self>, reacted: impl Fn(Duration)) {
        poll_fn(|cx| {
            let woken_ns = self.woken_ns.swap(0, Relaxed);
            if woken_ns != 0 {
                let now_ns = self.epoch.elapsed().as_nanos() as u64;
                reacted(Duration::from_nanos(now_ns.saturating_sub(woken_ns)));
            }
            self.wake_by(cx.waker());
            Poll::<()>::Pending
        })
        .await;
    }

    /// Lets the pulse wake the task that calls this until [`Heart::react`] takes over. To be the first thing that an executor
    /// does: one that is not scheduled for long enough right at its start parks with work to do as well.
    pub async fn attach(&self) {
        poll_fn(|cx| {
            self.wake_by(cx.waker());
            Poll::Ready(())
        })
        .await;
    }

    fn wake_by(&self, own: &Waker) {
        let mut waker = self.waker.lock().expect("nobody panics while holding the lock");
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(own)) {
            *waker = Some(own.clone());
        }
    }
}
