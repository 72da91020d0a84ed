//! The gate in front of a consumer: no event with personal data passes before its record is durable.
//!
//! A feed hands the gate a batch of events in their order. If a rule covers one of them the whole batch waits, in a task of its
//! own, until the records are written, so that the order stays; other feeds go on. Events that are withheld because values are
//! missing become dead events of the client first, and count as consumed when they are durable. Test and dead events are the
//! client's own and never covered.

use crate::audit::extract::{Extract, Origin, Recipient, extract, records_max};
use crate::audit::marks::Receiver;
use crate::audit::rule::Rule;
use crate::audit::writer::Delivery;
use crate::broker::sessions::Notice;
use crate::broker::{Core, Slice};
use crate::event::string;
use crate::id::{ClientId, PrivateLog, SessionId};
use crate::ingress::report;
use crate::partition::TypeFilter;
use crate::registry::model::{Client, Consumer, Registry};
use crate::rt;
use futures_channel::oneshot;
use futures_lite::FutureExt;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of events that a core looks at in one turn. A helper thread looks at a larger event, which comes alone, and at any for
/// which a rule has a path to many places.
pub const BATCH_BYTES: usize = 64 << 10;
/// Pause before a dead event that was not stored is stored again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// An event and the session offset under which it goes.
pub type Numbered = (u64, Slice);

/// The gate of one feed.
pub struct Gate {
    receiver: Arc<Receiver>,
    rules: Vec<Scoped>,
    recipient: Option<Arc<Recipient>>,
    waiting: Option<Waiting>,
    /// Events that may go.
    free: VecDeque<Numbered>,
    /// Events that could go by rules that hold no more, before anything else comes.
    again: Vec<Numbered>,
}

/// A rule and what it is for, as records of events say it.
#[derive(PartialEq)]
struct Scoped {
    /// `None` means all.
    types: Option<TypeFilter>,
    /// As JSON writes them; empty means all.
    sources: BTreeSet<Vec<u8>>,
    rule: Arc<Rule>,
}

/// A batch that waits for its records.
struct Waiting {
    events: Vec<Numbered>,
    /// The rules have changed meanwhile.
    is_outdated: bool,
    /// The task that has them written ends when this is dropped.
    _stay: oneshot::Sender<()>,
}

/// An event that a rule covers.
struct Covered {
    number: u64,
    event: Slice,
    rule: Arc<Rule>,
}

impl Gate {
    /// A gate without rules.
    pub fn new(client: ClientId, group: &str) -> Self {
        let receiver = Arc::new(Receiver { user: client.to_string(), group: group.to_owned() });
        Self {
            receiver,
            rules: Vec::new(),
            recipient: None,
            waiting: None,
            free: VecDeque::new(),
            again: Vec::new(),
        }
    }

    /// Takes over the rules of `consumer`, which is `client` and connected from `address`. What has not gone yet goes by them.
    pub fn set_rules(&mut self, registry: &Registry, client: &Client, consumer: &Consumer, address: IpAddr) {
        let rules: Vec<_> = consumer.personal_data.iter().map(|rule| Scoped::new(registry, rule)).collect();
        if rules != self.rules {
            self.rules = rules;
            self.again.extend(self.free.drain(..));
            self.waiting.iter_mut().for_each(|waiting| waiting.is_outdated = true);
        }
        self.recipient = (!self.rules.is_empty()).then(|| {
            Arc::new(Recipient {
                owner_idno: client.owner_idno.clone(),
                client: self.receiver.user.clone(),
                name: client.name.clone(),
                address,
                group: self.receiver.group.clone(),
            })
        });
    }

    /// Whether events have to be handed over.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether a batch waits. Nothing may pass it.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The next event that may go.
    pub fn pass(&mut self) -> Option<Numbered> {
        self.free.pop_front()
    }

    /// Puts an event back that was to go and did not.
    pub fn put_back(&mut self, event: Numbered) {
        self.free.push_front(event);
    }

    /// The batch to be taken before any other, if the rules have changed.
    pub fn take_again(&mut self) -> Option<Vec<Numbered>> {
        (!self.again.is_empty()).then(|| std::mem::take(&mut self.again))
    }

    /// Takes a batch. [`Notice::Recorded`] follows for `session` if the batch has to wait.
    pub fn take(&mut self, core: &Rc<Core>, client: ClientId, session: SessionId, events: Vec<Numbered>) {
        let covered: Vec<_> = events.iter().filter_map(|event| self.covered(core, event)).collect();
        let Some(recipient) = self.recipient.clone().filter(|_| !covered.is_empty()) else {
            return self.free.extend(events);
        };
        let (stay, gone) = oneshot::channel();
        self.waiting = Some(Waiting { events, is_outdated: false, _stay: stay });
        let (core, receiver) = (core.clone(), self.receiver.clone());
        rt::spawn(async move {
            let cleared = async { Some(clear(&core, client, receiver, recipient, covered).await) };
            let left = async {
                // Ends when the feed lets go of the batch.
                let _ = gone.await;
                None
            };
            if let Some(withheld) = cleared.or(left).await {
                core.sessions.tell(session, Notice::Recorded { withheld });
            }
        });
    }

    /// The batch that waits is recorded, and may go but for the events that are `withheld`.
    pub fn recorded(&mut self, withheld: &[u64]) {
        let Some(Waiting { events, is_outdated, .. }) = self.waiting.take() else { return };
        let cleared = events.into_iter().filter(|(number, _)| !withheld.contains(number));
        match is_outdated {
            true => self.again.extend(cleared),
            false => self.free.extend(cleared),
        }
    }

