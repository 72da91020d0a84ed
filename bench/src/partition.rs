//! Appending to a partition, and reading events of several types from it.

use crate::HotPath;
use crate::sample::{self, Numbers};
use crate::world::{self, NOW_MS};
use nistru::event::record::{self, Record, RecordHeader};
use nistru::id::{self, Offset, TypeId};
use nistru::ingress::Block;
use nistru::journal::disk::RealDisk;
use nistru::partition::{Budget, Config, FileMap, Identity, Partition, Slice, TypeFilter};
use tempfile::TempDir;

/// The partition of a world that has only one.
const PARTITION: id::Partition = id::Partition(0);
/// More than twice what all runs that are made ready append. All of it is made writable ahead, and taken to be in memory.
const SEGMENT_BYTES: u32 = 16 << 20;
/// Types in the partition that is read, and how many of them are wanted.
const TYPES: u32 = 64;
const TYPES_WANTED: u32 = 16;
/// Records in it.
const RECORDS: u64 = 8192;

/// Appends the same records again and again.
struct Appending {
    log: Log,
    block: Block,
    first: Offset,
}

/// Reads the same events again and again.
struct Reading {
    log: Log,
    filter: TypeFilter,
    budget: Budget,
    slices: Vec<Slice<FileMap>>,
}

/// A partition on the disk.
struct Log {
    partition: Partition<RealDisk>,
    _dir: TempDir,
}

/// So many records of one request.
pub fn appended(events: usize) -> Box<dyn HotPath> {
    Box::new(Appending { log: Log::new(), block: world::block(1, events), first: Offset(0) })
}

/// So many events of a quarter of the types, from the middle of a segment.
pub fn read(events: usize) -> Box<dyn HotPath> {
    let mut log = Log::new();
    log.work();
    let mut numbers = Numbers::default();
    for _ in 0..RECORDS {
        log.append(&record_of(TypeId((numbers.draw() % u64::from(TYPES)) as u32), &mut numbers));
    }
    let filter = (0..TYPES_WANTED).map(|n| TypeId(n * TYPES / TYPES_WANTED)).collect();
    let budget = Budget { events, bytes: usize::MAX };
    Box::new(Reading { log, filter, budget, slices: Vec::new() })
}

fn record_of(type_id: TypeId, numbers: &mut Numbers) -> Vec<u8> {
    let header = RecordHeader {
        type_id,
        partition: PARTITION,
        key_hash: 0,
        dedup_window_s: 0,
        time_ms: NOW_MS,
        source: (0, 0),
        id: (0, 0),
    };
    let mut block = Vec::new();
    let appended = record::append::<()>(&mut block, |out| {
        out.extend_from_slice(sample::data(numbers, 0).as_bytes());
        Ok(header)
    });
    appended.expect("nothing fails");
    block
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity { cluster: [7; 16], partition: PARTITION };
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            window_bytes: SEGMENT_BYTES,
            recent_bytes: SEGMENT_BYTES,
            ..Config::default()
        };
        let partition = Partition::open(RealDisk, dir.path(), identity, config, None, Offset(0));
        Self { partition: partition.expect("a new partition"), _dir: dir }
    }

    /// Does what helper threads do.
    fn work(&mut self) {
        while let Some(job) = self.partition.job() {
            self.partition.finish(job.run().expect("the disk works"));
        }
    }

    fn append(&mut self, record: &[u8]) {
        let record = Record::read_unverified(record).expect("a sound record");
        self.partition.append(&record).expect("room is made ahead");
    }

    fn read(&mut self, from: Offset, filter: &TypeFilter, budget: Budget) -> Vec<Slice<FileMap>> {
        self.partition.read(from, filter, budget).slices
    }
}

impl HotPath for Appending {
    fn ready(&mut self) {
        self.log.partition.expire(self.log.partition.end());
        self.log.work();
    }

    fn run(&mut self) {
        self.first = self.log.partition.end();
        for span in &self.block.spans {
            self.log.append(self.block.record(*span));
        }
    }

    fn outcome(&mut self) -> Vec<u8> {
        let everything = Budget { events: usize::MAX, bytes: usize::MAX };
        let types = [world::RECORD_TYPE].into_iter().collect();
        made_of(&self.log.read(self.first, &types, everything))
    }
}

impl HotPath for Reading {
    fn run(&mut self) {
        self.slices = self.log.read(Offset(RECORDS / 2), &self.filter, self.budget);
    }

    fn outcome(&mut self) -> Vec<u8> {
        made_of(&self.slices)
    }
}

/// Offsets and records of what was read.
fn made_of(slices: &[Slice<FileMap>]) -> Vec<u8> {
    let bytes = |slice: &Slice<FileMap>| [&slice.offset().0.to_le_bytes(), slice.record().bytes()].concat();
    slices.iter().flat_map(bytes).collect()
}
