//! What coordinator and agents say to each other.

use super::board::Progress;
use crate::course::Outcome;
use serde::{Deserialize, Serialize};

/// Version of the messages; both sides have to be of the same.
pub const PROTOCOL: u32 = 2;

/// From the coordinator. Each is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Say what your clock shows.
    Clock,
    /// Connect, and let the groups catch up.
    Prepare(Box<Plan>),
    /// Say how far you are.
    Look,
    /// Begin when the clock of the run shows `first_ns`.
    Start { first_ns: u64 },
    /// End the load before its time.
    Stop,
    /// Let the consumers end, and hand over what you know.
    Finish,
}

/// What an agent is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    pub protocol: u32,
    /// The scenario of the whole run, as TOML.
    pub scenario: String,
    /// What the file says that the scenario names as `data`: it need not be where the agent is.
    pub data: Option<String>,
    /// Which of how many parts is the agent's.
    pub index: usize,
    pub of: usize,
    /// The broker, unless the agent was told another address of it.
    pub url: String,
    /// What the events of this run are told by.
    pub run: u32,
    /// When the clock of the run showed 0, in nanoseconds since 1970 by the agent's clock.
    pub epoch_ns: u64,
}

/// From an agent.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Nanoseconds since 1970.
    Clock(u64),
    Taken,
    Progress(Progress),
    Done(Box<Outcome>),
    Failed(String),
}
