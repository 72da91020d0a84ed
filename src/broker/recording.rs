//! Records of transfers of personal data, as the sessions of one core have them made.

use super::budget::{Budget, Permit};
use crate::audit::marks::Receiver;
use crate::audit::progress::Progress;
use crate::audit::writer::{Delivery, Outcome, Recorder};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of events and records that all cores together have waiting for the writer.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// What a record takes beside the values from its event.
const RECORD_BYTES: usize = 1 << 10;

/// The way of one core to the writer.
pub struct Recording {
    recorder: Recorder,
    budget: Rc<Budget>,
}

impl Recording {
    pub(super) fn new(recorder: Recorder, cores: usize) -> Self {
        Self { recorder, budget: Budget::new(WAITING_BYTES_MAX / cores) }
    }

    /// Waits until there is room for so many records of events that take `bytes`.
    pub async fn room(&self, records: usize, bytes: usize) -> Permit {
        // Values may repeat the event a few times over.
        self.budget.take(bytes.saturating_mul(4).saturating_add(records.saturating_mul(RECORD_BYTES))).await
    }

    /// Waits until the events may leave the broker.
    pub async fn record(&self, _room: Permit, receiver: Arc<Receiver>, deliveries: Vec<Delivery>) -> Outcome {
        self.recorder.record(receiver, deliveries).await
    }

    /// What was counted, by all cores.
    pub fn progress(&self) -> &Progress {
        self.recorder.progress()
    }
}
