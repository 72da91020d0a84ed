//! A run over several processes, on this machine or on others: a coordinator that puts no load on, and agents that each
//! take a share of the producers, the groups and the rate.
//!
//! The coordinator asks and the agents answer, so a side that falls silent is found by a read that takes too long. What
//! agents know of sent and received events is merged at the end, and judged as if one process had seen it all.

mod agent;
mod board;
mod children;
mod clock;
mod coordinator;
mod link;
mod message;

pub use agent::Agent;
pub use board::{Board, Progress};

use crate::course::Outcome;
use crate::live;
use crate::scenario::Scenario;
use crate::server::Watch;
use agent::identity_files;
use children::Process;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use coordinator::{Brief, Fleet};
use link::Identity;
use nistru::cli::target::Target;
use std::fs;

/// Why a run ends that nobody directs any more.
pub const ABANDONED: &str = "the coordinator is gone";

/// Who puts the load on.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Several processes")]
pub struct Members {
    /// Put the load on from N processes of this machine; producers and groups are dealt out in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub processes: usize,
    /// Put the load on from `nistru-loadtest agent`s on other machines; see `agent --help`
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', conflicts_with_all = ["processes", "spawn"])]
    pub agents: Vec<String>,
}

impl Members {
    /// Whether this process puts the load on by itself.
    pub fn is_alone(&self) -> bool {
        self.processes == 1 && self.agents.is_empty()
    }
}

/// Runs `scenario` on all members. `target`: the client that they come as, and the broker's address.
pub fn run(
    scenario: &Scenario,
    members: &Members,
    target: &Target,
    run: u32,
    mut watch: Option<Watch>,
    progress: &mut live::Progress,
) -> Result<Outcome, String> {
    let (certificate, key) = identity_files(target);
    let identity = Identity::read(&certificate, &key)?;
    let children = if members.agents.is_empty() { members.processes } else { 0 };
    let children = (0..children).map(|_| Process::start(target)).collect::<Result<_, _>>()?;
    let mut fleet = Fleet::connect(&identity, &members.agents, children)?;
    if let Some(watch) = &mut watch {
        watch.idle();
    }
    let mut window = Watching::new(scenario, watch);
    let outcomes = fleet.conduct(&brief(scenario, target, run)?, |sum, first_ns| {
        window.tick(first_ns);
        match first_ns {
            None => progress.say("connecting"),
            Some(_) => progress.show_sum(sum, clock::now_ns()),
        }
    })?;
    let merged = outcomes.into_iter().reduce(|mut all, more| {
        all.report.merge(more.report);
        all.evidence.merge(more.evidence);
        all
    });
    let mut outcome = merged.ok_or("no process put the load on")?;
    // That of an agent names a copy of the data.
    outcome.report.scenario = scenario.facts();
    outcome.report.server = window.watch.map(|watch| watch.facts(&outcome.report.acknowledged));
    Ok(outcome)
}

fn brief(scenario: &Scenario, target: &Target, run: u32) -> Result<Brief, String> {
    let read = |path: &std::path::PathBuf| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    Ok(Brief {
        scenario: scenario.text(),
        data: scenario.load.data.as_ref().map(read).transpose()?,
        url: target.url.clone().unwrap_or_default(),
        run,
        drain: scenario.load.drain(),
    })
}

/// The broker, looked at in the window.
struct Watching {
    watch: Option<Watch>,
    warm_up_ns: u64,
    duration_ns: u64,
    has_begun: bool,
    has_ended: bool,
}

impl Watching {
    fn new(scenario: &Scenario, watch: Option<Watch>) -> Self {
        let (warm_up_ns, duration_ns) =
            (scenario.load.warm_up().as_nanos() as u64, scenario.load.duration().as_nanos() as u64);
        Self { watch, warm_up_ns, duration_ns, has_begun: false, has_ended: false }
    }

    /// Looks at what is due now. `first_ns`: when the load begins.
    fn tick(&mut self, first_ns: Option<u64>) {
        let (Some(watch), Some(first_ns)) = (&mut self.watch, first_ns) else { return };
        let since_ns = clock::now_ns().saturating_sub(first_ns);
        watch.look();
        if !self.has_begun && since_ns >= self.warm_up_ns {
            watch.begin();
            self.has_begun = true;
        }
        if !self.has_ended && since_ns >= self.warm_up_ns + self.duration_ns {
            watch.end();
            self.has_ended = true;
        }
    }
}
