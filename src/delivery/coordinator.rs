//! The group coordinator: who reads what, at which epoch, from where.
//!
//! A group's partitions are split evenly among its members, in counts that differ by at most one, and joining or leaving moves
//! as few of them as that allows. Members beyond the number of partitions wait, in the order in which they joined.
//!
//! A partition changes hands in two steps. Its reader is told to stop; only when it says that it has, or leaves, does
//! the next one start, from the last accepted confirm. So at most one session of a group sends events of a partition at any time, and each
//! hand-over is a new epoch: a confirm that carries an older one changes nothing.

use super::Confirm;
use super::group::{Group, Member};
use crate::id::{Epoch, GroupId, Offset, Partition, SessionId};
use std::collections::{BTreeMap, VecDeque};

/// What the coordinator wants done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The session is to read `partition` at `epoch`, starting at `from`.
    Assign { session: SessionId, partition: Partition, epoch: Epoch, from: Offset },
    /// The session is to stop reading and then to answer with [`Coordinator::revoked`].
    Revoke { session: SessionId, partition: Partition, epoch: Epoch },
    /// The cursor moved forward. To be journalled, in the order of these effects.
    Confirmed { group: GroupId, partition: Partition, offset: Offset },
    /// An operator moved the cursor. To be journalled, in the order of these effects.
    Reset { group: GroupId, partition: Partition, offset: Offset },
}

/// All groups that had a member, or a cursor moved by an operator, since the process started.
///
/// A group stays known after its last member left, because its cursors here are ahead of the journal's by the confirms that are
/// on their way there: a consumer that reconnects at once must not be sent again what it has just confirmed.
pub struct Coordinator {
    partitions: u8,
    groups: BTreeMap<GroupId, Group>,
    sessions: BTreeMap<SessionId, (GroupId, Member)>,
    /// Sessions that ever joined.
    joined: u64,
    effects: VecDeque<Effect>,
}

impl Coordinator {
    /// A coordinator of `partitions` partitions without any group.
    pub fn new(partitions: u8) -> Self {
        Self {
            partitions,
            groups: BTreeMap::new(),
            sessions: BTreeMap::new(),
            joined: 0,
            effects: VecDeque::new(),
        }
    }

    /// The next effect, oldest first. To be called until it gives `None` after each input.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// `session` becomes a member of `group`. `cursors` gives the group's durable cursors; it is asked only when the group is
    /// not known here yet. A session joins once in its life.
    pub fn join(&mut self, session: SessionId, group: GroupId, cursors: impl Fn(Partition) -> Offset) {
        if self.sessions.contains_key(&session) {
            debug_assert!(false, "session {session} joined twice");
            return;
        }
        self.joined += 1;
        let member = Member { joined: self.joined, session };
        self.sessions.insert(session, (group, member));
        let state = self.groups.entry(group).or_insert_with(|| Group::new(self.partitions, cursors));
        state.add(member, &mut self.effects);
    }

