//! What a long-polling instance has read of its session.
//!
//! Events go out in answers, and whether an answer arrived is found out later, if at all. So each answer is remembered until
//! its events are confirmed: one that failed brings its events back, under the same offsets, before anything new is handed out;
//! and "all that I have read" means the events of answers that were sent, not of those that are under way or came back.

use std::collections::VecDeque;

/// The readings of one instance. An event is whatever the session gives, with its session offset.
pub struct Readings<E> {
    /// To be handed out before anything else, in the order of offsets.
    ready: VecDeque<(u64, E)>,
    /// Handed out and not confirmed, the oldest first.
    answers: VecDeque<Answer<E>>,
    /// The number of the last answer.
    last_answer: u64,
    /// The highest offset that was handed out.
    last_offset: u64,
}

struct Answer<E> {
    number: u64,
    /// Not confirmed yet, in the order of offsets.
    offsets: Vec<u64>,
    /// The events of these offsets, until the answer has certainly arrived.
    events: Vec<(u64, E)>,
    fate: Fate,
}

/// What is known of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Sent,
    /// It has certainly arrived.
    Arrived,
}

/// What an instance has consumed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// Every event up to and including this offset.
    pub upto: Option<u64>,
    /// And these: something before them is still to be read.
    pub also: Vec<u64>,
}

/// No event of this offset was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOffset(pub u64);

/// What still fits into an answer.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    events_left: usize,
    bytes_left: usize,
    is_empty: bool,
}

impl<E> Default for Readings<E> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), answers: VecDeque::new(), last_answer: 0, last_offset: 0 }
    }
}

impl<E: Clone> Readings<E> {
    /// The next event that came back.
    pub fn take_ready(&mut self) -> Option<(u64, E)> {
        self.ready.pop_front()
    }

    /// The events that came back.
    pub fn ready(&self) -> impl Iterator<Item = &E> {
        self.ready.iter().map(|(_, event)| event)
    }

    /// Keeps an event that was taken and did not fit: it is the next one.
    pub fn keep(&mut self, event: (u64, E)) {
        self.ready.push_front(event);
    }

    /// Hands events out, and gives their answer a number.
    pub fn hand_out(&mut self, events: &[(u64, E)]) -> u64 {
        self.last_answer += 1;
        let offsets: Vec<_> = events.iter().map(|(offset, _)| *offset).collect();
        self.last_offset = offsets.iter().copied().fold(self.last_offset, u64::max);
        let answer =
            Answer { number: self.last_answer, offsets, events: events.to_vec(), fate: Fate::UnderWay };
        self.answers.push_back(answer);
        self.last_answer
    }

    /// Forgets of every answer that it was sent, unless it has certainly arrived, and gives the numbers of these: what was true of
    /// a connection need not be true any more.
    pub fn doubt(&mut self) -> Vec<u64> {
        let doubtful = self.answers.iter_mut().filter(|answer| answer.fate != Fate::Arrived);
        doubtful
            .map(|answer| {
                answer.fate = Fate::UnderWay;
                answer.number
            })
            .collect()
    }

    /// An answer was sent.
    pub fn sent(&mut self, number: u64) {
        let under_way = |answer: &&mut Answer<E>| answer.number == number && answer.fate == Fate::UnderWay;
        self.answers.iter_mut().filter(under_way).for_each(|answer| answer.fate = Fate::Sent);
    }

    /// An answer has arrived: its events will not come back.
    pub fn arrived(&mut self, number: u64) {
        for answer in self.answers.iter_mut().filter(|answer| answer.number == number) {
            (answer.fate, answer.events) = (Fate::Arrived, Vec::new());
        }
    }

    /// An answer did not arrive: what of it is not confirmed comes back.
    pub fn failed(&mut self, number: u64) {
        let of_number = |answer: &Answer<E>| answer.number == number && answer.fate != Fate::Arrived;
        let Some(at) = self.answers.iter().position(of_number) else { return };
        let Some(answer) = self.answers.remove(at) else { return };
        let unconfirmed = answer.events.into_iter().filter(|(offset, _)| answer.offsets.contains(offset));
        self.ready.extend(unconfirmed);
        self.ready.make_contiguous().sort_by_key(|(offset, _)| *offset);
    }

