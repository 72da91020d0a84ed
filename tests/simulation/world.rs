//! One run: producers, consumers, operators, a broker that is killed again and again, and the disk below it, all driven by one
//! stream of chance.

use crate::broker::{Abort, Broker};
use crate::consumers::Consumer;
use crate::disk::{Crash, Failure, SimDisk};
use crate::history::{Event, History, Number};
use crate::log::log;
use crate::random::{Random, Trace};
use crate::rounds::Pending;
use crate::start::{CHECKPOINTS, CLUSTER, JOURNAL, PARTITIONS, Refusal, start};
use nistru::id::{ClientId, GroupId, Partition, TypeId};
use nistru::journal::disk::{Disk, DiskFile};
use nistru::journal::frame::{BLOCK, FrameHeader};
use nistru::partition::Error as PartitionError;
use nistru::state::GroupName;
use nistru::state::PartitionEnd;
use nistru::state::checkpoint::{CheckpointError, CheckpointJob};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TYPES: [&str; 3] = ["Common", "Rare", "Unrepeated"];
/// The type whose repeats are not stored, and for how long.
const UNREPEATED: (TypeId, u32) = (TypeId(3), 90);
const KEYS: u64 = 7;
const CONSUMERS_MAX: usize = 7;
const DISK_BYTES: u64 = 8 << 20;
/// Producers are turned away above this: a start must have room to replay the journal.
const DISK_BYTES_FOR_INTAKE: u64 = 6 << 20;
/// Steps after which a run that was left in peace must have delivered everything.
const PEACE_STEPS: usize = 60_000;

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub trace: Trace,
    pub events: usize,
    pub answered: u64,
    pub delivered: u64,
    pub crashes: u64,
    /// Starts that were refused because of a flipped bit.
    pub refusals: u64,
    pub checkpoints: u64,
}

pub struct World {
    random: Random,
    disk: SimDisk,
    history: History,
    broker: Broker,
    now_ms: u64,
    sessions: u64,
    peace: bool,
    summary: Summary,
}

