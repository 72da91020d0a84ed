//! Directs the agents of one run.

use super::board::Progress;
use super::children::Process;
use super::clock::{self, Exchange};
use super::link::{Identity, Outgoing};
use super::message::{Answer, Order, PROTOCOL, Plan};
use crate::course::Outcome;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How often agents are asked how far they are.
const TICK: Duration = Duration::from_millis(100);
/// An agent that has not answered for so long is silent. Its answers do not wait for the load.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for what an agent knows in the end, which may be some MiB.
const LAST_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for all agents to connect and catch up.
const READY_PATIENCE: Duration = Duration::from_secs(300);
/// Time for the order to begin to reach all agents.
const START_DELAY_NS: u64 = 300_000_000;
/// Questions about an agent's clock.
const CLOCK_QUESTIONS: usize = 16;

/// An agent at work.
struct Member {
    /// What to call it in errors.
    name: String,
    link: Outgoing,
}

/// What all agents of a run need to be told.
pub struct Brief {
    /// The scenario as TOML, and the file of data that it names.
    pub scenario: String,
    pub data: Option<String>,
    pub url: String,
    pub run: u32,
    /// Longest wait for events under way without any progress.
    pub drain: Duration,
}

/// The agents of a run, connected.
pub struct Fleet {
    members: Vec<Member>,
    /// Those that were started for it; they end with it.
    _children: Vec<Process>,
}

impl Fleet {
    /// Connects to agents, at addresses or of our own.
    pub fn connect(
        identity: &Identity,
        addresses: &[String],
        children: Vec<Process>,
    ) -> Result<Self, String> {
        let ours =
            children.iter().enumerate().map(|(number, child)| (format!("process {number}"), &child.address));
        let others = addresses.iter().map(|address| (format!("agent {address}"), address));
        let connect = |(name, address): (String, &String)| match identity.connect(address) {
            Ok(link) => Ok(Member { name, link }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(format!("{name}: {error}; coordinator and agents need the same client certificate"))
            }
            Err(error) => Err(format!("{name}: {error}")),
        };
        let members = ours.chain(others).map(connect).collect::<Result<_, _>>()?;
        Ok(Self { members, _children: children })
    }

    /// Runs the whole course. `tick` gets the sum of all progress, and once it is known the moment at which the load
    /// begins, in nanoseconds since 1970; it is called several times a second.
    pub fn conduct(
        &mut self,
        brief: &Brief,
        mut tick: impl FnMut(&Progress, Option<u64>),
    ) -> Result<Vec<Outcome>, String> {
        let epoch_ns = clock::now_ns();
        self.prepare(brief, epoch_ns)?;
        let since = Instant::now();
        while !self.look(|progress| tick(progress, None))?.is_ready {
            if since.elapsed() > READY_PATIENCE {
                return Err(format!("not all agents were ready within {READY_PATIENCE:?}"));
            }
            thread::sleep(TICK);
        }
        let first_ns = clock::now_ns() + START_DELAY_NS;
        self.order_all(&Order::Start { first_ns: first_ns - epoch_ns })?;
        self.drain(brief.drain, |progress| tick(progress, Some(first_ns)))?;
        self.finish()
    }

    fn prepare(&mut self, brief: &Brief, epoch_ns: u64) -> Result<(), String> {
        let of = self.members.len();
        for (index, member) in self.members.iter_mut().enumerate() {
            let ahead_ns = member.clock_ahead_ns()?;
            let plan = Plan {
                protocol: PROTOCOL,
                scenario: brief.scenario.clone(),
                data: brief.data.clone(),
                index,
                of,
                url: brief.url.clone(),
                run: brief.run,
                epoch_ns: epoch_ns.saturating_add_signed(ahead_ns),
            };
            member.order(&Order::Prepare(Box::new(plan)))?;
        }
        Ok(())
    }

    fn order_all(&mut self, order: &Order) -> Result<(), String> {
        self.members.iter_mut().try_for_each(|member| member.order(order))
    }

    /// The progress of all.
    fn look(&mut self, mut show: impl FnMut(&Progress)) -> Result<Progress, String> {
        let mut sum = Progress { is_ready: true, is_sent: true, ..Progress::default() };
        for member in &mut self.members {
            match member.ask(&Order::Look)? {
                Answer::Progress(progress) => sum.add(&progress),
                other => return Err(member.wrong(&other)),
            }
        }
        show(&sum);
        Ok(sum)
    }

    /// Waits until all is sent, and every group has received what it is owed or nothing comes any more. When the load of one
    /// agent ends before its time, that of all does.
    fn drain(&mut self, patience: Duration, mut show: impl FnMut(&Progress)) -> Result<(), String> {
        let mut before = Progress::default();
        let mut since = Instant::now();
        loop {
            let now = self.look(&mut show)?;
            if now.is_stopping && !before.is_stopping {
                self.order_all(&Order::Stop)?;
            }
            let is_owed = now.owed.iter().zip(&now.received).any(|(owed, received)| received < owed);
            if now.is_sent && !is_owed {
                return Ok(());
            }
            if now != before || !now.is_sent {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() >= patience {
                return Ok(());
            }
            thread::sleep(TICK);
        }
    }

    fn finish(&mut self) -> Result<Vec<Outcome>, String> {
        for member in &mut self.members {
            member.link.set_patience(LAST_PATIENCE).map_err(|error| member.gone(&error))?;
            member.link.send(&Order::Finish).map_err(|error| member.gone(&error))?;
        }
        let part = |member: &mut Member| match member.answer()? {
            Answer::Done(part) => Ok(*part),
            other => Err(member.wrong(&other)),
        };
        self.members.iter_mut().map(part).collect()
    }
}

impl Member {
    fn order(&mut self, order: &Order) -> Result<(), String> {
        match self.ask(order)? {
            Answer::Taken => Ok(()),
            other => Err(self.wrong(&other)),
        }
    }

    fn ask(&mut self, order: &Order) -> Result<Answer, String> {
        self.link.send(order).map_err(|error| self.gone(&error))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer, String> {
        self.link.receive().map_err(|error| self.gone(&error))
    }

    fn clock_ahead_ns(&mut self) -> Result<i64, String> {
        self.link.set_patience(AGENT_PATIENCE).map_err(|error| self.gone(&error))?;
        let mut exchanges = Vec::with_capacity(CLOCK_QUESTIONS);
        for _ in 0..CLOCK_QUESTIONS {
            let asked_ns = clock::now_ns();
            match self.ask(&Order::Clock)? {
                Answer::Clock(theirs_ns) => {
                    exchanges.push(Exchange { asked_ns, theirs_ns, answered_ns: clock::now_ns() });
                }
                other => return Err(self.wrong(&other)),
            }
        }
        Ok(clock::ahead_ns(&exchanges))
    }

    fn gone(&self, error: &io::Error) -> String {
        let name = &self.name;
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("{name} is silent; the run is void")
            }
            _ => format!("{name} is gone ({error}); the run is void"),
        }
    }

    fn wrong(&self, answer: &Answer) -> String {
        match answer {
            Answer::Failed(why) => format!("{}: {why}", self.name),
            other => format!("{}: unexpected answer: {other:?}", self.name),
        }
    }
}