    /// The instance has consumed all that it has read.
    pub fn consume_read(&mut self) -> Consumed {
        let returned = self.ready.iter().map(|(offset, _)| *offset);
        let under_way = self
            .answers
            .iter()
            .filter(|answer| answer.fate == Fate::UnderWay)
            .flat_map(|answer| &answer.offsets);
        let barrier = returned.chain(under_way.copied()).min().unwrap_or(u64::MAX);
        let mut consumed = Consumed::default();
        for answer in self.answers.iter().filter(|answer| answer.fate != Fate::UnderWay) {
            for &offset in &answer.offsets {
                match offset < barrier {
                    true => consumed.upto = consumed.upto.max(Some(offset)),
                    false => consumed.also.push(offset),
                }
            }
        }
        self.answers.retain(|answer| answer.fate == Fate::UnderWay);
        consumed
    }

    /// The instance has consumed everything up to `offset`, whatever became of the answers. Repeats are harmless.
    pub fn consume(&mut self, offset: u64) -> Result<(), UnknownOffset> {
        if offset == 0 || offset > self.last_offset {
            return Err(UnknownOffset(offset));
        }
        self.forget(|other| other <= offset);
        Ok(())
    }

    /// One event is consumed, whatever becomes of its answer.
    pub fn consume_one(&mut self, offset: u64) {
        self.forget(|other| other == offset);
    }

    fn forget(&mut self, is_consumed: impl Fn(u64) -> bool) {
        self.ready.retain(|(offset, _)| !is_consumed(*offset));
        for answer in &mut self.answers {
            answer.offsets.retain(|offset| !is_consumed(*offset));
        }
        self.answers.retain(|answer| !answer.offsets.is_empty());
    }
}

impl Room {
    /// Room for so many events and bytes.
    pub fn new(events: usize, bytes: usize) -> Self {
        Self { events_left: events, bytes_left: bytes, is_empty: true }
    }

    /// Whether no more events fit.
    pub fn is_full(&self) -> bool {
        self.events_left == 0
    }

