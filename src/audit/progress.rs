//! What the threads of the records tell each other and the operator: how far records are durable and sent, and what was counted.

use super::ledger::Tip;
use crate::metrics::Kind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Shared by the writer, the outbox and the scrape. Cores only read the numbers.
pub struct Progress {
    tip: Mutex<Option<Tip>>,
    grown: Condvar,
    /// The file that the outbox has come to; the largest number when there is no outbox.
    unsent_from: AtomicU64,
    pub numbers: Numbers,
}

macro_rules! numbers {
    ($($name:ident: $kind:ident, $help:literal;)*) => {
        /// Numbers of the writer and the outbox.
        #[derive(Default)]
        pub struct Numbers {
            $(pub $name: AtomicU64,)*
        }

        impl Numbers {
            /// All numbers with their names, kinds and help texts, in the order above.
            pub fn list(&self) -> Vec<(&'static str, Kind, &'static str, u64)> {
                vec![$((stringify!($name), Kind::$kind, $help, self.$name.load(Relaxed)),)*]
            }
        }
    };
}

numbers! {
    audit_records: Counter, "Records of personal data written and synced";
    audit_syncs: Counter, "Syncs of the files of records";
    audit_failures: Counter, "Attempts to write records that failed";
    audit_unrecorded: Counter, "Events with personal data delivered without a record, as on_failure allows";
    audit_withheld: Counter, "Events with personal data not delivered because values for their records are missing";
    audit_waiting: Gauge, "Batches of events that wait for their records";
    audit_failing: Gauge, "1 while records cannot be written";
    audit_last_record: Gauge, "Number of the last record that is durable";
    mlog_last_record: Gauge, "Number of the last record that MLog has accepted or that was set aside";
    mlog_requests_failed: Counter, "Requests to MLog that failed";
    mlog_refused: Counter, "Records that MLog refuses and that were set aside";
    mlog_oldest_ms: Gauge, "Time of the oldest record that MLog does not have, Unix milliseconds; 0 when it has all";
}

impl Default for Progress {
    fn default() -> Self {
        let unsent_from = AtomicU64::new(u64::MAX);
        Self { tip: Mutex::default(), grown: Condvar::new(), unsent_from, numbers: Numbers::default() }
    }
}

impl Progress {
    /// The writer tells how far records are durable.
    pub fn reached(&self, tip: Tip) {
        self.numbers.audit_last_record.store(tip.next_seq - 1, Relaxed);
        let mut known = self.tip.lock().expect("nobody panics while holding the lock");
        if known.replace(tip) != Some(tip) {
            self.grown.notify_all();
        }
    }

    /// How far records are durable; waits for up to `limit` until that is another place than `seen`.
    pub fn wait(&self, seen: Option<Tip>, limit: Duration) -> Option<Tip> {
        let known = self.tip.lock().expect("nobody panics while holding the lock");
        let waited = self.grown.wait_timeout_while(known, limit, |known| *known == seen);
        *waited.expect("nobody panics while holding the lock").0
    }

    /// Events were withheld because values for their records are missing.
    pub fn count_withheld(&self, events: usize) {
        self.numbers.audit_withheld.fetch_add(events as u64, Relaxed);
    }

    /// Files before this one were sent.
    pub fn unsent_from(&self) -> u64 {
        self.unsent_from.load(Relaxed)
    }

    /// The outbox has sent everything before `file`.
    pub fn sent_before(&self, file: u64) {
        self.unsent_from.store(file, Relaxed);
    }
}
