//! What one consumer reads, whichever way it is connected: its session, its rights, and what the rest of the broker tells it.
//!
//! A feed does no I/O and has no task of its own. Whoever owns it takes [`News`] until there is none, then events for as long as
//! the client takes them, and passes on what the client says. After any of that it calls [`Feed::pass_on_effects`].

use super::personal_data::{BATCH_BYTES, Gate};
use super::subscription::Subscription;
use crate::auth::Peer;
use crate::broker::message::{Fetch, HEAD, Message};
use crate::broker::refusal::Refusal;
use crate::broker::sessions::{Membership, Notice};
use crate::broker::{Block, Core, Slice};
use crate::delivery::session::{BadConfirm, Effect, Limits, Session};
use crate::id::{ClientId, Epoch, Partition, PrivateLog, TypeId};
use crate::ingress::report::Report;
use crate::partition::TypeFilter;
use crate::rt;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Bytes asked for in one fetch.
const FETCH_BYTES: usize = 64 << 10;

/// Time after which it is looked again whether the events that wait are in memory.
const LOOK_AGAIN_MS: u64 = 20;

/// The state of one consumer.
pub struct Feed {
    core: Rc<Core>,
    peer: Rc<Peer>,
    client: ClientId,
    session: Session<Slice>,
    /// `None` once the session has left its group.
    membership: Option<Membership>,
    /// Of ordinary events.
    types: TypeFilter,
    /// The client's numbers in the private logs that are read, by log.
    private: [Option<TypeId>; PrivateLog::ALL.len()],
    /// What holds back events with personal data.
    gate: Gate,
    /// A dead event is on its way to the journal.
    reporting: bool,
    /// When events that wait were last looked for in memory, by [`Core::uptime_ms`].
    looked_ms: u64,
    /// Some of them are being brought there.
    bringing: bool,
}

/// What the owner of a feed must know.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// There may be more events, or less to wait for.
    Progress,
    /// The time asked for by [`Feed::wake_at`] has come.
    Tick,
    /// A partition is to be given back.
    Revoked,
    /// The client may not go on, for this reason.
    Ended(String),
    /// The broker stops.
    Stopping,
    /// The dead event that was reported is durable, and the event of this offset consumed by that.
    Reported(Option<u64>),
    /// The dead event that was reported was not stored; it may be reported again.
    NotReported(Refusal),
}

impl Feed {
    /// A feed that reads nothing until the head has answered. Fails with the reason when the client may not consume.
    pub fn open(core: &Rc<Core>, peer: Rc<Peer>, subscription: &Subscription) -> Result<Self, String> {
        let settings = &core.config.delivery;
        let limits = Limits {
            window_events: settings.window_events,
            window_bytes: settings.window_bytes,
            fetch_bytes: FETCH_BYTES,
            grace_ms: settings.revoke_grace.as_millis() as u64,
        };
        let Subscription { client, group, wanted } = subscription;
        let mut feed = Self {
            core: core.clone(),
            peer,
            client: *client,
            session: Session::new(limits),
            membership: None,
            types: TypeFilter::default(),
            private: [None; PrivateLog::ALL.len()],
            gate: Gate::new(*client, group),
            reporting: false,
            looked_ms: core.uptime_ms(),
            bringing: false,
        };
        feed.look_up_rights()?;
        feed.membership = Some(core.join(*client, group.clone(), *wanted));
        Ok(feed)
    }

    /// The next piece of news. `None` when there is none, also for ever after [`Feed::leave`].
    pub fn take_news(&mut self) -> Option<News> {
        let notice = self.membership.as_ref()?.mailbox.take()?;
        Some(self.notice(notice))
    }

    /// Ready when there may be news.
    pub fn poll_news(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.membership.as_ref().map_or(Poll::Pending, |membership| membership.mailbox.poll(cx))
    }

    fn notice(&mut self, notice: Notice) -> News {
        match notice {
            Notice::Assign { partition, epoch, from } => self.session.assigned(partition, epoch, from),
            Notice::Follow { log, type_id, from } => {
                self.private[log as usize] = Some(type_id);
                self.session.assigned(log.partition(self.core.partitions), Epoch(0), from);
            }
            Notice::Revoke { partition, epoch } => {
                self.session.revoke(partition, epoch, self.core.uptime_ms());
                return News::Revoked;
            }
            Notice::Fetched { fetch, next, events } => self.session.fetched(fetch, next, events),
            Notice::RegistryChanged => {
                let before = self.types.clone();
                if let Err(reason) = self.look_up_rights() {
                    return News::Ended(reason);
                }
                if self.types != before {
                    self.leave_out();
                    self.session.reread();
                }
            }
            Notice::Tick => {
                self.session.tick(self.core.uptime_ms());
                return News::Tick;
            }
            Notice::Reported { offset, outcome } => return self.reported(offset, outcome),
            Notice::Recorded { withheld } => self.recorded(&withheld),
            Notice::Brought => self.bringing = false,
            Notice::Dismiss { reason } => return News::Ended(reason.into()),
            Notice::Stop => return News::Stopping,
        }
        News::Progress
    }

