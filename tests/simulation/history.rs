//! What must be true, kept the obvious way and compared with what the broker does.
//!
//! The history knows every event that was ever produced, every frame that was written, and what each group's consumers
//! confirmed. It is on nobody's side: it survives crashes, and it is told what happened, never what should have.

use nistru::event::record::{self, Record, RecordHeader};
use nistru::id::{Epoch, FrameIndex, GroupId, Offset, Partition, TypeId};
use std::collections::{BTreeMap, BTreeSet};

/// Number of an event, in the order of production.
pub type Number = usize;

/// One event as its producer sent it.
#[derive(Clone, Debug)]
pub struct Event {
    pub type_id: TypeId,
    pub key: u64,
    pub partition: Partition,
    /// Repeats of an event share its `id`.
    pub id: u64,
    pub time_ms: u64,
    pub dedup_window_s: u32,
    /// Bytes of padding.
    pub size: usize,
}

impl Event {
    /// The event as delivered, without the closing brace. `number` tells it from its repeats.
    fn text(&self, number: Number) -> String {
        let Self { id, key, size, .. } = self;
        format!(r#"{{"source":"urn:key:{key}","id":"event-{id}","number":{number},"data":"{:x>size$}""#, "")
    }

    /// Appends the record to `block`.
    pub fn append(&self, number: Number, block: &mut Vec<u8>) {
        let text = self.text(number);
        let inside = |name: &str| {
            let start = text.find(name).expect("the member is there") + name.len();
            let length = text[start..].find('"').expect("the string ends");
            (start as u32, (start + length) as u32)
        };
        let header = RecordHeader {
            type_id: self.type_id,
            partition: self.partition,
            key_hash: self.key as u32,
            dedup_window_s: self.dedup_window_s,
            time_ms: self.time_ms,
            source: inside(r#""source":""#),
            id: inside(r#""id":""#),
        };
        let done: Result<(), ()> = record::append(block, |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(header)
        });
        done.expect("nothing fails");
    }
}

/// Reads the number of an event back from its text.
pub fn number_of(text: &[u8]) -> Number {
    let text = std::str::from_utf8(text).expect("delivered bytes are the text that was produced");
    let start = text.find(r#""number":"#).expect("the member is there") + r#""number":"#.len();
    let digits = text[start..].split(|c: char| !c.is_ascii_digit()).next().expect("a number");
    digits.parse().expect("a number")
}

/// What a frame says, as far as the history minds.
#[derive(Clone, Debug, Default)]
pub struct Note {
    pub time_ms: u64,
    /// Events in the order of the frame's blocks.
    pub events: Vec<Number>,
    /// Everything else in the order of the frame's commands.
    pub moves: Vec<Move>,
}

/// A command that moves a place in a partition.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    Cursor(GroupId, Partition, Offset),
    Start(Partition, Offset),
    Reset(GroupId, Partition, Offset),
}

/// One group's view of one partition.
#[derive(Clone, Debug, Default)]
struct Reading {
    /// The highest durable cursor since the last reset.
    cursor: Offset,
    /// Offsets that consumers confirmed, at epochs that count.
    consumed: BTreeSet<u64>,
    /// What was consumed before a reset that is not durable yet.
    forgotten: BTreeSet<u64>,
    /// Whether such a reset is under way.
    resetting: bool,
    /// Who was assigned last, and how far that epoch has been delivered.
    session: u64,
    epoch: Epoch,
    position: Offset,
    /// Confirms of this epoch and older ones are void.
    void: Epoch,
}

impl Reading {
    /// No session survives a crash, and a reset that was not durable never happened.
    fn restart(&mut self) {
        (self.session, self.epoch, self.void) = (0, Epoch(0), Epoch(0));
        self.consumed.append(&mut self.forgotten);
        self.resetting = false;
    }
}

/// Everything that happened.
pub struct History {
    pub events: Vec<Event>,
    /// Frames in the journal, from index 1.
    notes: Vec<Note>,
    /// Frames up to this one were acknowledged.
    acknowledged: FrameIndex,
    /// Frames up to this one are in `logs`.
    applied: FrameIndex,
    /// The events of each partition by offset.
    logs: Vec<Vec<Number>>,
    starts: Vec<Offset>,
    filters: BTreeMap<GroupId, BTreeSet<TypeId>>,
    readings: BTreeMap<(GroupId, Partition), Reading>,
    pub delivered: u64,
}

impl History {
    pub fn new(partitions: u8, filters: BTreeMap<GroupId, BTreeSet<TypeId>>) -> Self {
        Self {
            events: Vec::new(),
            notes: Vec::new(),
            acknowledged: FrameIndex(0),
            applied: FrameIndex(0),
            logs: vec![Vec::new(); usize::from(partitions)],
            starts: vec![Offset(0); usize::from(partitions)],
            filters,
            readings: BTreeMap::new(),
            delivered: 0,
        }
    }

    /// An event is sent to the broker.
    pub fn produced(&mut self, event: Event) -> Number {
        self.events.push(event);
        self.events.len() - 1
    }

    /// A frame was filled in.
    pub fn framed(&mut self, index: FrameIndex, note: Note) {
        assert_eq!(index.0 as usize, self.notes.len() + 1, "frame indexes are dense");
        self.notes.push(note);
    }

    /// The broker took the frame for durable and answers its producers.
    pub fn acknowledge(&mut self, index: FrameIndex) {
        self.acknowledged = index;
        self.apply_upto(index);
    }

    /// The broker came back with a journal that ends at `last`.
    pub fn recovered(&mut self, last: FrameIndex) {
        assert!(
            last >= self.acknowledged,
            "frame {} was acknowledged and is lost, the journal ends at {last}",
            self.acknowledged
        );
        assert!(last.0 as usize <= self.notes.len(), "frame {last} was never written");
        self.notes.truncate(last.0 as usize);
        self.acknowledge(last);
        self.readings.values_mut().for_each(Reading::restart);
    }

    fn apply_upto(&mut self, index: FrameIndex) {
        for at in self.applied.0 as usize..index.0 as usize {
            let note = self.notes[at].clone();
            self.apply(&note);
        }
        self.applied = index;
    }

    fn apply(&mut self, note: &Note) {
        for &number in &note.events {
            self.logs[usize::from(self.events[number].partition.0)].push(number);
        }
        note.moves.iter().for_each(|step| self.apply_move(*step));
    }

    fn apply_move(&mut self, step: Move) {
        match step {
            Move::Cursor(group, partition, offset) => {
                let reading = self.reading(group, partition);
                reading.cursor = reading.cursor.max(offset);
            }
            Move::Start(partition, start) => {
                let known = &mut self.starts[usize::from(partition.0)];
                *known = (*known).max(start);
            }
            Move::Reset(group, partition, offset) => {
                let reading = self.reading(group, partition);
                reading.cursor = offset;
                reading.forgotten.clear();
                reading.resetting = false;
            }
        }
    }

    fn reading(&mut self, group: GroupId, partition: Partition) -> &mut Reading {
        self.readings.entry((group, partition)).or_default()
    }

    pub fn end(&self, partition: Partition) -> Offset {
        Offset(self.logs[usize::from(partition.0)].len() as u64)
    }

    pub fn start(&self, partition: Partition) -> Offset {
        self.starts[usize::from(partition.0)]
    }

    /// Where `group` stands in the journal.
    pub fn cursor(&self, group: GroupId, partition: Partition) -> Offset {
        let cursor = self.readings.get(&(group, partition)).map_or(Offset(0), |reading| reading.cursor);
        cursor.max(self.start(partition))
    }

    /// The broker stored `record` at `offset`.
    pub fn check_stored(&self, partition: Partition, offset: Offset, record: &Record<'_>) {
        let number = self.logs[usize::from(partition.0)][offset.0 as usize];
        let event = &self.events[number];
        assert_eq!(record.header().type_id, event.type_id, "type of {partition}/{offset}");
        self.check_text(partition, offset, record.event());
    }

    fn check_text(&self, partition: Partition, offset: Offset, text: &[u8]) {
        let number = self.logs[usize::from(partition.0)][offset.0 as usize];
        assert_eq!(number, number_of(text), "another event than was stored at {partition}/{offset}");
        assert_eq!(self.events[number].text(number).as_bytes(), text, "event {number} changed");
    }

    /// A session got a partition.
    pub fn assigned(
        &mut self,
        group: GroupId,
        partition: Partition,
        session: u64,
        epoch: Epoch,
        from: Offset,
    ) {
        let start = self.start(partition);
        let reading = self.reading(group, partition);
        assert!(epoch > reading.epoch, "epoch {epoch} of {group}/{partition} after {}", reading.epoch);
        let forward = reading.resetting || from.max(start) >= reading.cursor;
        assert!(forward, "{group}/{partition} starts at {from}, before the cursor {}", reading.cursor);
        (reading.session, reading.epoch, reading.position) = (session, epoch, from);
        self.check_consumed(group, partition, from);
    }

    /// A session sends an event.
    pub fn delivered(
        &mut self,
        (group, session): (GroupId, u64),
        (partition, epoch): (Partition, Epoch),
        offset: Offset,
        text: &[u8],
    ) {
        self.delivered += 1;
        assert!(offset < self.end(partition), "{partition}/{offset} is delivered before it is durable");
        self.check_text(partition, offset, text);
        let reading = self.readings[&(group, partition)].clone();
        assert_eq!(
            (reading.session, reading.epoch),
            (session, epoch),
            "{group}/{partition} is read by another session"
        );
        assert!(
            offset >= reading.position,
            "{group}/{partition}/{offset} is delivered again or out of order"
        );
        let skipped = self.wanted(group, partition, reading.position, offset);
        assert_eq!(skipped, None, "{group}/{partition} skips an event on the way to {offset}");
        assert!(self.wants(group, partition, offset), "{partition}/{offset} is not of a wanted type");
        self.reading(group, partition).position = offset.next();
    }

    /// A consumer confirms an event that was delivered to it at `epoch`.
    pub fn consumed(&mut self, group: GroupId, partition: Partition, epoch: Epoch, offset: Offset) {
        let reading = self.reading(group, partition);
        if epoch > reading.void {
            reading.consumed.insert(offset.0);
        }
    }

    /// The coordinator accepts a confirm.
    pub fn check_consumed(&self, group: GroupId, partition: Partition, offset: Offset) {
        assert!(offset <= self.end(partition), "cursor {offset} of {group}/{partition} is behind the end");
        if let Some(skipped) = self.unconsumed(group, partition, offset) {
            panic!("cursor {offset} of {group}/{partition} passes {skipped}, which nobody confirmed");
        }
    }

    fn unconsumed(&self, group: GroupId, partition: Partition, upto: Offset) -> Option<Offset> {
        let nothing = BTreeSet::new();
        let consumed = self.readings.get(&(group, partition)).map_or(&nothing, |reading| &reading.consumed);
        let from = self.start(partition).0;
        let open = |offset: &u64| !consumed.contains(offset) && self.wants(group, partition, Offset(*offset));
        (from..upto.0).find(open).map(Offset)
    }

    /// An operator moves a cursor; `current` is the epoch that becomes void.
    pub fn reset(&mut self, group: GroupId, partition: Partition, offset: Offset) {
        let reading = self.reading(group, partition);
        reading.void = reading.epoch;
        let before = std::mem::replace(&mut reading.consumed, (0..offset.0).collect());
        reading.forgotten.extend(before);
        reading.resetting = true;
    }

    /// The first unexpired event that `group` wants in `from .. to`.
    fn wanted(&self, group: GroupId, partition: Partition, from: Offset, to: Offset) -> Option<Offset> {
        let from = from.max(self.start(partition));
        (from.0..to.0).map(Offset).find(|offset| self.wants(group, partition, *offset))
    }

    fn wants(&self, group: GroupId, partition: Partition, offset: Offset) -> bool {
        let number = self.logs[usize::from(partition.0)][offset.0 as usize];
        self.filters[&group].contains(&self.events[number].type_id)
    }

    /// Whether every group has had every event delivered and confirmed.
    pub fn all_consumed(&self) -> bool {
        let partitions = (0..self.logs.len() as u8).map(Partition);
        let groups = self.filters.keys();
        groups
            .flat_map(|group| partitions.clone().map(move |partition| (*group, partition)))
            .all(|(group, partition)| self.unconsumed(group, partition, self.end(partition)).is_none())
    }

    /// Checks that hold of the log as a whole.
    pub fn check_logs(&self) {
        self.logs.iter().for_each(|log| self.check_order(log));
        self.check_repeats();
    }

    /// Events of one key lie in the order in which they were produced.
    fn check_order(&self, log: &[Number]) {
        let mut last = BTreeMap::new();
        for &number in log {
            let before = last.insert(self.events[number].key, number);
            assert!(before.is_none_or(|before| before < number), "key order: {number} after {before:?}");
        }
    }

    /// No event is stored twice within its deduplication window.
    fn check_repeats(&self) {
        let mut stored = BTreeMap::new();
        for note in &self.notes[..self.applied.0 as usize] {
            for event in note.events.iter().map(|number| &self.events[*number]) {
                let before: Option<u64> = stored.insert((event.type_id, event.key, event.id), note.time_ms);
                let window_ms = u64::from(event.dedup_window_s) * 1000;
                let repeated = before.is_some_and(|before| note.time_ms < before + window_ms);
                assert!(!repeated, "event-{} is stored twice within its window", event.id);
            }
        }
    }

    /// A repeat was answered without being stored: the first must be there.
    pub fn is_stored(&self, number: Number) -> bool {
        let repeat = &self.events[number];
        let same = |event: &Event| (event.key, event.id) == (repeat.key, repeat.id);
        self.logs[usize::from(repeat.partition.0)].iter().any(|stored| same(&self.events[*stored]))
    }
}
