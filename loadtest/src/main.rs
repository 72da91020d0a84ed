//! A load generator and checker for nistru. `--help` says how to use it.

mod args;
mod arrivals;
mod broker;
mod comparing;
mod connector;
mod consumer;
mod course;
mod fleet;
mod group;
mod ledger;
mod live;
mod measure;
mod producer;
mod registry;
mod report;
mod request;
mod run;
mod scenario;
mod sent;
mod server;
mod stamp;
mod tally;
mod usage;
mod wire;
mod worker;

use args::{Command, Options, Program};
use broker::Broker;
use clap::Parser;
use live::Progress;
use report::{Machine, Report};
use run::Share;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scenario::Scenario;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::ExitCode;

/// The generator shares the machine with what it measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    raise_file_limit();
    let program = Program::parse();
    let result = match &program.command {
        None => run(Scenario::ad_hoc(), &program.options),
        Some(Command::Run(command)) => {
            Scenario::load(&command.scenario).and_then(|scenario| run(scenario, &command.options))
        }
        Some(Command::Compare(compare)) => compare.run(),
        Some(Command::Agent(agent)) => agent.run(),
    };
    result.unwrap_or_else(|why| {
        eprintln!("nistru-loadtest: {why}");
        ExitCode::FAILURE
    })
}

fn run(mut scenario: Scenario, options: &Options) -> Result<ExitCode, String> {
    options.load.apply(&mut scenario)?;
    options.targets.iter().try_for_each(|(name, bound)| scenario.targets.state(name, *bound))?;
    let mut progress = Progress::new();
    let result = measure(&scenario, options, &mut progress);
    progress.clear();
    let report = result?;
    publish(&report, options)?;
    Ok(report.exit_code().into())
}

fn measure(scenario: &Scenario, options: &Options, progress: &mut Progress) -> Result<Report, String> {
    progress.say("starting");
    let broker = Broker::open(scenario, options)?;
    let (run, watch) = (RandomState::new().hash_one(std::process::id()) as u32, broker.watch()?);
    let outcome = if options.members.is_alone() {
        course::run(scenario, &broker.access, &Share::whole(run), watch, progress, None)?
    } else {
        let target = broker.target(&options.target);
        fleet::run(scenario, &options.members, &target, run, watch, progress)?
    };
    let mut report = outcome.report;
    report.groups = outcome.evidence.judge(scenario, report.consumed.as_mut());
    report.broker = broker.facts();
    // With agents elsewhere, that of the first one stands for all.
    if options.members.agents.is_empty() {
        report.machine = Machine::here(broker.data());
    }
    report.targets = scenario.targets.judge(&report);
    Ok(report)
}

/// Every connection is a file. Where the limit cannot be raised, opening one too many tells.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn publish(report: &Report, options: &Options) -> Result<(), String> {
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &options.html {
        write(path, &report::page(report))?;
    }
    match &options.json {
        Some(path) if path == "-" => println!("{}", report.to_json()),
        Some(path) => {
            print!("{report}");
            write(path, &(report.to_json() + "\n"))?;
        }
        None => print!("{report}"),
    }
    Ok(())
}
