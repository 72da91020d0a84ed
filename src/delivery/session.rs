//! One consumer's session: what is read for it, sent to it, and confirmed by it.
//!
//! Events are pulled through: the socket asks for the next event when it has room, the window of unconfirmed events lets it
//! have one or not, and a partition is fetched from only while what is ready to send runs low. So a consumer that neither reads
//! nor confirms holds a bounded number of slices and nothing grows.

use super::Confirm;
use super::lane::{Lane, Phase};
use super::window::{Sent, Window};
use crate::id::{Epoch, Offset, Partition};

pub use super::lane::FetchId;
pub use super::window::BadConfirm;

/// An event on its way to a consumer. Cheap to move.
pub trait Event {
    /// Position in the event's partition.
    fn offset(&self) -> Offset;
    /// Size, for the window.
    fn bytes(&self) -> usize;
}

/// Bounds of one session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most events sent and not confirmed.
    pub window_events: usize,
    /// Most bytes sent and not confirmed. A larger event is sent when it is the only one.
    pub window_bytes: usize,
    /// Most bytes asked for in one fetch.
    pub fetch_bytes: usize,
    /// Milliseconds for which a partition that is taken away waits for confirms of what was sent.
    pub grace_ms: u64,
}

/// What the session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Cursors move: to the coordinator, before any later `Revoked`.
    Confirm(Vec<Confirm>),
    /// The partition is no longer read, and what was confirmed of it was reported: to the coordinator.
    Revoked { partition: Partition, epoch: Epoch },
    /// The answer to this fetch is not wanted any more: to the owner of the partition, which may have answered already.
    Cancel { partition: Partition, fetch: FetchId },
    /// Events from `from` on are wanted, `bytes_max` bytes of them or the first one: to the owner of the partition, which
    /// answers by [`Session::fetched`] as soon as there is something.
    Fetch { partition: Partition, fetch: FetchId, from: Offset, bytes_max: usize },
}

/// The state of one consumer's session. `E` is what an event is carried in.
#[derive(Debug)]
pub struct Session<E> {
    limits: Limits,
    /// In the order in which they were assigned.
    lanes: Vec<Lane<E>>,
    /// Index of the lane whose turn it is to send.
    turn: usize,
    window: Window,
    fetches: u64,
}