/// Runs `steps` steps and then lets everything come to rest. Panics when something that must hold does not.
pub fn run(seed: u64, steps: usize) -> Summary {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.rest();
    world.finish()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.fork(), DISK_BYTES);
        let filters = filters();
        let mut history = History::new(PARTITIONS, filters.clone());
        let started = start(&disk, &mut random, &mut history).expect("an empty disk is no problem");
        let broker = Broker::new(disk.clone(), random.fork(), started, filters);
        let summary = Summary {
            trace: Trace::new(),
            events: 0,
            answered: 0,
            delivered: 0,
            crashes: 0,
            refusals: 0,
            checkpoints: 0,
        };
        let mut world =
            Self { random, disk, history, broker, now_ms: 1_000_000, sessions: 0, peace: false, summary };
        world.define();
        world
    }

    /// One thing happens.
    fn step(&mut self) {
        let dice = self.random.below(1000);
        self.summary.trace.add(dice);
        let done = self.act(dice);
        if done.is_err() || self.disk.is_off() {
            self.crash();
        }
        self.broker.coordinate(&mut self.history);
        self.broker.bury();
    }

    fn act(&mut self, dice: u64) -> Result<(), Abort> {
        match dice {
            0..300 => self.broker.journal_step(self.now_ms, &mut self.history)?,
            300..340 => self.produce(),
            340..480 => self.apply(),
            480..560 => self.run_job()?,
            560..600 => self.broker.file_step()?,
            600..640 => self.tick(),
            640..900 => self.talk(),
            900..940 => self.consumer_acts(),
            940..965 => self.operate(),
            965..980 => self.checkpoint()?,
            _ if self.peace => {}
            980..982 => self.light_fuse(),
            982..984 => self.crash(),
            984..985 => self.fail_something(),
            985..988 => self.squeeze(),
            988..992 => self.disk.write_back(),
            _ => {}
        }
        Ok(())
    }

    /// The machine will stop soon, wherever it is then.
    fn light_fuse(&mut self) {
        let changes = self.random.below(60);
        self.disk.light_fuse(changes);
    }

    fn fail_something(&mut self) {
        let failure = self.random.pick(&[Failure::Write, Failure::Sync, Failure::SyncDir]);
        self.disk.fail_next(*failure.expect("one of three"));
    }

    /// Someone else fills the disk, or tidies up.
    fn squeeze(&mut self) {
        let room = if self.random.chance(1, 2) { self.random.below(40 << 10) } else { DISK_BYTES };
        self.disk.set_capacity(self.disk.used() + room);
    }

    /// Proposes the types and groups that the journal does not know yet.
    fn define(&mut self) {
        let state = &self.broker.state;
        for (at, name) in TYPES.iter().enumerate().skip(state.next_type_id().0 as usize - 1) {
            let id = TypeId(at as u32 + 1);
            self.broker.queue.push_back(Pending::DefineType { id, name: (*name).to_owned() });
        }
        for group in self.broker.filters.keys().filter(|group| state.group(**group).is_none()) {
            let name =
                GroupName { client: ClientId([group.0 as u8; 16]), name: format!("group {group}").into() };
            self.broker.queue.push_back(Pending::DefineGroup { id: *group, group: name });
        }
    }

    fn is_defined(&self) -> bool {
        let state = &self.broker.state;
        state.next_type_id().0 as usize > TYPES.len()
            && self.broker.filters.keys().all(|g| state.group(*g).is_some())
    }

    /// A producer sends a request of one or several events; sometimes the same events again.
    fn produce(&mut self) {
        let full = self.broker.queue.len() > 40 || self.disk.used() > DISK_BYTES_FOR_INTAKE;
        if !self.is_defined() || self.peace || full {
            return;
        }
        let numbers: Vec<Number> = match self.random.chance(1, 5) {
            true => self.repeat().into_iter().collect(),
            false => (0..1 + self.random.below(5)).map(|_| self.new_event()).collect(),
        };
        self.send(numbers);
    }

    fn send(&mut self, numbers: Vec<Number>) {
        let mut block = Vec::new();
        numbers.iter().for_each(|number| self.history.events[*number].append(*number, &mut block));
        if !block.is_empty() {
            self.broker.queue.push_back(Pending::Events { block, numbers });
        }
    }

    fn new_event(&mut self) -> Number {
        let type_id = TypeId([1, 1, 1, 1, 1, 1, 1, 2, 3, 3][self.random.index(10)]);
        let key = self.random.below(KEYS);
        let size = if self.random.chance(1, 40) { self.random.index(7000) } else { self.random.index(300) };
        self.history.produced(Event {
            type_id,
            key,
            partition: Partition((key % u64::from(PARTITIONS)) as u8),
            id: self.history.events.len() as u64,
            time_ms: self.now_ms,
            dedup_window_s: if type_id == UNREPEATED.0 { UNREPEATED.1 } else { 0 },
            size,
        })
    }

    /// One of the last events that are not stored twice is sent again.
    fn repeat(&mut self) -> Option<Number> {
        let unrepeated = |number: &Number| self.history.events[*number].type_id == UNREPEATED.0;
        let candidates: Vec<Number> =
            (0..self.history.events.len()).rev().filter(unrepeated).take(12).collect();
        let number = *self.random.pick(&candidates)?;
        Some(self.again(number))
    }

    fn again(&mut self, number: Number) -> Number {
        let event = Event { time_ms: self.now_ms, ..self.history.events[number].clone() };
        self.history.produced(event)
    }

    /// The owner of a partition takes in what core 0 sent.
    fn apply(&mut self) {
        let at = self.random.index(self.broker.owners.len());
        for _ in 0..1 + self.random.below(4) {
            self.broker.owners[at].apply(&self.history);
        }
    }

    /// A helper thread finishes a job.
    fn run_job(&mut self) -> Result<(), Abort> {
        let at = self.random.index(self.broker.owners.len());
        let owner = &mut self.broker.owners[at];
        owner.collect_jobs();
        if owner.jobs.is_empty() {
            return Ok(());
        }
        let job = self.random.index(owner.jobs.len());
        match owner.run_job(job) {
            Err(error) if matches!(error.error, PartitionError::Corrupt { .. }) => {
                assert!(self.disk.mend(), "corruption out of nothing: {error}");
                self.summary.refusals += 1;
                Err(Abort)
            }
            done => done.map_err(|_| Abort),
        }
    }

    fn tick(&mut self) {
        self.now_ms += self.random.below(12_000);
        let now_ms = self.now_ms;
        self.broker.owners.iter_mut().for_each(|owner| owner.tick(now_ms));
        self.broker.consumers.iter_mut().filter(|it| !it.closed).for_each(|consumer| consumer.tick(now_ms));
    }

    /// A few messages between cores arrive.
    fn talk(&mut self) {
        for _ in 0..1 + self.random.below(12) {
            let owner = self.random.index(self.broker.owners.len());
            self.broker.answer(owner);
            if !self.broker.consumers.is_empty() {
                self.consumer_talks();
                self.broker.coordinate(&mut self.history);
            }
        }
    }

    fn consumer_talks(&mut self) {
        let at = self.random.index(self.broker.consumers.len());
        match 1 + self.random.below(4) {
            1 => self.broker.coordinator_hears(at),
            2 if !self.broker.consumers[at].closed => self.broker.consumers[at].hear(self.now_ms),
            3 => self.broker.owner_hears(at),
            4 if !self.broker.consumers[at].closed => {
                let room = self.random.index(9);
                self.broker.consumers[at].receive(room, &mut self.history);
            }
            _ => {}
        }
    }

    /// A consumer connects, confirms, misbehaves or goes away.
    fn consumer_acts(&mut self) {
        let count = self.broker.consumers.len();
        let (act, at) = (self.random.below(20), self.random.index(count.max(1)));
        if count == 0 || act < 2 && count < CONSUMERS_MAX {
            return self.connect();
        }
        let consumer = &mut self.broker.consumers[at];
        let (random, history) = (&mut self.random, &mut self.history);
        match act {
            _ if consumer.closed => {}
            0..=2 if !self.peace => consumer.close(),
            3 => consumer.reread(),
            4 => consumer.confirm_nonsense(),
            5..=7 => consumer.done(random, history),
            _ => consumer.confirm(self.peace || act < 14, random, history),
        }
    }

    fn connect(&mut self) {
        if self.is_defined() && self.broker.consumers.len() < CONSUMERS_MAX {
            self.sessions += 1;
            let groups: Vec<GroupId> = self.broker.filters.keys().copied().collect();
            let group = groups[self.sessions as usize % groups.len()];
            self.broker.join(Consumer::new(self.sessions, group, &mut self.random));
        }
    }

    /// Retention, and now and then an operator.
    fn operate(&mut self) {
        let partition = Partition(self.random.below(u64::from(PARTITIONS)) as u8);
        if self.random.chance(1, 3) {
            let age_ms = 60_000 + self.random.below(600_000);
            self.broker.expire(partition, self.now_ms.saturating_sub(age_ms));
        } else if self.random.chance(1, 10) && !self.peace && self.is_defined() && !self.broker.is_resetting()
        {
            self.broker.reset(GroupId(1 + self.random.below(3) as u32), partition, &mut self.history);
        }
    }

    fn checkpoint(&mut self) -> Result<(), Abort> {
        self.broker.begin_checkpoint();
        let Some((checkpoint, ends)) = self.broker.ripe_checkpoint() else { return Ok(()) };
        let ends = ends.iter().map(|end| PartitionEnd {
            offset: end.offset,
            segment: end.segment,
            position: end.position,
        });
        let dir = Path::new(CHECKPOINTS);
        let job = CheckpointJob::new(&self.disk, dir, CLUSTER, checkpoint.snapshot, ends.collect());
        match job.run() {
            Ok(done) => {
                log(|| format!("{done:?}"));
                self.summary.checkpoints += 1;
                self.broker.sequencer.checkpointed(done.safe);
            }
            Err(CheckpointError::Full(_)) => {}
            Err(_) => return Err(Abort),
        }
        Ok(())
    }

    /// The broker goes down and comes back, as often as it takes.
    fn crash(&mut self) {
        self.summary.crashes += 1;
        self.summary.answered += self.broker.answered;
        let unanswered = self.broker.unanswered();
        let how = if self.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss };
        self.disk.crash(how);
        self.disk.set_capacity(DISK_BYTES);
        // One flipped bit at a time is what the broker must cope with.
        self.disk.mend();
        if self.random.chance(1, 3) && !self.peace {
            self.flip_a_bit();
        }
        while !self.come_back() {}
        self.define();
        self.resend(unanswered);
    }

    /// Whether the broker started. It may be killed while it does.
    fn come_back(&mut self) -> bool {
        if self.random.chance(1, 4) && !self.peace {
            self.light_fuse();
        }
        log(|| "start".to_owned());
        match start(&self.disk, &mut self.random, &mut self.history) {
            Ok(started) => {
                self.disk.put_out_fuse();
                let filters = self.broker.filters.clone();
                self.broker = Broker::new(self.disk.clone(), self.random.fork(), started, filters);
                self.history.check_logs();
                true
            }
            Err(_) if self.disk.is_off() => {
                self.disk.crash(if self.random.chance(1, 2) { Crash::Kill } else { Crash::PowerLoss });
                false
            }
            Err(Refusal(why)) => {
                log(|| format!("refused: {why}"));
                assert!(self.disk.mend(), "the broker does not start again: {why}");
                self.summary.refusals += 1;
                self.disk.crash(Crash::Kill);
                false
            }
        }
    }

    /// Producers that got no answer send again what is not stored twice; the others give up.
    fn resend(&mut self, unanswered: Vec<Number>) {
        for number in unanswered {
            if self.history.events[number].type_id == UNREPEATED.0
                && self.random.chance(1, 2)
                && self.is_defined()
            {
                let again = self.again(number);
                self.send(vec![again]);
            }
        }
    }

    /// Turns over one bit wherever the broker promises to notice and to live with it. It does not in the only checkpoint, in the last
    /// frames, of which nothing later says that they were synced, nor in sealed segments, whose records are checked when they come from
    /// the disk but not one by one when they are read.
    fn flip_a_bit(&mut self) {
        let files = self.disk.files();
        let Some((path, bytes)) = self.random.pick(&files).filter(|(_, bytes)| *bytes > 0).cloned() else {
            return;
        };
        let bit = self.random.index(bytes * 8);
        let sealed = self.disk.exists(&path.with_extension("idx"));
        let only = is_only_checkpoint(&path, &files);
        if !sealed && !only && !is_in_last_frames(&self.disk, &path, bit / 8) {
            self.disk.flip(&path, bit);
        }
    }

    /// Leaves the broker alone until everything is delivered and confirmed.
    fn rest(&mut self) {
        self.peace = true;
        self.crash();
        for step in 0..PEACE_STEPS {
            self.step();
            if step % 64 == 0 && self.broker.is_quiet() && self.history.all_consumed() {
                return;
            }
        }
        panic!("not everything is delivered and confirmed after {PEACE_STEPS} steps in peace");
    }

    fn finish(mut self) -> Summary {
        self.crash();
        self.history.check_logs();
        self.summary.trace.add(self.disk.trace().number());
        self.summary.delivered = self.history.delivered;
        self.summary.events = self.history.events.len();
        self.summary
    }
}