    /// `session` ended. Its partitions go to other members at once, from the last accepted confirm. Unknown sessions are ignored.
    pub fn leave(&mut self, session: SessionId) {
        if let Some((group, member)) = self.sessions.remove(&session)
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.remove(member, &mut self.effects);
        }
    }

    /// `session` has stopped reading `partition`, which it had at `epoch`: it will neither send nor confirm any more of it.
    pub fn revoked(&mut self, session: SessionId, partition: Partition, epoch: Epoch) {
        if let Some((group, _)) = self.sessions.get(&session)
            && let Some(group) = self.groups.get_mut(group)
        {
            group.revoked(session, partition, epoch, &mut self.effects);
        }
    }

    /// Moves cursors forward. A confirm of another epoch than the current one, or behind the cursor, changes nothing.
    pub fn confirm(&mut self, session: SessionId, confirms: &[Confirm]) {
        let Some(&(id, _)) = self.sessions.get(&session) else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        for confirm in confirms {
            if group.confirm(session, confirm) {
                let Confirm { partition, offset, .. } = *confirm;
                self.effects.push_back(Effect::Confirmed { group: id, partition, offset });
            }
        }
    }

    /// Everything of `partition` before `start` is gone: cursors that stood below now stand at `start`, as the journal's do.
    pub fn expired(&mut self, partition: Partition, start: Offset) {
        for group in self.groups.values_mut() {
            group.expired(partition, start);
        }
    }

    /// An operator moves a cursor, forward or back. Confirms of the present reader no longer count; it is told to stop, and
    /// whoever reads next starts at `offset`. `cursors` as in [`Coordinator::join`]: from here on they are behind.
    pub fn reset(
        &mut self,
        group: GroupId,
        partition: Partition,
        offset: Offset,
        cursors: impl Fn(Partition) -> Offset,
    ) {
        self.effects.push_back(Effect::Reset { group, partition, offset });
        let state = self.groups.entry(group).or_insert_with(|| Group::new(self.partitions, cursors));
        state.reset(partition, offset, &mut self.effects);
    }

    /// The session that reads or still drains `partition` for `group`, with the epoch at which it does.
    pub fn holder(&self, group: GroupId, partition: Partition) -> Option<(SessionId, Epoch)> {
        self.groups.get(&group)?.holder(partition)
    }

    /// The last accepted confirm, if `group` has had a member since the process started.
    pub fn cursor(&self, group: GroupId, partition: Partition) -> Option<Offset> {
        self.groups.get(&group)?.cursor(partition)
    }

    /// Members of `group`, waiting ones included.
    pub fn members(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, Group::members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROUP: GroupId = GroupId(1);
    const BACKLOG: Offset = Offset(100);

    fn session(n: u64) -> SessionId {
        SessionId(n)
    }

    /// The coordinator, with what its sessions know, checked at every effect.
    struct World {
        coordinator: Coordinator,
        /// Who reads or drains each partition, as the effects say.
        holders: BTreeMap<Partition, (SessionId, Epoch)>,
        /// Revokes that are not answered yet.
        revokes: Vec<(SessionId, Partition, Epoch)>,
        cursors: Vec<Offset>,
        epochs: Vec<Epoch>,
        assigns: usize,
    }

    impl World {
        fn new(partitions: u8) -> Self {
            Self {
                coordinator: Coordinator::new(partitions),
                holders: BTreeMap::new(),
                revokes: Vec::new(),
                cursors: vec![BACKLOG; usize::from(partitions)],
                epochs: vec![Epoch(0); usize::from(partitions)],
                assigns: 0,
            }
        }

        fn with_members(partitions: u8, members: u64) -> Self {
            let mut world = Self::new(partitions);
            for n in 0..members {
                world.join(n);
                world.answer_all();
            }
            world
        }

        fn join(&mut self, n: u64) {
            self.coordinator.join(session(n), GROUP, |_| BACKLOG);
            self.drain();
        }

        fn leave(&mut self, n: u64) {
            self.holders.retain(|_, (holder, _)| *holder != session(n));
            self.revokes.retain(|(holder, ..)| *holder != session(n));
            self.coordinator.leave(session(n));
            self.drain();
        }

        fn confirm(&mut self, n: u64, partition: u8, epoch: Epoch, offset: u64) {
            let (partition, offset) = (Partition(partition), Offset(offset));
            let cursor = &mut self.cursors[usize::from(partition.0)];
            let counts = self.holders.get(&partition) == Some(&(session(n), epoch)) && offset > *cursor;
            if counts {
                *cursor = offset;
            }
            self.coordinator.confirm(session(n), &[Confirm { partition, epoch, offset }]);
            let expected = counts.then_some(Effect::Confirmed { group: GROUP, partition, offset });
            assert_eq!(self.coordinator.poll(), expected);
            self.drain();
        }

        fn answer(&mut self, at: usize) {
            let (holder, partition, epoch) = self.revokes.remove(at);
            self.holders.remove(&partition);
            self.coordinator.revoked(holder, partition, epoch);
            self.drain();
        }

        fn answer_all(&mut self) {
            while !self.revokes.is_empty() {
                self.answer(0);
            }
        }

        fn drain(&mut self) {
            while let Some(effect) = self.coordinator.poll() {
                self.apply(effect);
            }
        }

        fn apply(&mut self, effect: Effect) {
            match effect {
                Effect::Assign { session, partition, epoch, from } => {
                    let at = usize::from(partition.0);
                    assert_eq!(self.holders.insert(partition, (session, epoch)), None, "two readers");
                    assert!(epoch > self.epochs[at], "an epoch came twice");
                    assert_eq!(from, self.cursors[at]);
                    self.epochs[at] = epoch;
                    self.assigns += 1;
                }
                Effect::Revoke { session, partition, epoch } => {
                    assert_eq!(self.holders.get(&partition), Some(&(session, epoch)));
                    self.revokes.push((session, partition, epoch));
                }
                Effect::Confirmed { .. } | Effect::Reset { .. } => panic!("unexpected {effect:?}"),
            }
        }

        fn counts(&self) -> Vec<usize> {
            let mut counts = BTreeMap::new();
            for (holder, _) in self.holders.values() {
                *counts.entry(*holder).or_insert(0) += 1;
            }
            counts.into_values().collect()
        }

        fn assert_even(&self, members: usize) {
            let partitions = self.cursors.len();
            let counts = self.counts();
            assert_eq!(counts.iter().sum::<usize>(), if members == 0 { 0 } else { partitions });
            assert_eq!(counts.len(), members.min(partitions));
            let spread = counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
            assert!(spread <= 1, "{counts:?}");
        }
    }

    #[test]
    fn the_first_member_reads_every_partition_from_its_durable_cursor() {
        let world = World::with_members(12, 1);
        assert_eq!(world.counts(), [12]);
    }

    #[test]
    fn members_beyond_the_partitions_wait_and_move_up_in_the_order_they_joined() {
        let mut world = World::with_members(2, 4);
        assert_eq!(world.counts(), [1, 1]);
        let left = world.holders[&Partition(0)].0;
        world.leave(left.0);
        assert_eq!(world.holders[&Partition(0)].0, session(2));
        world.leave(2);
        assert_eq!(world.holders[&Partition(0)].0, session(3));
    }

    #[test]
    fn the_next_reader_waits_until_the_old_one_has_stopped_and_starts_after_its_last_confirm() {
        let mut world = World::with_members(1, 1);
        let epoch = world.holders[&Partition(0)].1;
        world.join(1);
        assert_eq!(world.counts(), [1]);
        world.coordinator.reset(GROUP, Partition(0), Offset(7), |_| BACKLOG);
        let effects: Vec<_> = std::iter::from_fn(|| world.coordinator.poll()).collect();
        let revoke = Effect::Revoke { session: session(0), partition: Partition(0), epoch };
        assert_eq!(
            effects,
            [Effect::Reset { group: GROUP, partition: Partition(0), offset: Offset(7) }, revoke]
        );
        world
            .coordinator
            .confirm(session(0), &[Confirm { partition: Partition(0), epoch, offset: Offset(150) }]);
        assert_eq!(world.coordinator.poll(), None, "the reset made the epoch void");
        world.coordinator.revoked(session(0), Partition(0), epoch);
        let assigned = world.coordinator.poll();
        assert!(
            matches!(assigned, Some(Effect::Assign { from: Offset(7), epoch: next, .. }) if next > epoch),
            "{assigned:?}"
        );
    }

    #[test]
    fn a_group_that_comes_back_starts_at_its_last_accepted_confirm() {
        let mut world = World::with_members(1, 1);
        let epoch = world.holders[&Partition(0)].1;
        world.confirm(0, 0, epoch, 130);
        world.leave(0);
        world.join(1);
        assert_eq!(world.coordinator.cursor(GROUP, Partition(0)), Some(Offset(130)));
    }

    #[test]
    fn a_member_that_joins_before_a_reset_is_durable_starts_where_the_operator_said() {
        let mut coordinator = Coordinator::new(2);
        coordinator.reset(GROUP, Partition(1), Offset(7), |_| BACKLOG);
        assert!(matches!(coordinator.poll(), Some(Effect::Reset { .. })));
        coordinator.join(session(0), GROUP, |_| BACKLOG);
        let starts: Vec<_> = std::iter::from_fn(|| coordinator.poll())
            .map(|effect| match effect {
                Effect::Assign { partition, from, .. } => (partition, from),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(starts, [(Partition(0), BACKLOG), (Partition(1), Offset(7))]);
    }

    #[test]
    fn expired_events_raise_cursors_that_stood_below() {
        let mut world = World::with_members(1, 1);
        let epoch = world.holders[&Partition(0)].1;
        world.coordinator.expired(Partition(0), Offset(120));
        world.cursors[0] = Offset(120);
        world.confirm(0, 0, epoch, 110);
        world.coordinator.expired(Partition(0), Offset(5));
        world.leave(0);
        world.join(1);
    }

    #[test]
    fn groups_do_not_disturb_each_other() {
        let mut coordinator = Coordinator::new(3);
        for group in 0..4 {
            coordinator.join(session(group), GroupId(group as u32), |_| BACKLOG);
        }
        for group in 0..4 {
            let holders = (0..3).map(|p| coordinator.holder(GroupId(group as u32), Partition(p)).unwrap().0);
            assert!(holders.into_iter().all(|holder| holder == session(group)));
        }
    }

    #[test]
    fn what_is_out_of_range_or_unknown_is_ignored() {
        let mut world = World::with_members(2, 1);
        let confirm = Confirm { partition: Partition(9), epoch: Epoch(1), offset: Offset(999) };
        world.coordinator.confirm(session(0), &[confirm]);
        world.coordinator.confirm(session(77), &[Confirm { partition: Partition(0), ..confirm }]);
        world.coordinator.revoked(session(0), Partition(9), Epoch(1));
        world.coordinator.revoked(session(0), Partition(0), Epoch(1));
        world.coordinator.leave(session(77));
        assert_eq!(world.coordinator.poll(), None);
        assert_eq!(world.counts(), [2]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        Answer(usize),
        Confirm { member: usize, partition: u8, epoch_age: u64, ahead: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Join),
            1 => any::<usize>().prop_map(Step::Leave),
            3 => any::<usize>().prop_map(Step::Answer),
            3 => (any::<usize>(), any::<u8>(), 0..2u64, 0..9u64).prop_map(|(member, partition, epoch_age, ahead)| {
                Step::Confirm { member, partition, epoch_age, ahead }
            }),
        ]
    }

    fn run(world: &mut World, members: &mut Vec<u64>, joined: &mut u64, step: Step) {
        match step {
            Step::Join => {
                world.join(*joined);
                members.push(*joined);
                *joined += 1;
            }
            Step::Leave(at) if !members.is_empty() => world.leave(members.swap_remove(at % members.len())),
            Step::Answer(at) if !world.revokes.is_empty() => world.answer(at % world.revokes.len()),
            Step::Confirm { member, partition, epoch_age, ahead } if !members.is_empty() => {
                let partition = partition % world.cursors.len() as u8;
                let at = usize::from(partition);
                let epoch = Epoch(world.epochs[at].0.saturating_sub(epoch_age));
                world.confirm(
                    members[member % members.len()],
                    partition,
                    epoch,
                    world.cursors[at].0 + ahead - ahead.min(2),
                );
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn one_reader_at_a_time_and_an_even_split_whatever_happens(
            partitions in 1..15u8,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let mut world = World::new(partitions);
            let (mut members, mut joined) = (Vec::new(), 0);
            for step in steps {
                run(&mut world, &mut members, &mut joined, step);
            }
            world.answer_all();
            world.assert_even(members.len());
            prop_assert!(world.holders.values().all(|(holder, _)| members.contains(&holder.0)));
        }

        #[test]
        fn joining_and_leaving_moves_no_more_partitions_than_an_even_split_needs(
            partitions in 1..40u8,
            members in 1..20u64,
            leaver in any::<u64>(),
        ) {
            let mut world = World::with_members(partitions, members);
            world.assigns = 0;
            world.join(members);
            world.answer_all();
            prop_assert_eq!(world.assigns, usize::from(partitions) / (members as usize + 1));
            let leaver = session(leaver % (members + 1));
            let held = world.holders.values().filter(|(holder, _)| *holder == leaver).count();
            world.assigns = 0;
            world.leave(leaver.0);
            world.answer_all();
            prop_assert_eq!(world.assigns, held);
            world.assert_even(members as usize);
        }
    }
}
