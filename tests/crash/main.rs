//! The broker is killed again and again under load; afterwards its history must add up.
//!
//! Rounds: `NISTRU_CRASH_ROUNDS` (default 6). Random choices come from `NISTRU_CRASH_SEED`, which is printed.

#[path = "../broker/harness.rs"]
#[allow(dead_code)]
mod harness;
mod history;
mod load;

use harness::{Broker, PATIENCE};
use history::History;
use load::{Chance, Target};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::Duration;

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 2;
/// The group that consumes while the broker is being killed.
const GROUP: &str = "survivors";

#[test]
fn nothing_acknowledged_is_lost_and_nothing_confirmed_is_skipped_however_often_the_broker_dies() {
    let rounds = setting("NISTRU_CRASH_ROUNDS").unwrap_or(6);
    let seed = setting("NISTRU_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("NISTRU_CRASH_ROUNDS={rounds} NISTRU_CRASH_SEED={seed}");
    let mut broker = Broker::with(&[("storage", "checkpoint_interval", "\"1s\"")]);
    let history = Mutex::new(History::default());
    let (port, done) = (AtomicU16::new(broker.port()), AtomicBool::new(false));
    let dir = broker.dir().to_owned();
    std::thread::scope(|scope| {
        let target = Target { dir: &dir, port: &port, done: &done, history: &history };
        for number in 0..PRODUCERS {
            scope.spawn(move || load::produce(target, number, Chance::new(seed + number as u64)));
        }
        for number in 0..CONSUMERS {
            scope.spawn(move || load::consume(target, GROUP, Chance::new(seed + 100 + number as u64)));
        }
        // Also when this thread panics: the scope waits for the others.
        let _end = EndLoad(&done);
        let mut chance = Chance::new(seed + 1000);
        for _ in 0..rounds {
            // The instant of death is the point of the test.
            std::thread::sleep(Duration::from_millis(50 + chance.below(700)));
            broker.kill();
            broker.launch();
            port.store(broker.port(), Relaxed);
        }
        harness::wait_for("some events after the last start", || {
            let count = history.lock().unwrap().acknowledged();
            (count > 50).then_some(())
        });
    });
    let history = history.into_inner().unwrap();
    let stored = load::read_all(&broker.endpoint("demo"), "auditor", history.acknowledged(), PATIENCE);
    history.check_stored(&stored);
    let rest = load::drain(&broker.endpoint("demo"), GROUP);
    let dead = load::read_dead(&broker.endpoint("demo"), "auditor");
    history.check_consumed(&stored, &rest, &dead);
}

/// Ends the load when dropped.
struct EndLoad<'a>(&'a AtomicBool);

impl Drop for EndLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}
