//! What producers and consumers saw, and whether it can have been a broker that keeps its promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One produced event. Its id says who made it, for which key, and as which number of that key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub id: String,
    pub key: String,
    /// Counts up per key, in the order of sending.
    pub number: u64,
    /// The request it was part of.
    pub batch: String,
}

/// Everything that was seen from outside.
#[derive(Default)]
pub struct History {
    /// Requests answered 202.
    acknowledged: Vec<Event>,
    /// Sizes of all requests that were sent, whatever came of them.
    batches: HashMap<String, usize>,
    /// Ids that a session of the group confirmed after it had received them.
    confirmed: BTreeSet<String>,
}

impl History {
    pub fn sent(&mut self, batch: &str, size: usize) {
        self.batches.insert(batch.to_owned(), size);
    }

    pub fn acknowledge(&mut self, events: Vec<Event>) {
        self.acknowledged.extend(events);
    }

    pub fn confirm(&mut self, ids: impl IntoIterator<Item = String>) {
        self.confirmed.extend(ids);
    }

    /// Events in requests answered 202.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// `stored` is everything that a fresh group reads, in the order in which it came.
    pub fn check_stored(&self, stored: &[Event]) {
        let ids: BTreeSet<_> = stored.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), stored.len(), "an event was stored twice");
        let lost: Vec<_> = self.acknowledged.iter().filter(|event| !ids.contains(&event.id)).collect();
        assert!(lost.is_empty(), "{} acknowledged events are lost, the first is {:?}", lost.len(), lost[0]);
        self.check_batches(stored);
        check_order(stored);
    }

    fn check_batches(&self, stored: &[Event]) {
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for event in stored {
            *found.entry(&event.batch).or_default() += 1;
        }
        for (batch, count) in found {
            assert_eq!(self.batches.get(batch), Some(&count), "batch {batch} is partly visible");
        }
    }

    /// `rest` are the ids that the group still got, and confirmed, after everything had calmed down; `dead` those of the dead
    /// events that are stored.
    pub fn check_consumed(&self, stored: &[Event], rest: &BTreeSet<String>, dead: &BTreeSet<String>) {
        let consumed = [&self.confirmed, rest, dead];
        let skipped: Vec<_> =
            stored.iter().filter(|event| !consumed.iter().any(|ids| ids.contains(&event.id))).collect();
        assert!(
            skipped.is_empty(),
            "the cursor passed {} events that were neither confirmed nor reported dead, the first is {:?}",
            skipped.len(),
            skipped[0]
        );
    }
}

fn check_order(stored: &[Event]) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for event in stored {
        let before = last.insert(&event.key, event.number);
        assert!(before.is_none_or(|before| before < event.number), "{event:?} came after number {before:?}");
    }
}
