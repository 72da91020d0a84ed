//! How far the groups of one client are behind, for the client itself: the head knows the cursors, the owners what lies
//! behind them.
//!
//! Whoever asks goes through the client's groups page by page, so that a client with many of them keeps no core to itself. Who
//! asks for the same client meanwhile gets the same answer.

use super::Core;
use super::awaited::Awaited;
use super::message::{GroupCursor, HEAD, Message, Ticket};
use crate::id::{ClientId, CoreId, GroupId, Offset, Partition, PrivateLog, TypeId};
use crate::partition::TypeFilter;
use crate::rt;
use futures_channel::oneshot;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What a client has not consumed yet.
#[derive(Debug, Default)]
pub struct Survey {
    /// In the order in which the client defined them.
    pub groups: Vec<GroupSurvey>,
    pub dead_events: u64,
}

/// One consumer group.
#[derive(Debug)]
pub struct GroupSurvey {
    pub name: String,
    /// Sessions that consume now.
    pub members: usize,
    pub backlog: Backlog,
}

/// Events behind a cursor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub events: u64,
    /// When the broker took the oldest of them, Unix milliseconds; `None` when there is none, or it could not be read.
    pub oldest_ms: Option<u64>,
}

/// Some groups of a client, as the head knows them.
pub struct Page {
    pub groups: Vec<(GroupId, String, usize)>,
    pub cursors: Vec<GroupCursor>,
    /// The number of the client's dead events, on the first page, if it ever had any.
    pub dead: Option<TypeId>,
    /// Whether there are more groups behind these.
    pub more: bool,
}

/// Who waits for one survey.
type Asking = Vec<oneshot::Sender<Rc<Survey>>>;

/// Surveys that this core makes, and answers it waits for.
#[derive(Default)]
pub struct Surveys {
    under_way: RefCell<HashMap<ClientId, Asking, ahash::RandomState>>,
    pages: Awaited<Page>,
    backlogs: Awaited<Vec<Backlog>>,
}

impl Surveys {
    pub(super) fn paged(&self, ticket: Ticket, page: Page) {
        // Nobody stops waiting for a part of a survey.
        let _ = self.pages.answer(ticket, page);
    }

    pub(super) fn measured(&self, ticket: Ticket, backlogs: Vec<Backlog>) {
        let _ = self.backlogs.answer(ticket, backlogs);
    }
}

impl Backlog {
    /// Both together.
    fn with(self, other: Self) -> Self {
        let oldest_ms = self.oldest_ms.into_iter().chain(other.oldest_ms).min();
        Self { events: self.events + other.events, oldest_ms }
    }
}

impl Core {
    /// What `client` has not consumed.
    pub async fn survey(self: &Rc<Self>, client: ClientId) -> Rc<Survey> {
        let (done, surveyed) = oneshot::channel();
        let first = {
            let mut under_way = self.surveys.under_way.borrow_mut();
            let waiting = under_way.entry(client).or_default();
            waiting.push(done);
            waiting.len() == 1
        };
        if first {
            let core = self.clone();
            rt::spawn(async move {
                let survey = Rc::new(core.make_survey(client).await);
                for waiting in core.surveys.under_way.borrow_mut().remove(&client).unwrap_or_default() {
                    // Whoever asked may have gone.
                    let _ = waiting.send(survey.clone());
                }
            });
        }
        surveyed.await.expect("every survey comes to its end")
    }

    async fn make_survey(&self, client: ClientId) -> Survey {
        let (mut survey, mut after) = (Survey::default(), None);
        loop {
            let page = self.page(client, after).await;
            let mut backlogs = self.measure_all(page.cursors).await;
            after = page.groups.last().map(|(group, ..)| *group);
            survey.groups.extend(page.groups.into_iter().map(|(group, name, members)| GroupSurvey {
                name,
                members,
                backlog: backlogs.remove(&group).unwrap_or_default(),
            }));
            if let Some(dead) = page.dead {
                survey.dead_events = self.count_dead(dead).await;
            }
            if !page.more {
                return survey;
            }
        }
    }

    async fn page(&self, client: ClientId, after: Option<GroupId>) -> Page {
        let (ticket, asked) = self.surveys.pages.open();
        self.post(HEAD, Message::Survey { from: self.id, ticket, client, after });
        asked.await.expect("the head answers every question")
    }

    /// The backlogs of groups in all their partitions together.
    async fn measure_all(&self, cursors: Vec<GroupCursor>) -> HashMap<GroupId, Backlog> {
        let mut by_owner: BTreeMap<CoreId, Vec<GroupCursor>> = BTreeMap::new();
        for cursor in cursors {
            by_owner.entry(self.owner_of(cursor.partition)).or_default().push(cursor);
        }
        let asked: Vec<_> = by_owner
            .into_iter()
            .map(|(owner, cursors)| {
                let groups: Vec<_> = cursors.iter().map(|cursor| cursor.group).collect();
                (groups, self.measure(owner, cursors))
            })
            .collect();
        let mut backlogs: HashMap<GroupId, Backlog> = HashMap::new();
        for (groups, asked) in asked {
            let measured = asked.await.expect("every owner answers");
            for (group, backlog) in groups.into_iter().zip(measured) {
                let all = backlogs.entry(group).or_default();
                *all = all.with(backlog);
            }
        }
        backlogs
    }

    fn measure(&self, owner: CoreId, cursors: Vec<GroupCursor>) -> oneshot::Receiver<Vec<Backlog>> {
        let (ticket, asked) = self.surveys.backlogs.open();
        self.post(owner, Message::Measure { from: self.id, ticket, cursors });
        asked
    }

    async fn count_dead(&self, dead: TypeId) -> u64 {
        let partition: Partition = PrivateLog::Dead.partition(self.partitions);
        let types: TypeFilter = [dead].into_iter().collect();
        let all = GroupCursor { group: GroupId(0), partition, at: Offset(0), types };
        let counted = self.measure(self.owner_of(partition), vec![all]).await.expect("every owner answers");
        counted.iter().map(|backlog| backlog.events).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_of_two_partitions_is_the_older_one() {
        let backlog = |events, oldest_ms| Backlog { events, oldest_ms };
        assert_eq!(backlog(2, Some(7)).with(backlog(3, Some(5))), backlog(5, Some(5)));
        assert_eq!(backlog(2, Some(7)).with(Backlog::default()), backlog(2, Some(7)));
        assert_eq!(Backlog::default().with(Backlog::default()), Backlog::default());
    }
}
