//! A type that is 0.01 % of the traffic, read by its index and by looking at everything.

use super::Step;
use nistru::event::record::{self, Record, RecordHeader};
use nistru::id::{Offset, Partition as Number, TypeId};
use nistru::journal::disk::RealDisk;
use nistru::partition::{Budget, Config, Finished, Identity, Partition, Status, TypeFilter};
use std::time::Instant;

const EVENTS: u64 = 1_000_000;
/// One event in so many is of the rare type.
const EVERY: u64 = 10_000;
const COMMON: TypeId = TypeId(1);
const RARE: TypeId = TypeId(2);
/// What a session asks for at a time.
const BUDGET: Budget = Budget { events: 512, bytes: 64 << 10 };

pub fn rare() -> Vec<Step> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let identity = Identity { cluster: [1; 16], partition: Number(0) };
    let mut partition = Partition::open(RealDisk, dir.path(), identity, Config::default(), None, Offset(0))
        .expect("a partition");
    for number in 0..EVENTS {
        let type_id = if number % EVERY == EVERY / 2 { RARE } else { COMMON };
        let bytes = record_of(number, type_id);
        let record = Record::read(&bytes).expect("a record");
        partition.append_blocking(&record).expect("room");
    }
    let per_thousand = |us: f64| us / (EVENTS / 1000) as f64;
    // Once before, so that both find everything in memory.
    scan(&mut partition);
    let scanned = scan(&mut partition);
    let began = Instant::now();
    let found = read(&mut partition, &[RARE].into_iter().collect(), |_| true);
    let indexed = began.elapsed().as_secs_f64() * 1e6;
    assert_eq!(found, EVENTS / EVERY);
    let note = format!("{:.0} times as fast", scanned / indexed);
    vec![
        Step { name: "everything".to_owned(), cost: per_thousand(scanned), note: String::new() },
        Step { name: "0.01 % of the events".to_owned(), cost: per_thousand(indexed), note },
    ]
}

/// Looks at every event; in microseconds.
fn scan(partition: &mut Partition<RealDisk>) -> f64 {
    let began = Instant::now();
    let found = read(partition, &[COMMON, RARE].into_iter().collect(), |type_id| type_id == RARE);
    assert_eq!(found, EVENTS / EVERY);
    began.elapsed().as_secs_f64() * 1e6
}

/// Reads the events of `filter` and counts those that `counts`.
fn read(partition: &mut Partition<RealDisk>, filter: &TypeFilter, counts: impl Fn(TypeId) -> bool) -> u64 {
    let (mut from, mut found) = (Offset(0), 0);
    loop {
        let read = partition.read(from, filter, BUDGET);
        found += read.slices.iter().filter(|slice| counts(slice.record().header().type_id)).count() as u64;
        from = read.next;
        match read.status {
            Status::AtEnd => return found,
            Status::More => {}
            Status::Cold { wait, job } => {
                let done = job.expect("nobody else reads").run().expect("a disk that works");
                assert_eq!(partition.finish(done), Finished::Warm(wait));
            }
        }
        while let Some(job) = partition.job() {
            let done = job.run().expect("a disk that works");
            partition.finish(done);
        }
    }
}

fn record_of(number: u64, type_id: TypeId) -> Vec<u8> {
    let header = RecordHeader {
        type_id,
        partition: Number(0),
        key_hash: 0,
        dedup_window_s: 0,
        time_ms: number,
        source: (0, 0),
        id: (0, 0),
    };
    let mut block = Vec::new();
    record::append::<()>(&mut block, |out| {
        out.extend_from_slice(format!("{{\"number\":{number},\"note\":\"{}\"", "x".repeat(400)).as_bytes());
        Ok(header)
    })
    .expect("an event");
    block
}