impl<E: Event> Session<E> {
    /// A session that reads nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, lanes: Vec::new(), turn: 0, window: Window::new(), fetches: 0 }
    }

    /// The coordinator gave this session `partition`, to be read from `from`.
    pub fn assigned(&mut self, partition: Partition, epoch: Epoch, from: Offset) {
        debug_assert!(
            self.lanes.iter().all(|lane| lane.partition != partition),
            "{partition} assigned twice"
        );
        self.lanes.push(Lane::new(partition, epoch, from));
    }

    /// The coordinator takes `partition` away. Nothing more of it is sent; what was sent may still be confirmed for the grace time.
    pub fn revoke(&mut self, partition: Partition, epoch: Epoch, now_ms: u64) {
        let until_ms = now_ms.saturating_add(self.limits.grace_ms);
        if let Some(lane) = find(&mut self.lanes, partition, epoch) {
            lane.rewind();
            lane.phase = Phase::Draining { until_ms };
        }
    }

    /// The owner of a partition answers a fetch: `events` in order, and `next`, from where to read on. Answers to cancelled
    /// fetches are ignored.
    pub fn fetched(&mut self, fetch: FetchId, next: Offset, events: Vec<E>) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.fetch == Some(fetch)) {
            lane.fetched(next, events);
        }
    }

    /// The next event to send and its session offset, if the window has room for it. Partitions take turns.
    pub fn next_event(&mut self) -> Option<(u64, E)> {
        let turn = self.next_turn()?;
        let lane = &mut self.lanes[turn];
        if !self.window.admits(lane.head()?.bytes(), &self.limits) {
            return None;
        }
        let event = lane.pop()?;
        let sent = Sent {
            offset: event.offset(),
            epoch: lane.epoch,
            bytes: event.bytes() as u32,
            partition: lane.partition,
            done: false,
        };
        self.turn = turn + 1;
        Some((self.window.push(sent), event))
    }

    /// The consumer confirms every event up to and including session offset `offset`. Repeats are harmless.
    pub fn confirm(&mut self, offset: u64) -> Result<(), BadConfirm> {
        let lanes = &mut self.lanes;
        self.window.confirm(offset)?.for_each(|sent| settle(lanes, &sent));
        self.after_confirm();
        Ok(())
    }

    /// The one event at session offset `offset` is consumed, whatever was sent before it. Its partition's cursor moves when
    /// the events of that partition before it are consumed too.
    pub fn done(&mut self, offset: u64) -> Result<(), BadConfirm> {
        if let Some(sent) = self.window.mark_done(offset)?
            && let Some(lane) = find(&mut self.lanes, sent.partition, sent.epoch)
        {
            lane.settle();
        }
        let lanes = &mut self.lanes;
        self.window.take(0).for_each(|sent| settle(lanes, &sent));
        self.after_confirm();
        Ok(())
    }

    /// Drops what was fetched and not sent, and reads it again: because the wanted types changed, or so that a session
    /// that makes no progress does not keep expired segments alive.
    pub fn reread(&mut self) {
        self.lanes.iter_mut().for_each(Lane::rewind);
    }

    /// The next event of each partition that is not sent, the oldest of those that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &E> {
        self.lanes.iter().filter_map(Lane::head)
    }

    /// Time went on: gives up waiting for confirms where the grace ran out.
    pub fn tick(&mut self, now_ms: u64) {
        for lane in &mut self.lanes {
            if matches!(lane.phase, Phase::Draining { until_ms } if until_ms <= now_ms) {
                lane.phase = Phase::Abandoned;
            }
        }
    }

    /// When `tick` is next needed, in Unix milliseconds.
    pub fn wake_at(&self) -> Option<u64> {
        self.lanes.iter().filter_map(|lane| lane.phase.deadline()).min()
    }

    /// The next effect. To be called until it gives `None`, after one or after several inputs: confirms that came together go
    /// out together.
    pub fn poll(&mut self) -> Option<Effect> {
        self.poll_confirm()
            .or_else(|| self.poll_cancel())
            .or_else(|| self.poll_revoked())
            .or_else(|| self.poll_fetch())
    }

    /// Fetches whose answers are outstanding: to be cancelled when the session ends.
    pub fn outstanding(&self) -> impl Iterator<Item = (Partition, FetchId)> {
        self.lanes.iter().filter_map(|lane| Some((lane.partition, lane.fetch?)))
    }

    /// Events sent and not confirmed.
    pub fn unconfirmed(&self) -> usize {
        self.window.len()
    }

    fn poll_confirm(&mut self) -> Option<Effect> {
        let confirms: Vec<_> = self.lanes.iter_mut().filter_map(Lane::report).collect();
        (!confirms.is_empty()).then_some(Effect::Confirm(confirms))
    }

    fn poll_cancel(&mut self) -> Option<Effect> {
        let cancel = |lane: &mut Lane<E>| {
            Some(Effect::Cancel { partition: lane.partition, fetch: lane.cancel.take()? })
        };
        self.lanes.iter_mut().find_map(cancel)
    }

    fn poll_revoked(&mut self) -> Option<Effect> {
        let at = self.lanes.iter().position(Lane::is_drained)?;
        let Lane { partition, epoch, .. } = self.lanes.remove(at);
        Some(Effect::Revoked { partition, epoch })
    }

    fn poll_fetch(&mut self) -> Option<Effect> {
        let bytes_max = self.limits.fetch_bytes;
        if !self.window.has_room(&self.limits) {
            return None;
        }
        let (lane, from) =
            self.lanes.iter_mut().find_map(|lane| lane.wants(bytes_max).map(|from| (lane, from)))?;
        self.fetches += 1;
        let fetch = FetchId(self.fetches);
        lane.fetch = Some(fetch);
        Some(Effect::Fetch { partition: lane.partition, fetch, from, bytes_max })
    }

    /// Index of the next lane, from the one whose turn it is, that has an event ready.
    fn next_turn(&self) -> Option<usize> {
        let count = self.lanes.len();
        (self.turn..self.turn + count).map(|at| at % count).find(|&at| self.lanes[at].head().is_some())
    }

    fn after_confirm(&mut self) {
        if self.window.has_done() {
            for lane in &mut self.lanes {
                if let Some(offset) = self.window.done_prefix(lane.partition, lane.epoch) {
                    lane.confirm(offset);
                }
            }
        }
        self.window.shrink();
    }
}

impl Phase {
    fn deadline(&self) -> Option<u64> {
        match *self {
            Phase::Draining { until_ms } => Some(until_ms),
            Phase::Reading | Phase::Abandoned => None,
        }
    }
}

impl Window {
    fn has_room(&self, limits: &Limits) -> bool {
        self.len() < limits.window_events && self.bytes() < limits.window_bytes
    }

    fn admits(&self, bytes: usize, limits: &Limits) -> bool {
        self.len() == 0 || self.len() < limits.window_events && self.bytes() + bytes <= limits.window_bytes
    }
}

