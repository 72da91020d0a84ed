//! A consumer group under test.

use crate::ledger::Ledger;
use crate::measure::Clock;
use crate::run::Run;
use crate::scenario::{Confirm, Mix, Scenario, TypeSet};
use nistru::client::Endpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long after a member came or went events may come again that were on their way meanwhile.
const SETTLING_NS: u64 = 5_000_000_000;

/// What the consumers of a group share.
pub struct Group {
    pub name: String,
    /// As whom its consumers come.
    pub endpoint: Endpoint,
    pub consumers: usize,
    pub types: TypeSet,
    pub confirm: Confirm,
    pub confirm_every: usize,
    pub ledger: Ledger,
    /// Events of other runs that the group had not consumed yet.
    pub foreign: AtomicU64,
    /// When members may be taken to have come and gone; 0 when they have.
    settled_ns: AtomicU64,
}

impl Group {
    /// The groups of `scenario`, without those that have no consumers. `endpoint` gives the endpoint of a client.
    pub fn all(
        scenario: &Scenario,
        mix: &Arc<Mix>,
        endpoint: &impl Fn(Option<&str>) -> Result<Endpoint, String>,
    ) -> Result<Vec<Self>, String> {
        let mut groups = Vec::new();
        for kind in scenario.groups.iter().filter(|kind| kind.consumers > 0) {
            let endpoint = endpoint(kind.client.as_deref())?;
            let types = mix.set_of(kind);
            groups.extend(kind.names().into_iter().map(|name| Self {
                name,
                endpoint: endpoint.clone(),
                consumers: kind.consumers,
                types: types.clone(),
                confirm: kind.confirm,
                confirm_every: kind.confirm_every,
                ledger: Ledger::new(mix.clone(), types.clone(), scenario.load.producers, scenario.load.keys),
                foreign: AtomicU64::new(0),
                settled_ns: AtomicU64::new(0),
            }));
        }
        Ok(groups)
    }

    /// Notes that a member came or went.
    pub fn unsettle(&self, clock: Clock) {
        self.ledger.unsettle();
        self.settled_ns.store(clock.now_ns() + SETTLING_NS, Ordering::Relaxed);
    }

    /// To be called now and then: notes when the group has found its order again.
    pub fn settle(&self, clock: Clock) {
        let settled_ns = self.settled_ns.load(Ordering::Relaxed);
        if settled_ns != 0 && clock.now_ns() > settled_ns {
            self.ledger.settle();
            // Unless somebody came meanwhile.
            let _ = self.settled_ns.compare_exchange(settled_ns, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Acknowledged events that it has not received.
    pub fn lag(&self, run: &Run) -> u64 {
        run.acknowledged_of(&self.types).saturating_sub(self.ledger.received())
    }
}
