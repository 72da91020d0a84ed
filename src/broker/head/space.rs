//! Free space: intake stops with 503 while the file system has less than the reserve, and resumes by itself.

use super::Head;
use crate::broker::Core;
use crate::broker::refusal::Refusal;
use crate::journal::disk::{Disk, RealDisk};
use crate::rt;
use std::rc::Rc;
use std::time::Duration;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks as long as the process lives.
pub(super) async fn run(head: Rc<Head>, core: Rc<Core>) {
    let reserve = core.config.storage.min_free_bytes;
    loop {
        let dir = core.config.storage.dir.clone();
        match core.pool.run(move || RealDisk.free_bytes(&dir)).await {
            Ok(free) => head.judge(free, reserve),
            Err(error) => tracing::warn!(%error, "the free space of the data directory cannot be read"),
        }
        rt::sleep(LOOK_EVERY).await;
    }
}

impl Head {
    fn judge(&self, free: u64, reserve: u64) {
        let full = free < reserve;
        match self.refusing.get() {
            None if full => {
                tracing::error!(
                    free_bytes = free,
                    reserve_bytes = reserve,
                    "storage is nearly full: events are refused"
                );
                self.refusing.set(Some(Refusal::DiskFull));
            }
            Some(Refusal::DiskFull) if !full => {
                tracing::info!(free_bytes = free, "storage has room again: events are taken in");
                self.refusing.set(None);
            }
            _ => {}
        }
    }
}
