//! A round: the records that are written and synced together.

use super::chain::Link;
use super::ledger::Tip;
use super::line::time_text;
use super::marks::{Marks, Receiver};
use std::io::Write;
use std::sync::Arc;

/// Records that are written and synced together. Made by [`Ledger::round`].
pub struct Round<'l> {
    event_type: &'l str,
    known: &'l Marks,
    marks: Marks,
    now_ms: u64,
    synced: u64,
    buffer: Vec<u8>,
    link: Link,
    next_seq: u64,
}

/// What a round amounts to, free of the ledger.
pub struct Written {
    pub(super) marks: Marks,
    pub(super) buffer: Vec<u8>,
    pub(super) link: Link,
    pub(super) next_seq: u64,
}

impl<'l> Round<'l> {
    pub(super) fn new(event_type: &'l str, known: &'l Marks, tip: Tip, now_ms: u64) -> Self {
        Self {
            event_type,
            known,
            marks: Marks::default(),
            now_ms,
            synced: tip.bytes,
            buffer: Vec::new(),
            link: tip.link,
            next_seq: tip.next_seq,
        }
    }

    /// Adds the records of one event: `records` are members of JSON objects, without braces.
    pub fn add(&mut self, receiver: &Arc<Receiver>, partition: u8, offset: u64, records: &[Vec<u8>]) {
        let is_redelivery = self.known.is_known(receiver, partition, offset)
            || self.marks.is_known(receiver, partition, offset);
        for members in records {
            self.write(members, is_redelivery);
        }
        self.marks.set(receiver, partition, offset, self.now_ms);
    }

    fn write(&mut self, members: &[u8], is_redelivery: bool) {
        let start = self.buffer.len();
        let (seq, time, id) = (self.next_seq, time_text(self.now_ms), uuid::Uuid::new_v4());
        let (event_type, synced) = (self.event_type, self.synced);
        let out = &mut self.buffer;
        write!(
            out,
            "{{\"seq\":{seq},\"event_time\":\"{time}\",\"event_type\":\"{event_type}\",\"event_id\":\"{id}\","
        )
        .and_then(|()| out.write_all(members))
        .and_then(|()| write!(out, ",\"redelivery\":{is_redelivery},\"synced\":{synced}"))
        .expect("memory can be written");
        self.link = self.link.seal(out, start);
        self.next_seq += 1;
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Lets go of the ledger, for [`Ledger::commit`].
    pub fn finish(self) -> Written {
        Written { marks: self.marks, buffer: self.buffer, link: self.link, next_seq: self.next_seq }
    }
}
