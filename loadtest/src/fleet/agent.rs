//! `nistru-loadtest agent`: does what a coordinator says.

use super::board::Board;
use super::clock;
use super::link::{Identity, Incoming};
use super::message::{Answer, Order, PROTOCOL, Plan};
use crate::course::{self, Outcome};
use crate::live;
use crate::run::{Access, Share};
use crate::scenario::Scenario;
use clap::Args;
use nistru::cli::target::Target;
use nistru::client::dev_files;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use tempfile::NamedTempFile;
use time::OffsetDateTime;

/// A coordinator asks several times a second; one that has not for so long is gone.
const COORDINATOR_PATIENCE: Duration = Duration::from_secs(15);

/// Put load on for a `run --agents` on another machine.
///
/// Coordinator and agents need the same client certificate and key (--dir and --as, or --cert and --key): over TLS, each
/// obeys nobody but a holder of the same key. They serve one run at a time until they are stopped. Clocks need not
/// agree; the coordinator finds out how they differ, to half of a round trip.
#[derive(Args, Debug, Clone)]
pub struct Agent {
    /// Where to listen; the default is reachable from this machine only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8449")]
    pub listen: SocketAddr,
    /// Serve one coordinator, then end
    #[arg(long)]
    pub once: bool,
    /// With --url: reach the broker there, in place of where the coordinator says
    #[command(flatten)]
    pub target: Target,
}

/// The certificate and key files of `target`.
pub fn identity_files(target: &Target) -> (PathBuf, PathBuf) {
    let (_, certificate, key) = dev_files(&target.dir, &target.name);
    (target.cert.clone().unwrap_or(certificate), target.key.clone().unwrap_or(key))
}

impl Agent {
    /// Serves coordinators one after the other. The address comes first on standard output.
    pub fn run(&self) -> Result<ExitCode, String> {
        let (certificate, key) = identity_files(&self.target);
        let identity = Identity::read(&certificate, &key)?;
        let wrong = |error: io::Error| format!("{}: {error}", self.listen);
        let listener = TcpListener::bind(self.listen).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        println!("listening {address}");
        io::stdout().flush().map_err(wrong)?;
        loop {
            let (socket, peer) = listener.accept().map_err(wrong)?;
            match identity.accept(socket).and_then(|link| self.serve(link)) {
                Ok(()) => eprintln!("nistru-loadtest: {peer}: done"),
                Err(error) => eprintln!("nistru-loadtest: {peer}: {error}"),
            }
            if self.once {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// One run.
    fn serve(&self, mut link: Incoming) -> io::Result<()> {
        link.set_patience(COORDINATOR_PATIENCE)?;
        let plan = loop {
            match link.receive()? {
                Order::Clock => link.send(&Answer::Clock(clock::now_ns()))?,
                Order::Prepare(plan) if plan.protocol == PROTOCOL => break plan,
                Order::Prepare(plan) => {
                    let theirs = plan.protocol;
                    let why = format!(
                        "it speaks protocol {PROTOCOL}, the coordinator {theirs}: use the same version"
                    );
                    return link.send(&Answer::Failed(why));
                }
                order => return link.send(&Answer::Failed(format!("unexpected order: {order:?}"))),
            }
        };
        link.send(&Answer::Taken)?;
        self.take_part(&mut link, &plan)
    }

    /// Runs, and answers meanwhile.
    fn take_part(&self, link: &mut Incoming, plan: &Plan) -> io::Result<()> {
        let board = Board::default();
        thread::scope(|scope| {
            let part = scope.spawn(|| self.run_part(plan, &board));
            let answered = answer(link, &board, || part.is_finished());
            if answered.is_err() {
                board.abandon();
            }
            let part = part.join().expect("the run panicked");
            answered?;
            link.send(&outcome(part))
        })
    }

    fn run_part(&self, plan: &Plan, board: &Board) -> Result<Outcome, String> {
        let mut scenario = Scenario::of_text(&plan.scenario)?;
        // The data goes back into a file, which is where scenarios have it.
        let file = plan.data.as_ref().map(|data| data_file(data)).transpose()?;
        scenario.load.data = file.as_ref().map(|file| file.path().to_owned());
        let url = self.target.url.clone().unwrap_or_else(|| plan.url.clone());
        let target = Target { url: Some(url), ..self.target.clone() };
        let endpoint = target.endpoint().map_err(|error| error.to_string())?;
        let access = Access { endpoint, dir: target.dir };
        let epoch = OffsetDateTime::UNIX_EPOCH + Duration::from_nanos(plan.epoch_ns);
        let share = Share { index: plan.index, of: plan.of, run: plan.run, epoch };
        course::run(&scenario, &access, &share, None, &mut live::Progress::hidden(), Some(board))
    }
}

fn data_file(data: &str) -> Result<NamedTempFile, String> {
    let wrong = |error: io::Error| format!("cannot keep the scenario's data: {error}");
    let mut file = NamedTempFile::new().map_err(wrong)?;
    file.write_all(data.as_bytes()).map_err(wrong)?;
    Ok(file)
}

/// Answers until the order to finish has come, or the run has ended by itself and the next answer is why.
fn answer(link: &mut Incoming, board: &Board, has_ended: impl Fn() -> bool) -> io::Result<()> {
    loop {
        let order = link.receive()?;
        if has_ended() {
            return Ok(());
        }
        match order {
            Order::Clock => link.send(&Answer::Clock(clock::now_ns()))?,
            Order::Look => link.send(&Answer::Progress(board.progress()))?,
            Order::Start { first_ns } => {
                board.start(first_ns);
                link.send(&Answer::Taken)?;
            }
            Order::Stop => {
                board.stop();
                link.send(&Answer::Taken)?;
            }
            Order::Finish => {
                board.finish();
                return Ok(());
            }
            Order::Prepare(_) => link.send(&Answer::Failed("a run goes on".to_owned()))?,
        }
    }
}

fn outcome(part: Result<Outcome, String>) -> Answer {
    match part {
        Ok(outcome) => Answer::Done(Box::new(outcome)),
        Err(why) => Answer::Failed(why),
    }
}
