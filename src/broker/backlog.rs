//! The owner's part of a survey: how much lies behind a cursor, and since when.

use super::Core;
use super::message::{GroupCursor, Message, Ticket};
use super::survey::Backlog;
use crate::id::CoreId;
use crate::partition::{Budget, Finished, Status};
use crate::rt;
use std::rc::Rc;
use std::time::Duration;

/// Wait for what another reader is bringing into memory.
const COLD_PAUSE: Duration = Duration::from_millis(5);
/// Looks for one event before its time counts as unknown.
const LOOKS_MAX: usize = 1000;

impl Core {
    /// Measures one cursor after the other, so that a long list delays nobody.
    pub(super) fn take_measure(self: &Rc<Self>, from: CoreId, ticket: Ticket, cursors: Vec<GroupCursor>) {
        let core = self.clone();
        rt::spawn(async move {
            let mut backlogs = Vec::with_capacity(cursors.len());
            for cursor in &cursors {
                backlogs.push(core.backlog(cursor).await);
                rt::breathe().await;
            }
            core.post(from, Message::Measured { ticket, backlogs });
        });
    }

    async fn backlog(self: &Rc<Self>, cursor: &GroupCursor) -> Backlog {
        let events = self.owner.count_from(cursor);
        let oldest_ms = match events {
            0 => None,
            _ => self.oldest_ms(cursor).await,
        };
        Backlog { events, oldest_ms }
    }

    /// When the broker took the first event behind the cursor. What is not in memory is read by a helper thread.
    async fn oldest_ms(self: &Rc<Self>, cursor: &GroupCursor) -> Option<u64> {
        let (partition, mut from) = (cursor.partition, cursor.at);
        for _ in 0..LOOKS_MAX {
            let read = self
                .owner
                .with(partition, |owned| owned.log.read(from, &cursor.types, Budget { events: 1, bytes: 0 }));
            if let Some(first) = read.slices.first() {
                return Some(first.record().header().time_ms);
            }
            from = read.next;
            match read.status {
                Status::AtEnd => return None,
                Status::More => rt::breathe().await,
                Status::Cold { job: None, .. } => rt::sleep(COLD_PAUSE).await,
                Status::Cold { job: Some(job), .. } => match self.run_job(partition, job).await? {
                    Finished::Warm(cold) => self.warmed(partition, cold),
                    Finished::Room | Finished::Upkeep | Finished::Flushed(_) => {}
                },
            }
        }
        None
    }
}