    /// Which types the client may consume now, or why it may no longer be here.
    fn look_up_rights(&mut self) -> Result<(), String> {
        let live = self.core.live();
        let client = live.client_of(&self.peer).map_err(|problem| problem.to_string())?;
        let consumer = client.consumer.as_ref().filter(|_| client.id == self.client);
        let consumer = consumer.ok_or("the client is not registered as a consumer")?;
        self.types = live.types_of(client.id);
        self.gate.set_rules(&live.registry, client, consumer, self.peer.address);
        Ok(())
    }

    /// The next event to send and its session offset, if the window has room for it and its record, where it needs one, is durable.
    /// To be asked for only when the client takes it: an event with personal data counts as delivered from then on.
    pub fn next_event(&mut self) -> Option<(u64, Slice)> {
        if self.bringing {
            return None;
        }
        loop {
            if let Some(event) = self.gate.pass() {
                return Some(event);
            }
            if self.gate.is_waiting() {
                return None;
            }
            let again = self.gate.take_again();
            if again.is_none() && !self.gate.has_rules() {
                return self.session.next_event();
            }
            let session = self.membership.as_ref()?.session;
            let batch = again.or_else(|| self.next_batch())?;
            self.gate.take(&self.core, self.client, session, batch);
        }
    }

    /// Puts back an event that [`next_event`](Self::next_event) gave last and that the client did not take.
    pub fn put_back(&mut self, event: (u64, Slice)) {
        self.gate.put_back(event);
    }

    fn next_batch(&mut self) -> Option<Vec<(u64, Slice)>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some((number, event)) = self.session.next_event()
        {
            bytes += event.len();
            batch.push((number, event));
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// The records of the batch that waits are durable, and so are the dead events of what is withheld: it is consumed.
    fn recorded(&mut self, withheld: &[u64]) {
        self.gate.recorded(withheld);
        withheld.iter().for_each(|number| self.consumed(*number));
        self.leave_out();
    }

    /// What the client may not see any more is not sent, and counts as consumed.
    fn leave_out(&mut self) {
        let Self { gate, types, core, .. } = self;
        let may_go = |event: &Slice| may_see(core, types, event);
        gate.leave_out(may_go).into_iter().for_each(|number| self.consumed(number));
    }

    /// Whether the client may still see an event that it was given before, or was to be.
    pub fn may_see(&self, event: &Slice) -> bool {
        may_see(&self.core, &self.types, event)
    }

    fn consumed(&mut self, number: u64) {
        if let Err(unknown) = self.settle(|session| session.done(number)) {
            tracing::error!(client = %self.client, %unknown, "an event that is left out is none of its session");
        }
    }

    /// Counts what was handed to the client's connection.
    pub fn sent(&self, events: u64, bytes: u64) {
        let numbers = &self.core.metrics.numbers;
        numbers.events_delivered.add(events);
        numbers.bytes_delivered.add(bytes);
    }

    /// The client consumed every event up to and including session offset `offset`.
    pub fn confirm(&mut self, offset: u64) -> Result<(), BadConfirm> {
        self.has_gone(offset)?;
        self.settle(|session| session.confirm(offset))
    }

    /// The client consumed the one event of session offset `offset`.
    pub fn confirm_one(&mut self, offset: u64) -> Result<(), BadConfirm> {
        self.has_gone(offset)?;
        self.settle(|session| session.done(offset))
    }

    /// Refuses offsets that the gate holds back: the client cannot know them.
    fn has_gone(&self, offset: u64) -> Result<(), BadConfirm> {
        match self.gate.first_held() {
            Some(first) if offset >= first => Err(BadConfirm { offset, last_sent: first - 1 }),
            _ => Ok(()),
        }
    }

    fn settle(
        &mut self,
        act: impl FnOnce(&mut Session<Slice>) -> Result<(), BadConfirm>,
    ) -> Result<(), BadConfirm> {
        let before = self.session.unconfirmed();
        act(&mut self.session)?;
        self.core.metrics.numbers.events_confirmed.add((before - self.session.unconfirmed()) as u64);
        Ok(())
    }

    /// Stores a dead event. [`News::Reported`] or [`News::NotReported`] follows; until then there must be no other report.
    pub fn report(&mut self, report: Report) {
        debug_assert!(!self.reporting, "one report at a time");
        let Some(membership) = &self.membership else { return };
        self.reporting = true;
        let (core, client, session) = (self.core.clone(), self.client, membership.session);
        rt::spawn(async move {
            let types = core.private_types(client).await;
            let Report { event, offset } = report;
            let block = event.block(PrivateLog::Dead.partition(core.partitions), types.dead, core.now_ms());
            let outcome = store(&core, block).await;
            core.sessions.tell(session, Notice::Reported { offset, outcome });
        });
    }

    /// Whether a report is not answered yet.
    pub fn is_reporting(&self) -> bool {
        self.reporting
    }

    fn reported(&mut self, offset: Option<u64>, outcome: Result<(), Refusal>) -> News {
        self.reporting = false;
        if let Err(refusal) = outcome {
            return News::NotReported(refusal);
        }
        self.core.metrics.numbers.events_dead.add(1);
        // An offset that was not sent on this connection is of an earlier one, whose events come again in any case.
        if let Some(offset) = offset
            && let Err(unknown) = self.confirm_one(offset)
        {
            tracing::info!(client = %self.client, %unknown, "a dead event names no event of its session");
        }
        News::Reported(offset)
    }

    /// Sees to it that events which wait, `taken` ones among them, are in memory when they are taken: to touch one that is not would keep
    /// everybody on this core waiting for the disk.
    pub fn keep_in_memory<'a>(&mut self, taken: impl IntoIterator<Item = &'a Slice>) {
        let now_ms = self.core.uptime_ms();
        if self.bringing || now_ms < self.looked_ms + LOOK_AGAIN_MS {
            return;
        }
        self.looked_ms = now_ms;
        if !self.session.waiting().all(Slice::is_resident) {
            self.session.reread();
        }
        let is_away = |event: &&Slice| !event.is_resident();
        let mut away: Vec<_> = self.gate.held().filter(is_away).cloned().collect();
        away.extend(taken.into_iter().filter(is_away).cloned());
        if !away.is_empty() {
            self.bring(away);
        }
    }

