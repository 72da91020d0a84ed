//! A scrape: ask every core what it counted and every owner how far groups are behind, and put the answers together. And the
//! pages of surveys, with which clients ask the same for their own groups.

use super::Head;
use crate::broker::Core;
use crate::broker::message::{GroupCursor, Message};
use crate::broker::survey::Page;
use crate::id::{ClientId, CoreId, GroupId, Partition};
use crate::metrics::{GroupGauge, Snapshot};
use crate::partition::TypeFilter;
use futures_channel::oneshot;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Groups in one page of a survey.
const PAGE_GROUPS: usize = 32;

/// Scrapes under way.
#[derive(Default)]
pub(super) struct Gatherings {
    numbers: u64,
    open: BTreeMap<u64, Gathering>,
}

/// One scrape.
struct Gathering {
    /// By core.
    snapshots: Vec<Option<Snapshot>>,
    lags: BTreeMap<GroupId, u64>,
    lags_missing: usize,
    done: oneshot::Sender<Gathered>,
}

/// What a scrape brought.
pub struct Gathered {
    pub cores: Vec<Snapshot>,
    pub groups: Vec<GroupGauge>,
}

impl Head {
    /// Gathers what all cores have counted.
    pub async fn gather(self: &Rc<Self>, core: &Core) -> Gathered {
        let (done, gathered) = oneshot::channel();
        let cores = core.cores();
        let number = {
            let mut gatherings = self.gatherings.borrow_mut();
            gatherings.numbers += 1;
            let number = gatherings.numbers;
            let snapshots = (0..cores).map(|_| None).collect();
            gatherings
                .open
                .insert(number, Gathering { snapshots, lags: BTreeMap::new(), lags_missing: cores, done });
            number
        };
        let mut cursors = self.cursors_by_owner(core);
        for to in 0..cores {
            let to = CoreId(to as u8);
            core.post(to, Message::Lag { number, cursors: cursors.remove(&to).unwrap_or_default() });
            core.post(to, Message::Scrape { number });
        }
        gathered.await.expect("every core answers")
    }

    fn cursors_by_owner(&self, core: &Core) -> BTreeMap<CoreId, Vec<GroupCursor>> {
        let live = core.live();
        let mut cursors: BTreeMap<CoreId, Vec<GroupCursor>> = BTreeMap::new();
        for (group, name) in self.state.borrow().groups() {
            for cursor in self.cursors_of(core, group, &live.types_of(name.client)) {
                cursors.entry(core.owner_of(cursor.partition)).or_default().push(cursor);
            }
        }
        cursors
    }

    /// Where a group stands in each partition of its events, which are of these types.
    fn cursors_of(&self, core: &Core, group: GroupId, types: &TypeFilter) -> Vec<GroupCursor> {
        let (state, coordinator) = (self.state.borrow(), self.coordinator.borrow());
        let cursor = |partition| {
            let durable = state.cursor(group, partition).unwrap_or_default();
            let at = coordinator.cursor(group, partition).unwrap_or(durable).max(durable);
            GroupCursor { group, partition, at, types: types.clone() }
        };
        (0..core.partitions.get()).map(Partition).map(cursor).collect()
    }

    /// The groups of a client behind `after`, for its survey.
    pub(super) fn page(&self, core: &Core, client: ClientId, after: Option<GroupId>) -> Page {
        let state = self.state.borrow();
        let types = core.live().types_of(client);
        let mut own = state.groups_of(client, after);
        let groups: Vec<_> = own.by_ref().take(PAGE_GROUPS).collect();
        Page {
            cursors: groups.iter().flat_map(|(group, _)| self.cursors_of(core, *group, &types)).collect(),
            more: own.next().is_some(),
            dead: state.private_types(client).map(|types| types.dead).filter(|_| after.is_none()),
            groups: groups
                .into_iter()
                .map(|(group, name)| (group, name.name.to_string(), self.members(group)))
                .collect(),
        }
    }

    pub(super) fn lagged(&self, core: &Core, number: u64, lags: Vec<(GroupId, u64)>) {
        self.answered(core, number, |gathering| {
            gathering.lags_missing -= 1;
            for (group, lag) in lags {
                *gathering.lags.entry(group).or_default() += lag;
            }
        });
    }

    pub(super) fn scraped(&self, core: &Core, number: u64, from: CoreId, snapshot: Snapshot) {
        self.answered(core, number, |gathering| gathering.snapshots[usize::from(from.0)] = Some(snapshot));
    }

    /// Takes an answer in; the last one completes the scrape.
    fn answered(&self, core: &Core, number: u64, take: impl FnOnce(&mut Gathering)) {
        let mut gatherings = self.gatherings.borrow_mut();
        let Some(gathering) = gatherings.open.get_mut(&number) else { return };
        take(gathering);
        if gathering.lags_missing > 0 || gathering.snapshots.iter().any(Option::is_none) {
            return;
        }
        if let Some(gathering) = gatherings.open.remove(&number) {
            let cores = gathering.snapshots.into_iter().flatten().collect();
            let groups = self.group_gauges(core, &gathering.lags);
            // Whoever asked may have gone.
            drop(gathering.done.send(Gathered { cores, groups }));
        }
    }

    fn group_gauges(&self, core: &Core, lags: &BTreeMap<GroupId, u64>) -> Vec<GroupGauge> {
        let (state, losses, live) = (self.state.borrow(), self.losses.borrow(), core.live());
        let gauge = |(group, name): (GroupId, &crate::state::GroupName)| GroupGauge {
            client: live
                .registry
                .clients
                .get(&name.client)
                .map_or_else(|| name.client.to_string(), |c| c.name.clone()),
            group: name.name.to_string(),
            members: self.members(group) as u64,
            lag: lags.get(&group).copied().unwrap_or(0),
            expired: losses.get(&group).copied().unwrap_or(0),
        };
        state.groups().map(gauge).collect()
    }
}