    /// Leaves out what was to go and may not; gives the numbers.
    pub fn leave_out(&mut self, may_go: impl Fn(&Slice) -> bool) -> Vec<u64> {
        let mut left_out = Vec::new();
        let mut stays = |(number, event): &Numbered| {
            let goes = may_go(event);
            left_out.extend((!goes).then_some(*number));
            goes
        };
        self.free.retain(&mut stays);
        self.again.retain(&mut stays);
        left_out
    }

    /// The events that may go or are to be judged anew.
    pub fn held(&self) -> impl Iterator<Item = &Slice> {
        self.free.iter().chain(&self.again).map(|(_, event)| event)
    }

    /// The lowest session offset that has not gone yet, if any is here.
    pub fn first_held(&self) -> Option<u64> {
        let waiting = self.waiting.iter().flat_map(|waiting| &waiting.events);
        self.free.iter().chain(&self.again).chain(waiting).map(|(number, _)| *number).min()
    }

    /// Lets go of everything: the feed has ended.
    pub fn close(&mut self) {
        self.waiting = None;
        self.free.clear();
        self.again.clear();
    }

    fn covered(&self, core: &Core, (number, event): &Numbered) -> Option<Covered> {
        let record = event.record();
        let header = record.header();
        let is_private = PrivateLog::of(header.partition, core.partitions).is_some();
        let covers = |scoped: &&Scoped| {
            scoped.types.as_ref().is_none_or(|types| types.contains(header.type_id))
                && (scoped.sources.is_empty() || scoped.sources.contains(record.source()))
        };
        let scoped = self.rules.iter().find(covers).filter(|_| !is_private)?;
        Some(Covered { number: *number, event: event.clone(), rule: scoped.rule.clone() })
    }
}

impl Scoped {
    fn new(registry: &Registry, rule: &Arc<Rule>) -> Self {
        let id_of = |name: &String| Some(registry.type_by_name.get(name)?.id);
        let stored = |source: &String| {
            let mut written = Vec::new();
            string::write(&mut written, source);
            written
        };
        Self {
            types: (!rule.types.is_empty()).then(|| rule.types.iter().filter_map(id_of).collect()),
            sources: rule.sources.iter().map(stored).collect(),
            rule: rule.clone(),
        }
    }
}

/// Has records written and dead events stored. Gives the numbers of the events that are withheld.
async fn clear(
    core: &Rc<Core>,
    client: ClientId,
    receiver: Arc<Receiver>,
    recipient: Arc<Recipient>,
    covered: Vec<Covered>,
) -> Vec<u64> {
    let bytes = covered.iter().map(|covered| covered.event.len()).sum();
    // A path to many places takes many times as long as reading the event.
    let is_long = bytes > BATCH_BYTES || covered.iter().any(|covered| covered.rule.has_query());
    let records = covered.iter().map(|covered| records_max(&covered.rule, covered.event.len())).sum();
    let room = core.recording.room(records, bytes).await;
    let find = move || -> Vec<(Covered, Extract)> {
        let one = |covered: Covered| {
            let extract = covered.extract(&recipient);
            (covered, extract)
        };
        covered.into_iter().map(one).collect()
    };
    let found = if is_long { core.pool.run(find).await } else { find() };
    let (withheld, sent): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, extract)| extract.is_withheld);
    let withheld: Vec<_> = withheld.into_iter().map(|(covered, _)| covered).collect();
    if !withheld.is_empty() {
        keep_as_dead(core, client, &withheld).await;
    }
    let delivery = |(covered, extract): (Covered, Extract)| Delivery {
        partition: covered.event.record().header().partition.0,
        offset: covered.event.offset().0,
        records: extract.records,
    };
    let deliveries: Vec<_> = sent.into_iter().map(delivery).collect();
    if !deliveries.is_empty() {
        // Without a record too the events may go: that is what the operator's policy says, and the writer has logged it.
        core.recording.record(room, receiver, deliveries).await;
    }
    withheld.iter().map(|covered| covered.number).collect()
}

impl Covered {
    fn extract(&self, recipient: &Recipient) -> Extract {
        let record = self.event.record();
        let origin = Origin {
            partition: record.header().partition.0,
            offset: self.event.offset().0,
            event: record.event(),
        };
        extract(&self.rule, recipient, origin)
    }
}

/// Stores events among the client's dead ones, and tries again until they are durable.
async fn keep_as_dead(core: &Rc<Core>, client: ClientId, withheld: &[Covered]) {
    let partition = PrivateLog::Dead.partition(core.partitions);
    let types = core.private_types(client).await;
    loop {
        let records = withheld.iter().map(|covered| covered.event.record());
        let block = report::withheld(records, partition, types.dead, core.now_ms());
        match core.store(block, None).await {
            Ok(_) => break,
            Err(refusal) => {
                tracing::warn!(%client, %refusal, "events that lack values for their records cannot be kept as dead");
                rt::sleep(STORE_PAUSE).await;
            }
        }
    }
    core.metrics.numbers.events_dead.add(withheld.len() as u64);
    core.recording.progress().count_withheld(withheld.len());
    for Covered { event, .. } in withheld {
        let partition = event.record().header().partition;
        tracing::warn!(
            %client, %partition, offset = %event.offset(),
            "an event lacks values that the record of its transfer must have; it is kept as a dead event"
        );
    }
}