    /// Whether events are being brought into memory. Until [`News::Progress`] none is to be taken.
    pub fn is_bringing(&self) -> bool {
        self.bringing
    }

    fn bring(&mut self, events: Vec<Slice>) {
        let Some(membership) = &self.membership else { return };
        self.bringing = true;
        self.core.metrics.numbers.cold_reads.add(1);
        let (core, session) = (self.core.clone(), membership.session);
        rt::spawn(async move {
            let brought = core.readers.run(move || events.iter().try_for_each(Slice::populate)).await;
            let notice = match brought {
                Ok(()) => Notice::Brought,
                Err(error) => {
                    tracing::error!(%error, "events that wait for a consumer cannot be read");
                    Notice::Dismiss { reason: "stored events cannot be read" }
                }
            };
            core.sessions.tell(session, notice);
        });
    }

    /// Passes on what the session wants of others.
    pub fn pass_on_effects(&mut self) {
        let Some(session) = self.membership.as_ref().map(|membership| membership.session) else { return };
        while let Some(effect) = self.session.poll() {
            match effect {
                Effect::Confirm(confirms) => self.core.post(HEAD, Message::Confirm { session, confirms }),
                Effect::Revoked { partition, epoch } => {
                    self.core.post(HEAD, Message::Revoked { session, partition, epoch });
                }
                Effect::Cancel { partition, fetch } => self.core.cancel_fetch(session, partition, fetch),
                Effect::Fetch { partition, fetch, from, bytes_max } => {
                    let types = self.types_in(partition);
                    self.core.fetch(Fetch { session, fetch, partition, from, bytes_max, types });
                }
            }
        }
    }

    fn types_in(&self, partition: Partition) -> TypeFilter {
        match PrivateLog::of(partition, self.core.partitions) {
            None => self.types.clone(),
            Some(log) => self.private[log as usize].into_iter().collect(),
        }
    }

    /// Asks for a tick when the session needs one, at the latest at `at_ms` by [`Core::uptime_ms`].
    pub fn wake_at(&self, at_ms: u64) {
        if let Some(membership) = &self.membership {
            membership.mailbox.tick_at(self.session.wake_at().unwrap_or(u64::MAX).min(at_ms));
        }
    }

    /// Leaves the group, which gets the partitions at once.
    pub fn leave(&mut self) {
        self.gate.close();
        if let Some(membership) = self.membership.take() {
            for (partition, fetch) in self.session.outstanding() {
                self.core.cancel_fetch(membership.session, partition, fetch);
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Test and dead events are a client's own, whatever types it may consume.
fn may_see(core: &Core, types: &TypeFilter, event: &Slice) -> bool {
    let header = event.record().header();
    types.contains(header.type_id) || PrivateLog::of(header.partition, core.partitions).is_some()
}

async fn store(core: &Core, block: Block) -> Result<(), Refusal> {
    core.store(block, None).await.map(|_| ())
}