/// Three groups of consumers: one wants everything, one two types, one the rarest.
fn filters() -> BTreeMap<GroupId, BTreeSet<TypeId>> {
    let types = |numbers: &[u32]| numbers.iter().copied().map(TypeId).collect();
    BTreeMap::from([(GroupId(1), types(&[1, 2, 3])), (GroupId(2), types(&[2, 3])), (GroupId(3), types(&[2]))])
}

/// Whether `byte` of the file at `path` lies in a frame of which no other says that it was synced.
fn is_in_last_frames(disk: &SimDisk, path: &Path, byte: usize) -> bool {
    let in_journal = |path: &Path| path.parent() == Some(Path::new(JOURNAL));
    if !in_journal(path) {
        return false;
    }
    let files = disk.files().into_iter().filter(|(path, _)| in_journal(path));
    let synced_upto = files.flat_map(|(path, _)| headers(disk, &path)).map(|(header, _)| header.synced_upto);
    let synced_upto = synced_upto.max().unwrap_or_default();
    let mut last = headers(disk, path).into_iter().filter(|(header, _)| header.index > synced_upto);
    last.any(|(header, at)| (at..at + header.span() as usize).contains(&byte))
}

/// The sound frame headers in the file at `path` and where they are.
fn headers(disk: &SimDisk, path: &Path) -> Vec<(FrameHeader, usize)> {
    let file = disk.open(path).expect("the file is there");
    let mut bytes = vec![0; file.len().expect("the machine is on") as usize];
    file.read_at(&mut bytes, 0).expect("the machine is on");
    let blocks = bytes.chunks(BLOCK).zip((0..).step_by(BLOCK));
    blocks.filter_map(|(block, at)| Some((FrameHeader::read(block).ok()?, at))).collect()
}

/// Whether the file at `path` is the one checkpoint there is.
fn is_only_checkpoint(path: &Path, files: &[(PathBuf, usize)]) -> bool {
    let is_checkpoint = |path: &Path| path.extension().is_some_and(|extension| extension == "ckp");
    is_checkpoint(path) && files.iter().filter(|(path, _)| is_checkpoint(path)).count() < 2
}
