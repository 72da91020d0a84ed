//! Random histories against a plain list of events.

use super::heap_disk::HeapDisk;
use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        type_id: u32,
        filler: usize,
    },
    /// Reads some events from a part of the way, in thousandths.
    Read {
        at: u64,
        types: Vec<u32>,
        events: usize,
    },
    Jobs,
    Tick,
    Flush,
    /// Goes on from the last flush with the files as they are, as after a kill, and appends what is lost again.
    Reopen,
    Expire {
        at: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6u32, 0..2000usize).prop_map(|(type_id, filler)| Step::Append { type_id, filler }),
        4 => (0..1000u64, prop::collection::vec(0..7u32, 0..4), 1..40usize)
            .prop_map(|(at, types, events)| Step::Read { at, types, events }),
        3 => Just(Step::Jobs),
        2 => Just(Step::Tick),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => (0..300u64).prop_map(|at| Step::Expire { at }),
    ]
}

/// The partition and what it should hold: type and filler of event `n`.
struct Run {
    disk: HeapDisk,
    partition: Partition<HeapDisk>,
    events: Vec<(u32, usize)>,
    flushed: Option<End>,
    start: u64,
    now_ms: u64,
}

impl Run {
    fn new() -> Self {
        let disk = HeapDisk::default();
        let partition = Self::open(&disk, None);
        Self { disk, partition, events: Vec::new(), flushed: None, start: 0, now_ms: 0 }
    }

    fn open(disk: &HeapDisk, end: Option<End>) -> Partition<HeapDisk> {
        Partition::open(disk.clone(), Path::new("p"), IDENTITY, SMALL, end, Offset(0)).unwrap()
    }

    fn append(&mut self, n: usize) {
        let (type_id, filler) = self.events[n];
        let bytes = record_of(n as u64, type_id, n as u64 * 10_000, filler);
        let offset = self.partition.append_blocking(&Record::read(&bytes).unwrap()).unwrap();
        assert_eq!(offset, Offset(n as u64));
    }

    fn at(&self, thousandths: u64) -> u64 {
        self.start + (self.events.len() as u64 - self.start) * thousandths / 1000
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append { type_id, filler } => {
                self.events.push((*type_id, *filler));
                self.append(self.events.len() - 1);
            }
            Step::Read { at, types, events } => self.read(self.at(*at), types, *events),
            Step::Jobs => self.partition.run_jobs().unwrap(),
            Step::Tick => {
                self.now_ms += 300_000;
                self.partition.tick(self.now_ms);
            }
            Step::Flush => self.flushed = Some(flush(&mut self.partition)),
            Step::Reopen => self.reopen(),
            Step::Expire { at } => {
                self.start = self.at(*at);
                self.partition.expire(Offset(self.start));
            }
        }
    }

    fn reopen(&mut self) {
        self.disk = self.disk.copy();
        self.partition = Self::open(&self.disk, self.flushed);
        let known = self.flushed.map_or(0, |end| end.offset.0) as usize;
        (known..self.events.len()).for_each(|n| self.append(n));
        self.partition.expire(Offset(self.start));
        self.partition.require(Offset(self.start)).unwrap();
    }

    fn read(&mut self, from: u64, types: &[u32], events: usize) {
        let wanted = |(_, (type_id, _)): &(u64, &(u32, usize))| types.contains(type_id);
        let expected: Vec<_> = (0..)
            .zip(&self.events)
            .skip(from.max(self.start) as usize)
            .filter(wanted)
            .map(|(n, _)| (Offset(n), n))
            .collect();
        let budget = Budget { events, bytes: events * 1000 };
        assert_eq!(read_all(&mut self.partition, Offset(from), &filter(types), budget), expected);
        let counted = self.partition.count(&filter(types), Offset(from)..self.partition.end());
        assert!(!counted.exact || counted.events == expected.len() as u64, "{counted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_as_a_plain_list(steps in prop::collection::vec(step(), 1..150)) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.apply(step));
        run.read(run.start, &[0, 1, 2, 3, 4, 5], 1000);
        run.reopen();
        run.read(run.start, &[0, 2, 4], 10);
    }
}
