//! Round after round: take what waits, write it as one frame, sync, apply, and tell everybody. While the disk is at one frame the
//! next is filled and written; they are applied in their order.

use super::queue::{Draft, Own};
use super::{Head, QUEUED_BYTES_MAX, UNAPPENDED_BYTES_MAX};
use crate::broker::journal_writer::{CannotWrite, Written};
use crate::broker::message::{Applied, ExpiredCursor, Message, Receipt, Submission};
use crate::broker::refusal::Refusal;
use crate::broker::{Block, Core};
use crate::id::{CoreId, FrameIndex, Partition};
use crate::ingress::Span;
use crate::journal::command::{Body, Command};
use crate::journal::sequencer::ROUNDS_IN_FLIGHT_MAX;
use crate::metrics;
use crate::rt;
use crate::state::State;
use futures_lite::FutureExt;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long confirms gather before they are written by themselves. They also ride with any events that come first.
const CONFIRM_LINGER: Duration = Duration::from_millis(5);

/// A frame on its way to the disk.
pub(super) struct Flight {
    index: FrameIndex,
    draft: Draft,
    /// Of each submission.
    repeats: Vec<u32>,
    bytes: usize,
    /// Once it is durable. It is applied when all before it are, too.
    written: Option<Written>,
}

/// Writes frames as long as the process lives.
pub(super) async fn run(head: Rc<Head>, core: Rc<Core>) {
    loop {
        head.work.notified().await;
        while !head.queue.borrow().is_empty() {
            if !core.is_stopping() {
                head.linger().await;
            }
            if head.may_place() {
                head.round(&core).await;
            } else {
                head.work.notified().await;
            }
        }
    }
}

impl Head {
    /// Takes a submission in, or refuses it at once.
    pub(super) fn submit(&self, core: &Core, submission: Submission) {
        match self.admit(core, &submission) {
            Err(refusal) => refuse(core, submission, refusal),
            Ok(()) => {
                self.queue.borrow_mut().submit(submission);
                self.work.notify();
            }
        }
    }