    /// Takes `bytes` for an event, if they are there. The first event always has its room: it would never go otherwise.
    pub fn take(&mut self, bytes: usize) -> bool {
        let fits = self.events_left > 0 && (bytes <= self.bytes_left || self.is_empty);
        if fits {
            self.events_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.is_empty = false;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Sample = Readings<&'static str>;

    fn upto(offset: u64) -> Consumed {
        Consumed { upto: Some(offset), also: Vec::new() }
    }

    #[test]
    fn what_was_read_is_what_was_sent() {
        let mut readings = Sample::default();
        let first = readings.hand_out(&[(1, "a"), (2, "b")]);
        assert_eq!(readings.consume_read(), Consumed::default());
        readings.sent(first);
        assert_eq!((readings.doubt(), readings.consume_read()), (vec![first], Consumed::default()));
        readings.sent(first);
        assert_eq!(readings.consume_read(), upto(2));
        assert_eq!(readings.consume_read(), Consumed::default());
        readings.failed(first);
        assert_eq!(readings.take_ready(), None);
    }

    #[test]
    fn a_failed_answer_brings_its_events_back_and_they_are_not_read() {
        let mut readings = Sample::default();
        let first = readings.hand_out(&[(1, "a"), (2, "b")]);
        readings.sent(first);
        let second = readings.hand_out(&[(3, "c")]);
        readings.failed(first);
        readings.sent(second);
        assert_eq!(readings.consume_read(), Consumed { upto: None, also: vec![3] });
        assert_eq!(
            [readings.take_ready(), readings.take_ready(), readings.take_ready()],
            [Some((1, "a")), Some((2, "b")), None]
        );
        let again = readings.hand_out(&[(1, "a"), (2, "b")]);
        readings.arrived(again);
        readings.failed(again);
        assert_eq!(readings.take_ready(), None);
    }

    #[test]
    fn events_come_back_in_the_order_of_their_offsets() {
        let mut readings = Sample::default();
        let (first, second) = (readings.hand_out(&[(1, "a")]), readings.hand_out(&[(2, "b")]));
        readings.keep((3, "c"));
        readings.failed(second);
        readings.failed(first);
        assert_eq!(
            std::iter::from_fn(|| readings.take_ready()).map(|(offset, _)| offset).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }

    #[test]
    fn an_offset_confirms_what_it_names_and_nothing_that_was_never_handed_out() {
        let mut readings = Sample::default();
        readings.keep((3, "c"));
        assert_eq!(readings.consume(1), Err(UnknownOffset(1)));
        let first = readings.hand_out(&[(1, "a"), (2, "b")]);
        assert_eq!(readings.consume(0), Err(UnknownOffset(0)));
        assert_eq!(readings.consume(3), Err(UnknownOffset(3)));
        assert_eq!((readings.consume(1), readings.consume(1)), (Ok(()), Ok(())));
        readings.failed(first);
        assert_eq!((readings.take_ready(), readings.take_ready()), (Some((2, "b")), Some((3, "c"))));
    }

    #[test]
    fn an_event_that_was_reported_dead_does_not_come_back() {
        let mut readings = Sample::default();
        let first = readings.hand_out(&[(1, "a"), (2, "b")]);
        readings.consume_one(1);
        readings.failed(first);
        assert_eq!((readings.take_ready(), readings.take_ready()), (Some((2, "b")), None));
    }

    #[test]
    fn an_answer_is_bounded_but_never_empty() {
        let mut room = Room::new(3, 100);
        assert!(room.take(60) && !room.take(41) && room.take(40) && room.take(0) && room.is_full());
        assert!(!room.take(0));
        let mut room = Room::new(3, 100);
        assert!(room.take(1000) && !room.take(1));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Read(usize),
        Sent(u64),
        Arrived(u64),
        Failed(u64),
        ConsumeRead,
        Consume(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (1_usize..4).prop_map(Act::Read),
            (1_u64..8).prop_map(Act::Sent),
            (1_u64..8).prop_map(Act::Arrived),
            (1_u64..8).prop_map(Act::Failed),
            Just(Act::ConsumeRead),
            (0_u64..20).prop_map(Act::Consume),
        ]
    }

    proptest! {
        /// No event is lost: each is consumed, or under way, or handed out again; and none is consumed before it was sent
        /// or named.
        #[test]
        fn every_event_is_somewhere(acts in prop::collection::vec(act(), 1..60)) {
            let mut readings = Readings::<()>::default();
            let (mut taken, mut consumed) = (0_u64, BTreeSet::new());
            let mut seen = BTreeSet::new();
            for act in acts {
                match act {
                    Act::Read(count) => {
                        let mut next = || readings.take_ready().unwrap_or_else(|| { taken += 1; (taken, ()) });
                        let events: Vec<_> = (0..count).map(|_| next()).collect();
                        prop_assert!(events.iter().all(|(offset, ())| !consumed.contains(offset)));
                        seen.extend(events.iter().map(|(offset, ())| *offset));
                        readings.hand_out(&events);
                    }
                    Act::Sent(number) => readings.sent(number),
                    Act::Arrived(number) => readings.arrived(number),
                    Act::Failed(number) => readings.failed(number),
                    Act::ConsumeRead => {
                        let Consumed { upto, also } = readings.consume_read();
                        let back: BTreeSet<_> = readings.ready.iter().map(|(offset, ())| *offset).collect();
                        let new: BTreeSet<_> = (1..=upto.unwrap_or(0)).chain(also).collect();
                        prop_assert!(new.is_disjoint(&back));
                        consumed.extend(new);
                    }
                    Act::Consume(offset) => match readings.consume(offset) {
                        Ok(()) => consumed.extend(1..=offset),
                        Err(_) => prop_assert!(offset == 0 || !seen.contains(&offset)),
                    },
                }
                let held: BTreeSet<_> = readings.answers.iter().flat_map(|answer| answer.offsets.clone())
                    .chain(readings.ready.iter().map(|(offset, ())| *offset)).collect();
                for offset in 1..=taken {
                    prop_assert!(consumed.contains(&offset) != held.contains(&offset), "{}", offset);
                }
            }
        }
    }
}