/// The lane at exactly this epoch: an event sent under an older one belongs to no lane any more.
fn find<E>(lanes: &mut [Lane<E>], partition: Partition, epoch: Epoch) -> Option<&mut Lane<E>> {
    lanes.iter_mut().find(|lane| (lane.partition, lane.epoch) == (partition, epoch))
}

/// Takes note in its lane of a sent event that left the window: everything sent before it is consumed too.
fn settle<E: Event>(lanes: &mut [Lane<E>], sent: &Sent) {
    if let Some(lane) = find(lanes, sent.partition, sent.epoch) {
        if !sent.done {
            lane.settle();
        }
        lane.confirm(sent.offset.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { window_events: 4, window_bytes: 1000, fetch_bytes: 100, grace_ms: 500 };
    const P0: Partition = Partition(0);
    const P1: Partition = Partition(1);

    #[derive(Debug, PartialEq)]
    struct Sample(Offset, usize);

    impl Event for Sample {
        fn offset(&self) -> Offset {
            self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn samples(offsets: std::ops::Range<u64>) -> Vec<Sample> {
        offsets.map(|offset| Sample(Offset(offset), 10)).collect()
    }

    fn effects(session: &mut Session<Sample>) -> Vec<Effect> {
        std::iter::from_fn(|| session.poll()).collect()
    }

    fn fetches(effects: &[Effect]) -> Vec<(Partition, FetchId, Offset)> {
        let fetch = |effect: &Effect| match *effect {
            Effect::Fetch { partition, fetch, from, .. } => Some((partition, fetch, from)),
            _ => None,
        };
        effects.iter().filter_map(fetch).collect()
    }

    fn sends(session: &mut Session<Sample>) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| session.next_event()).map(|(offset, event)| (offset, event.0.0)).collect()
    }

    /// A session that reads the given partitions from 0, with its first fetch of each.
    fn reading(limits: Limits, partitions: &[Partition]) -> (Session<Sample>, Vec<FetchId>) {
        let mut session = Session::new(limits);
        for &partition in partitions {
            session.assigned(partition, Epoch(1), Offset(0));
        }
        let fetched = fetches(&effects(&mut session));
        assert_eq!(fetched.len(), partitions.len());
        (session, fetched.into_iter().map(|(_, fetch, _)| fetch).collect())
    }

    fn confirm_of(partition: Partition, offset: u64) -> Effect {
        Effect::Confirm(vec![Confirm { partition, epoch: Epoch(1), offset: Offset(offset) }])
    }

    #[test]
    fn one_fetch_a_partition_is_outstanding_and_the_next_starts_where_the_answer_ended() {
        let (mut session, ids) = reading(LIMITS, &[P0, P1]);
        assert_eq!(effects(&mut session), []);
        session.fetched(ids[1], Offset(40), samples(3..5));
        assert_eq!(fetches(&effects(&mut session)), [(P1, FetchId(3), Offset(40))]);
    }

    #[test]
    fn what_is_ready_to_send_is_bounded_by_two_answers() {
        let (mut session, ids) = reading(LIMITS, &[P0]);
        session.fetched(ids[0], Offset(5), samples(0..5));
        let next = fetches(&effects(&mut session))[0];
        session.fetched(next.1, Offset(15), samples(5..15));
        assert_eq!(effects(&mut session), []);
    }

    #[test]
    fn session_offsets_count_from_one_and_partitions_take_turns() {
        let (mut session, ids) = reading(LIMITS, &[P0, P1]);
        session.fetched(ids[0], Offset(3), samples(0..3));
        session.fetched(ids[1], Offset(72), samples(70..72));
        assert_eq!(sends(&mut session), [(1, 0), (2, 70), (3, 1), (4, 71)]);
    }

    #[test]
    fn a_full_window_stops_sending_and_fetching_until_a_confirm() {
        let (mut session, ids) = reading(LIMITS, &[P0]);
        session.fetched(ids[0], Offset(6), samples(0..6));
        assert_eq!(sends(&mut session).len(), 4);
        assert_eq!(effects(&mut session), []);
        session.confirm(1).unwrap();
        let after = effects(&mut session);
        assert_eq!((&after[0], fetches(&after).len()), (&confirm_of(P0, 1), 1));
        assert_eq!(sends(&mut session), [(5, 4)]);
    }

    #[test]
    fn bytes_bound_the_window_too_but_one_large_event_always_passes() {
        let (mut session, ids) = reading(LIMITS, &[P0]);
        let large = (0..3).map(|n| Sample(Offset(n), 600 * (n as usize + 1))).collect();
        session.fetched(ids[0], Offset(3), large);
        assert_eq!(sends(&mut session), [(1, 0)]);
        session.confirm(1).unwrap();
        assert_eq!(sends(&mut session), [(2, 1)]);
        assert_eq!(sends(&mut session), []);
    }

    #[test]
    fn confirms_that_came_together_go_out_together() {
        let (mut session, ids) = reading(LIMITS, &[P0, P1]);
        session.fetched(ids[0], Offset(2), samples(0..2));
        session.fetched(ids[1], Offset(2), samples(0..2));
        sends(&mut session);
        effects(&mut session);
        session.confirm(1).unwrap();
        session.confirm(3).unwrap();
        let confirm = |partition, offset| Confirm { partition, epoch: Epoch(1), offset: Offset(offset) };
        assert_eq!(effects(&mut session)[0], Effect::Confirm(vec![confirm(P0, 2), confirm(P1, 1)]));
        assert_eq!(session.confirm(9), Err(BadConfirm { offset: 9, last_sent: 4 }));
    }

    #[test]
    fn a_partition_with_nothing_open_is_given_back_at_once_and_its_fetch_cancelled() {
        let (mut session, ids) = reading(LIMITS, &[P0, P1]);
        session.revoke(P0, Epoch(1), 1000);
        let revoked = Effect::Revoked { partition: P0, epoch: Epoch(1) };
        assert_eq!(effects(&mut session), [Effect::Cancel { partition: P0, fetch: ids[0] }, revoked]);
        session.fetched(ids[0], Offset(2), samples(0..2));
        assert_eq!(sends(&mut session), []);
        assert_eq!(session.outstanding().collect::<Vec<_>>(), [(P1, ids[1])]);
    }

    #[test]
    fn a_revoked_partition_sends_nothing_more_and_is_given_back_after_its_last_confirm() {
        let (mut session, ids) = reading(LIMITS, &[P0]);
        session.fetched(ids[0], Offset(3), samples(0..3));
        assert!(session.next_event().is_some() && session.next_event().is_some());
        effects(&mut session);
        session.revoke(P0, Epoch(1), 1000);
        assert_eq!(sends(&mut session), []);
        session.confirm(1).unwrap();
        assert!(!effects(&mut session).contains(&Effect::Revoked { partition: P0, epoch: Epoch(1) }));
        session.confirm(2).unwrap();
        assert_eq!(
            effects(&mut session),
            [confirm_of(P0, 2), Effect::Revoked { partition: P0, epoch: Epoch(1) }]
        );
    }

    #[test]
    fn a_drain_ends_with_its_grace_and_late_confirms_are_harmless() {
        let (mut session, ids) = reading(LIMITS, &[P0]);
        session.fetched(ids[0], Offset(1), samples(0..1));
        sends(&mut session);
        effects(&mut session);
        session.revoke(P0, Epoch(1), 1000);
        assert_eq!(session.wake_at(), Some(1500));
        session.tick(1499);
        effects(&mut session);
        session.tick(1500);
        assert_eq!(effects(&mut session), [Effect::Revoked { partition: P0, epoch: Epoch(1) }]);
        assert_eq!(session.wake_at(), None);
        session.assigned(P0, Epoch(2), Offset(0));
        session.confirm(1).unwrap();
        assert_eq!(fetches(&effects(&mut session)), [(P0, FetchId(3), Offset(0))]);
        assert_eq!(session.unconfirmed(), 0);
    }

    #[test]
    fn a_done_event_moves_its_cursor_when_those_before_it_in_its_partition_are_consumed() {
        let (mut session, ids) = reading(LIMITS, &[P0, P1]);
        session.fetched(ids[0], Offset(2), samples(0..2));
        session.fetched(ids[1], Offset(2), samples(0..2));
        assert_eq!(sends(&mut session).len(), 4);
        effects(&mut session);
        session.done(3).unwrap();
        session.done(3).unwrap();
        assert_eq!(effects(&mut session), []);
        session.confirm(1).unwrap();
        assert_eq!(effects(&mut session)[0], confirm_of(P0, 2));
        session.done(2).unwrap();
        assert_eq!(effects(&mut session)[0], confirm_of(P1, 1));
        assert_eq!(session.unconfirmed(), 1);
    }

    #[test]
    fn rereading_drops_what_was_not_sent_and_fetches_from_there_again() {
        let (mut session, ids) = reading(LIMITS, &[P0]);
        session.fetched(ids[0], Offset(9), samples(0..2));
        assert!(session.next_event().is_some());
        let parked = fetches(&effects(&mut session))[0].1;
        session.reread();
        let after = effects(&mut session);
        assert_eq!(after[0], Effect::Cancel { partition: P0, fetch: parked });
        assert_eq!(fetches(&after), [(P0, FetchId(3), Offset(1))]);
        session.fetched(parked, Offset(50), samples(9..12));
        assert_eq!(sends(&mut session), []);
    }
}
