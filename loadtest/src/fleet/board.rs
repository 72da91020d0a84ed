//! Where a run and whoever directs it meet: the run says how far it is, and waits to be told to go on.

use serde::{Deserialize, Serialize};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far a part of a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everybody is connected, and the groups have caught up.
    pub is_ready: bool,
    /// All is sent and answered.
    pub is_sent: bool,
    /// The load ends before its time.
    pub is_stopping: bool,
    /// Acknowledged events.
    pub acknowledged: u64,
    /// For each group: acknowledged events that it is to receive, and different ones that it has received.
    pub owed: Vec<u64>,
    pub received: Vec<u64>,
}

/// Orders and progress.
#[derive(Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    progress: Progress,
    first_ns: Option<u64>,
    is_stopped: bool,
    is_finished: bool,
    is_abandoned: bool,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far the run is.
    pub fn show(&self, progress: Progress) {
        self.state().progress = progress;
    }

    pub fn progress(&self) -> Progress {
        self.state().progress.clone()
    }

    /// Orders the run to begin at that moment of its clock.
    pub fn start(&self, first_ns: u64) {
        self.state().first_ns = Some(first_ns);
        self.changed.notify_all();
    }

    /// Ends the load: that of another part has.
    pub fn stop(&self) {
        self.state().is_stopped = true;
    }

    /// Whether the load is to end.
    pub fn is_stopped(&self) -> bool {
        let state = self.state();
        state.is_stopped || state.is_abandoned
    }

    /// Lets the consumers end.
    pub fn finish(&self) {
        self.state().is_finished = true;
        self.changed.notify_all();
    }

    /// Ends the run: nobody waits for it any more.
    pub fn abandon(&self) {
        self.state().is_abandoned = true;
        self.changed.notify_all();
    }

    pub fn is_abandoned(&self) -> bool {
        self.state().is_abandoned
    }

    /// Waits for the order to begin; `None` when the run was abandoned.
    pub fn await_start(&self) -> Option<u64> {
        let waits = |state: &mut State| state.first_ns.is_none() && !state.is_abandoned;
        let state = self.changed.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        state.first_ns.filter(|_| !state.is_abandoned)
    }

    /// Waits for the order to end, `patience` at most; whether it has come.
    pub fn await_finish(&self, patience: Duration) -> bool {
        let waits = |state: &mut State| !state.is_finished && !state.is_abandoned;
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), patience, waits)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_finished || state.is_abandoned
    }
}

impl Progress {
    /// Adds that of another part. The sum is ready, or sent, when all parts are, and stopping when any is.
    pub fn add(&mut self, other: &Self) {
        self.is_ready &= other.is_ready;
        self.is_sent &= other.is_sent;
        self.is_stopping |= other.is_stopping;
        self.acknowledged += other.acknowledged;
        add(&mut self.owed, &other.owed);
        add(&mut self.received, &other.received);
    }
}

fn add(sum: &mut Vec<u64>, more: &[u64]) {
    sum.resize(sum.len().max(more.len()), 0);
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}
