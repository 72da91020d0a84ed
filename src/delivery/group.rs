//! One consumer group: its members and who of them holds which partition.

use super::Confirm;
use super::coordinator::Effect;
use crate::fault::{Fault, planted};
use crate::id::{Epoch, Offset, Partition, SessionId};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

/// A session as a member of its group, ordered by when it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub joined: u64,
    pub session: SessionId,
}

/// Who may send events of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// At the slot's epoch.
    Reading(Member),
    /// Told to stop the epoch it was given.
    Draining(Member, Epoch),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The last accepted confirm; where the next holder starts.
    cursor: Offset,
    /// The only epoch whose confirms count.
    epoch: Epoch,
    holder: Holder,
}

/// How many partitions a member reads and is to read.
struct Share {
    member: Member,
    held: usize,
    target: usize,
}

pub(super) struct Group {
    /// By partition number.
    slots: Box<[Slot]>,
    members: BTreeSet<Member>,
}

impl Group {
    pub fn new(partitions: u8, cursors: impl Fn(Partition) -> Offset) -> Self {
        let slot =
            |number| Slot { cursor: cursors(Partition(number)), epoch: Epoch(0), holder: Holder::Nobody };
        Self { slots: (0..partitions).map(slot).collect(), members: BTreeSet::new() }
    }

    pub fn add(&mut self, member: Member, effects: &mut VecDeque<Effect>) {
        self.members.insert(member);
        self.rebalance(effects);
    }

    pub fn remove(&mut self, member: Member, effects: &mut VecDeque<Effect>) {
        self.members.remove(&member);
        for slot in &mut self.slots {
            if slot.holder.member() == Some(member) {
                slot.holder = Holder::Nobody;
            }
        }
        self.rebalance(effects);
    }

    pub fn revoked(
        &mut self,
        session: SessionId,
        partition: Partition,
        epoch: Epoch,
        effects: &mut VecDeque<Effect>,
    ) {
        let Some(slot) = self.slots.get_mut(usize::from(partition.0)) else { return };
        if matches!(slot.holder, Holder::Draining(member, of) if member.session == session && of == epoch) {
            slot.holder = Holder::Nobody;
            self.rebalance(effects);
        }
    }

    /// Whether the cursor moved.
    pub fn confirm(&mut self, session: SessionId, confirm: &Confirm) -> bool {
        let Some(slot) = self.slots.get_mut(usize::from(confirm.partition.0)) else { return false };
        let current = (slot.epoch == confirm.epoch || planted(Fault::OldEpochConfirms))
            && slot.holder.member().is_some_and(|member| member.session == session);
        let moves = current && confirm.offset > slot.cursor;
        if moves {
            slot.cursor = confirm.offset;
        }
        moves
    }

    pub fn expired(&mut self, partition: Partition, start: Offset) {
        if let Some(slot) = self.slots.get_mut(usize::from(partition.0)) {
            slot.cursor = slot.cursor.max(start);
        }
    }

    pub fn reset(&mut self, partition: Partition, offset: Offset, effects: &mut VecDeque<Effect>) {
        let Some(slot) = self.slots.get_mut(usize::from(partition.0)) else { return };
        slot.cursor = offset;
        slot.stop_reading(partition, effects);
        // Confirms of the reader that drains now are void: the epoch they carry has passed.
        slot.epoch = Epoch(slot.epoch.0 + 1);
    }

    pub fn holder(&self, partition: Partition) -> Option<(SessionId, Epoch)> {
        let slot = self.slots.get(usize::from(partition.0))?;
        match slot.holder {
            Holder::Nobody => None,
            Holder::Reading(member) => Some((member.session, slot.epoch)),
            Holder::Draining(member, epoch) => Some((member.session, epoch)),
        }
    }

    pub fn cursor(&self, partition: Partition) -> Option<Offset> {
        self.slots.get(usize::from(partition.0)).map(|slot| slot.cursor)
    }

    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Takes from members that read more than their share and gives what is free to those that read less.
    fn rebalance(&mut self, effects: &mut VecDeque<Effect>) {
        let mut shares = self.shares();
        for share in &mut shares {
            self.take_surplus(share, effects);
        }
        self.hand_out(&mut shares, effects);
    }

    /// The members that are to read something, each with its share: who reads most already keeps the larger ones, so that
    /// fewer partitions move, and then who joined first.
    fn shares(&self) -> SmallVec<[Share; 12]> {
        let readers = self.slots.len().min(self.members.len());
        let mut shares = self.held();
        for &member in &self.members {
            if shares.len() == readers {
                break;
            }
            if shares.iter().all(|share| share.member != member) {
                shares.push(Share { member, held: 0, target: 0 });
            }
        }
        shares.sort_unstable_by_key(|share| (Reverse(share.held), share.member));
        for (place, share) in shares.iter_mut().enumerate() {
            share.target = self.slots.len() / readers + usize::from(place < self.slots.len() % readers);
        }
        shares
    }

    fn held(&self) -> SmallVec<[Share; 12]> {
        let mut shares = SmallVec::<[Share; 12]>::new();
        for slot in &self.slots {
            let Holder::Reading(member) = slot.holder else { continue };
            match shares.iter_mut().find(|share| share.member == member) {
                Some(share) => share.held += 1,
                None => shares.push(Share { member, held: 1, target: 0 }),
            }
        }
        shares
    }

    fn take_surplus(&mut self, share: &mut Share, effects: &mut VecDeque<Effect>) {
        for (number, slot) in self.slots.iter_mut().enumerate().rev() {
            if share.held <= share.target {
                break;
            }
            if slot.holder == Holder::Reading(share.member) {
                slot.stop_reading(Partition(number as u8), effects);
                share.held -= 1;
            }
        }
    }

    /// Gives each free partition to the member that lacks most.
    fn hand_out(&mut self, shares: &mut [Share], effects: &mut VecDeque<Effect>) {
        let free = |(_, slot): &(usize, &mut Slot)| slot.holder == Holder::Nobody;
        for (number, slot) in self.slots.iter_mut().enumerate().filter(free) {
            let lacking =
                |share: &&mut Share| (share.target.saturating_sub(share.held), Reverse(share.member));
            let Some(share) = shares.iter_mut().max_by_key(lacking) else { return };
            if share.held < share.target {
                slot.start_reading(share.member, Partition(number as u8), effects);
                share.held += 1;
            }
        }
    }
}

impl Holder {
    fn member(&self) -> Option<Member> {
        match *self {
            Holder::Nobody => None,
            Holder::Reading(member) | Holder::Draining(member, _) => Some(member),
        }
    }
}

impl Slot {
    fn start_reading(&mut self, member: Member, partition: Partition, effects: &mut VecDeque<Effect>) {
        self.holder = Holder::Reading(member);
        self.epoch = Epoch(self.epoch.0 + 1);
        effects.push_back(Effect::Assign {
            session: member.session,
            partition,
            epoch: self.epoch,
            from: self.cursor,
        });
    }

    fn stop_reading(&mut self, partition: Partition, effects: &mut VecDeque<Effect>) {
        if let Holder::Reading(member) = self.holder {
            self.holder = Holder::Draining(member, self.epoch);
            if planted(Fault::HandOverAtOnce) {
                self.holder = Holder::Nobody;
            }
            effects.push_back(Effect::Revoke { session: member.session, partition, epoch: self.epoch });
        }
    }
}
