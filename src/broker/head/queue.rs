//! What waits to be written to the journal, and what of it goes into the next frame.

use crate::broker::message::Submission;
use crate::id::{ClientId, GroupId, Offset, Partition};
use std::collections::{BTreeMap, VecDeque};

/// Room kept in a frame for the headers of commands.
const COMMAND_OVERHEAD_BYTES: usize = 64;
/// Most confirms in one frame: each takes 24 bytes.
const CONFIRMS_MAX: usize = 4096;
/// Most bytes of events in one frame. Larger frames would only make their producers wait longer for each other, and everybody on the core
/// while they are filled and applied.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// A command that the head itself wants journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    DefineType(String),
    /// Numbers for the events of a client in its private logs.
    DefinePrivate {
        client: ClientId,
        names: [String; 2],
    },
    DefineGroup {
        client: ClientId,
        name: String,
    },
    Expire {
        partition: Partition,
        start: Offset,
    },
    Reset {
        group: GroupId,
        partition: Partition,
        offset: Offset,
    },
}

/// What one frame is to hold, in this order.
#[derive(Default)]
pub struct Draft {
    pub own: Vec<Own>,
    pub submissions: Vec<Submission>,
    pub confirms: Vec<(GroupId, Partition, Offset)>,
}

/// Everything that waits.
#[derive(Default)]
pub struct Queue {
    own: VecDeque<Own>,
    submissions: VecDeque<Submission>,
    /// Bytes of the events of `submissions`.
    bytes: usize,
    /// Only the last confirm of a partition counts.
    confirms: BTreeMap<(GroupId, Partition), Offset>,
    /// An empty frame is to be written, to say that the one before was synced.
    cover: bool,
}

impl Queue {
    pub fn submit(&mut self, submission: Submission) {
        self.bytes += submission.block.bytes.len();
        self.submissions.push_back(submission);
    }

    pub fn confirm(&mut self, group: GroupId, partition: Partition, offset: Offset) {
        let latest = self.confirms.entry((group, partition)).or_insert(offset);
        *latest = offset.max(*latest);
    }

    /// An operator moved a cursor: confirms that still wait were for the time before.
    pub fn reset(&mut self, group: GroupId, partition: Partition, offset: Offset) {
        self.confirms.remove(&(group, partition));
        self.own.push_back(Own::Reset { group, partition, offset });
    }

    pub fn push(&mut self, own: Own) {
        self.own.push_back(own);
    }

    pub fn cover(&mut self) {
        self.cover = true;
    }

    /// Bytes of events that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a command of the head's own waits.
    pub fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.submissions.is_empty() && self.confirms.is_empty() && !self.cover
    }

    /// Whether nobody waits for what waits: confirms have no answer and may gather for a moment.
    pub fn is_patient(&self) -> bool {
        self.own.is_empty() && self.submissions.is_empty()
    }

    /// Takes what goes into the next frame, whose body has room for `body_bytes_max`. At least one submission is taken, however
    /// large; whether it fits is the writer's to say.
    pub fn draft(&mut self, body_bytes_max: usize) -> Draft {
        self.cover = false;
        let own: Vec<_> = self.own.drain(..).collect();
        let mut confirms = Vec::new();
        while confirms.len() < CONFIRMS_MAX
            && let Some(((group, partition), offset)) = self.confirms.pop_first()
        {
            confirms.push((group, partition, offset));
        }
        let taken = own.iter().map(Own::bytes).sum::<usize>() + confirms.len() * 24;
        let room = body_bytes_max.saturating_sub(taken).min(EVENT_BYTES_MAX);
        Draft { own, submissions: self.take_submissions(room), confirms }
    }

    fn take_submissions(&mut self, room: usize) -> Vec<Submission> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.submissions.front() {
            bytes += next.block.bytes.len() + COMMAND_OVERHEAD_BYTES;
            if bytes > room && !taken.is_empty() {
                break;
            }
            self.bytes -= next.block.bytes.len();
            taken.extend(self.submissions.pop_front());
        }
        taken
    }

    /// Takes every submission, to be refused.
    pub fn take_all_submissions(&mut self) -> Vec<Submission> {
        self.bytes = 0;
        self.submissions.drain(..).collect()
    }
}

impl Draft {
    /// Bytes of the events in it.
    pub fn event_bytes(&self) -> usize {
        self.submissions.iter().map(|submission| submission.block.bytes.len()).sum()
    }

    /// Puts back what could not be written and nobody is told about.
    pub fn give_back(&mut self, queue: &mut Queue) {
        for own in self.own.drain(..).rev() {
            queue.own.push_front(own);
        }
        for (group, partition, offset) in self.confirms.drain(..) {
            queue.confirm(group, partition, offset);
        }
    }
}

impl Own {
    /// About how many bytes the command takes in a frame.
    fn bytes(&self) -> usize {
        COMMAND_OVERHEAD_BYTES
            + match self {
                Self::DefineType(name) | Self::DefineGroup { name, .. } => name.len(),
                Self::DefinePrivate { names, .. } => COMMAND_OVERHEAD_BYTES + names[0].len() + names[1].len(),
                Self::Expire { .. } | Self::Reset { .. } => 0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::message::Ticket;
    use crate::id::CoreId;
    use crate::ingress::Block;

    fn submission(ticket: u64, bytes: usize) -> Submission {
        let block = Block { bytes: vec![0; bytes], ..Block::default() };
        Submission { from: CoreId(0), ticket: Ticket(ticket), block, charge: None }
    }

    fn tickets(draft: &Draft) -> Vec<u64> {
        draft.submissions.iter().map(|submission| submission.ticket.0).collect()
    }

    #[test]
    fn requests_go_into_frames_in_order_and_are_never_split() {
        let mut queue = Queue::default();
        for ticket in 0..4 {
            queue.submit(submission(ticket, 1000));
        }
        let drafts: Vec<_> = std::iter::repeat_with(|| tickets(&queue.draft(2500))).take(3).collect();
        assert_eq!(drafts, [vec![0, 1], vec![2, 3], vec![]]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_request_larger_than_the_room_goes_alone() {
        let mut queue = Queue::default();
        queue.submit(submission(0, 5000));
        queue.submit(submission(1, 10));
        assert_eq!(tickets(&queue.draft(100)), [0]);
        assert_eq!(tickets(&queue.draft(100)), [1]);
    }

    #[test]
    fn only_the_last_confirm_of_a_partition_is_written_and_never_an_older_one() {
        let mut queue = Queue::default();
        for offset in [5, 9, 7] {
            queue.confirm(GroupId(1), Partition(2), Offset(offset));
        }
        assert_eq!(queue.draft(1000).confirms, [(GroupId(1), Partition(2), Offset(9))]);
    }

    #[test]
    fn a_reset_overrules_the_confirms_before_it() {
        let mut queue = Queue::default();
        queue.confirm(GroupId(1), Partition(2), Offset(9));
        queue.reset(GroupId(1), Partition(2), Offset(3));
        let draft = queue.draft(1000);
        assert!(draft.confirms.is_empty() && draft.own.len() == 1);
    }

    #[test]
    fn what_could_not_be_written_waits_again() {
        let mut queue = Queue::default();
        queue.confirm(GroupId(1), Partition(2), Offset(9));
        queue.push(Own::DefineType("A.B.C.D".into()));
        let mut draft = queue.draft(1000);
        draft.give_back(&mut queue);
        let again = queue.draft(1000);
        assert_eq!((again.own.len(), again.confirms.len()), (1, 1));
    }
}