    fn admit(&self, core: &Core, submission: &Submission) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusing.get() {
            return Err(refusal);
        }
        if self.queue.borrow().bytes() >= QUEUED_BYTES_MAX {
            return Err(Refusal::Overloaded);
        }
        let Some(charge) = &submission.charge else { return Ok(()) };
        let (events, bytes) = (submission.block.count.into(), submission.block.bytes.len() as u64);
        self.accounts.borrow_mut().charge(core.uptime_ms(), charge, events, bytes)
    }

    /// Wants a command journalled.
    pub(super) fn propose(&self, own: Own) {
        self.queue.borrow_mut().push(own);
        self.work.notify();
    }

    /// Gives confirms a moment to gather, until something comes that somebody waits for.
    async fn linger(&self) {
        let wanted = async {
            while self.queue.borrow().is_patient() {
                self.work.notified().await;
            }
        };
        wanted.or(rt::sleep(CONFIRM_LINGER)).await;
    }

    /// Whether anything taken from the queue is not applied yet.
    pub(super) fn is_writing(&self) -> bool {
        self.placing.get() || !self.flights.borrow().is_empty()
    }

    /// Whether the next frame may be filled now. Beside another one it must be worth its own write, or the first of many producers to
    /// come back would leave all others waiting for a second one. Commands of the head's own are numbered by the state, so their
    /// frame is alone.
    fn may_place(&self) -> bool {
        let (flights, queue) = (self.flights.borrow(), self.queue.borrow());
        let Some(last) = flights.back() else { return true };
        let room = (flights.len() as u64) < ROUNDS_IN_FLIGHT_MAX;
        room && last.draft.own.is_empty() && !queue.has_own() && queue.bytes() >= last.bytes
    }

    /// Fills one frame and has it written.
    async fn round(self: &Rc<Self>, core: &Rc<Core>) {
        while self.unappended.get() > UNAPPENDED_BYTES_MAX {
            self.appended.notified().await;
        }
        self.placing.set(true);
        let now_ms = core.now_ms();
        let mut draft = self.queue.borrow_mut().draft(self.writer.body_bytes_max());
        let repeats = self.leave_out_repeats(now_ms, &mut draft.submissions);
        let placed = {
            let body = body_of(&draft, &self.state.borrow());
            self.writer.place(now_ms, &body).await
        };
        match placed {
            Ok(placed) => {
                let (index, bytes) = (placed.round.index, draft.event_bytes());
                self.flights.borrow_mut().push_back(Flight { index, draft, repeats, bytes, written: None });
                let (head, core) = (self.clone(), core.clone());
                rt::spawn(async move { head.landed(&core, placed.write().await) });
            }
            Err(cannot) => self.not_written(core, draft, cannot).await,
        }
        self.placing.set(false);
    }

    /// Takes repeats out of the blocks; how many there were of each submission.
    fn leave_out_repeats(&self, now_ms: u64, submissions: &mut [Submission]) -> Vec<u32> {
        let mut state = self.state.borrow_mut();
        let screen = |submission: &mut Submission| match state.dedup().screen(now_ms, &submission.block.bytes)
        {
            None => 0,
            Some(kept) => {
                let before = submission.block.count;
                submission.block = Block::of_records(kept);
                before - submission.block.count
            }
        };
        submissions.iter_mut().map(screen).collect()
    }

    /// A frame is durable: it and those behind it that were durable before are applied, unless one before it is still under way.
    fn landed(self: &Rc<Self>, core: &Rc<Core>, written: Written) {
        let index = written.round.index;
        if let Some(flight) = self.flights.borrow_mut().iter_mut().find(|flight| flight.index == index) {
            flight.written = Some(written);
        }
        while let Some((flight, written)) = self.next_landed() {
            self.writer.synced(flight.index);
            self.committed(core, flight.draft, &flight.repeats, &written);
        }
        self.work.notify();
    }

    fn next_landed(&self) -> Option<(Flight, Written)> {
        let mut flights = self.flights.borrow_mut();
        let written = flights.front_mut()?.written.take()?;
        flights.pop_front().map(|flight| (flight, written))
    }

    fn committed(self: &Rc<Self>, core: &Rc<Core>, draft: Draft, repeats: &[u32], written: &Written) {
        let overtaken = draft.own.iter().map(|own| match own {
            Own::Expire { partition, start } => self.overtaken(core, *partition, *start),
            _ => Vec::new(),
        });
        let overtaken: Vec<_> = overtaken.collect();
        let applied = self.state.borrow_mut().apply(&written.header, written.body());
        if let Err(error) = applied {
            crate::broker::abort(&format!("a frame of this process cannot be applied: {error}"));
        }
        count(core, written);
        let Draft { own, submissions, .. } = draft;
        self.answer(core, &submissions, repeats);
        self.hand_out(core, written, submissions);
        for (own, overtaken) in own.into_iter().zip(overtaken) {
            self.follow_up(core, own, overtaken);
        }
        self.count_written(core, written.round.bytes);
        self.committed.notify();
    }

    /// Tells the ingress cores which of their submissions are durable.
    fn answer(&self, core: &Core, submissions: &[Submission], repeats: &[u32]) {
        let mut receipts: BTreeMap<CoreId, Vec<Receipt>> = BTreeMap::new();
        for (submission, &repeats) in submissions.iter().zip(repeats) {
            receipts.entry(submission.from).or_default().push(Receipt { ticket: submission.ticket, repeats });
        }
        for (to, receipts) in receipts {
            core.post(to, Message::Committed(receipts));
        }
    }

    /// Sends the frame's events to the owners of their partitions.
    fn hand_out(&self, core: &Core, written: &Written, submissions: Vec<Submission>) {
        let blocks: Vec<_> = submissions.into_iter().map(|submission| submission.block).collect();
        let mask = blocks.iter().fold(0, |mask, block| mask | block.partitions);
        if mask == 0 {
            return;
        }
        let applied = Arc::new(Applied { index: written.round.index, blocks });
        for owner in 0..core.cores() {
            let owner = CoreId(owner as u8);
            let bytes = applied.bytes_for(|partition| core.owner_of(partition) == owner);
            if bytes > 0 {
                self.unappended.set(self.unappended.get() + bytes);
                core.post(owner, Message::Apply(applied.clone()));
            }
        }
    }

    /// What a command of the head's own brings about once it is durable.
    fn follow_up(self: &Rc<Self>, core: &Rc<Core>, own: Own, overtaken: Vec<ExpiredCursor>) {
        match own {
            Own::DefineType(_) | Own::Reset { .. } => {}
            Own::DefinePrivate { client, .. } => self.private_defined(core, client),
            Own::DefineGroup { client, name } => self.group_defined(core, client, &name),
            Own::Expire { partition, start } => self.expire(core, partition, start, overtaken),
        }
    }

    /// Nothing was written: producers are told, everything else waits for room.
    async fn not_written(&self, core: &Core, mut draft: Draft, cannot: CannotWrite) {
        // Repeats of what is under way may be in the draft.
        while !self.flights.borrow().is_empty() {
            self.work.notified().await;
        }
        if cannot == CannotWrite::TooLarge && draft.submissions.len() != 1 {
            crate::broker::abort("a frame without a large request is longer than a journal file");
        }
        // What was screened out as under way is not: the process remembers it as if it were, so it must not go on with it.
        self.state.borrow_mut().dedup().withdraw();
        for submission in draft.submissions.drain(..) {
            refuse(core, submission, Refusal::DiskFull);
        }
        draft.give_back(&mut self.queue.borrow_mut());
        if cannot == CannotWrite::DiskFull {
            for submission in self.queue.borrow_mut().take_all_submissions() {
                refuse(core, submission, Refusal::DiskFull);
            }
            rt::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The commands of a draft, numbered by the state as it is when they are applied.
fn body_of<'a>(draft: &'a Draft, state: &State) -> Body<'a> {
    let mut body = Body::default();
    let (mut next_type, mut next_group) = (state.next_type_id(), state.next_group_id());
    for own in &draft.own {
        match own {
            Own::DefineType(name) => {
                body.push(&Command::DefineType { id: next_type, name });
                next_type.0 += 1;
            }
            Own::DefinePrivate { names, .. } => {
                for name in names {
                    body.push(&Command::DefineType { id: next_type, name });
                    next_type.0 += 1;
                }
            }
            Own::DefineGroup { client, name } => {
                body.push(&Command::DefineGroup { id: next_group, client: *client, name });
                next_group.0 += 1;
            }
            Own::Expire { partition, start } => {
                body.push(&Command::Expire { partition: *partition, start: *start })
            }
            Own::Reset { group, partition, offset } => {
                body.push(&Command::ResetCursor { group: *group, partition: *partition, offset: *offset });
            }
        }
    }
    for submission in draft.submissions.iter().filter(|submission| submission.block.count > 0) {
        body.push(&Command::Events(&submission.block.bytes));
    }
    for &(group, partition, offset) in &draft.confirms {
        body.push(&Command::Confirm { group, partition, offset });
    }
    body
}

fn refuse(core: &Core, submission: Submission, refusal: Refusal) {
    core.post(submission.from, Message::Refused { ticket: submission.ticket, refusal });
}

fn count(core: &Core, written: &Written) {
    core.metrics.numbers.journal_rounds.add(1);
    core.metrics.numbers.journal_bytes.add(written.round.bytes as u64);
    metrics::record(&core.metrics.distributions.sync_ns, written.sync);
    metrics::record_size(&core.metrics.distributions.round_bytes, written.round.bytes);
}

impl Applied {
    /// Bytes of the records whose partition `of_owner` claims.
    pub fn bytes_for(&self, of_owner: impl Fn(Partition) -> bool) -> usize {
        let spans = self.blocks.iter().flat_map(|block| &block.spans);
        spans.filter(|span: &&Span| of_owner(span.partition)).map(|span| span.len as usize).sum()
    }
}
