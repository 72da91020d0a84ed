//! Tests of whole partitions: on real files in a temporary directory.

use super::job::Work;
use super::map::{MapDisk, SegmentMap};
use super::*;
use crate::event::record::{self, Record, RecordHeader};
use crate::id::{self, Offset, TypeId};
use crate::journal::disk::RealDisk;
use std::path::Path;

mod heap_disk;
mod history;
mod reading;
mod recovering;
mod retention;
mod threads;

pub const IDENTITY: Identity = Identity { cluster: [9; 16], partition: id::Partition(5) };
/// Everything small, so that a few hundred records walk all ways.
pub const SMALL: Config = Config {
    segment_bytes: 16 << 10,
    segment_ms: 1_000_000,
    window_bytes: 8 << 10,
    recent_bytes: 4 << 10,
    warm_bytes: 8 << 10,
    release_bytes: 64 << 10,
    unwritten_bytes_max: 1 << 20,
    loaded_max: 2,
};
pub const ALL: Budget = Budget { events: usize::MAX, bytes: usize::MAX };

/// A record of type `type_id` at `time_ms` with an event of `filler` bytes beyond its number.
pub fn record_of(n: u64, type_id: u32, time_ms: u64, filler: usize) -> Vec<u8> {
    let mut block = Vec::new();
    let header = RecordHeader {
        type_id: TypeId(type_id),
        partition: IDENTITY.partition,
        key_hash: 0,
        dedup_window_s: 0,
        time_ms,
        source: (0, 0),
        id: (0, 0),
    };
    record::append::<()>(&mut block, |out| {
        out.extend_from_slice(format!("{{\"n\":{n},\"f\":\"{}\"", "x".repeat(filler)).as_bytes());
        Ok(header)
    })
    .unwrap();
    block
}

/// The number that `record_of` wrote.
pub fn number_of(event: &[u8]) -> u64 {
    let text = std::str::from_utf8(event).unwrap();
    text["{\"n\":".len()..text.find(',').unwrap()].parse().unwrap()
}

pub fn filter(types: &[u32]) -> TypeFilter {
    types.iter().copied().map(TypeId).collect()
}

pub fn open(dir: &Path, end: Option<End>) -> Partition<RealDisk> {
    Partition::open(RealDisk, dir, IDENTITY, SMALL, end, Offset(0)).unwrap()
}

pub fn append<D: MapDisk>(partition: &mut Partition<D>, record: &[u8]) -> Offset {
    let offset = partition.append_blocking(&Record::read(record).unwrap()).unwrap();
    partition.run_jobs().unwrap();
    offset
}

/// Appends events `from..to`; event `n` has type `n % types`.
pub fn fill<D: MapDisk>(partition: &mut Partition<D>, from: u64, to: u64, types: u32) {
    for n in from..to {
        let record = record_of(n, (n % u64::from(types)) as u32, 1000 + n, 100 + (n % 7) as usize * 30);
        assert_eq!(append(partition, &record), Offset(n));
    }
}

pub fn flush<D: MapDisk>(partition: &mut Partition<D>) -> End {
    let done = partition.flush_job().run().unwrap();
    match partition.finish(done) {
        Finished::Flushed(end) => end,
        other => panic!("{other:?}"),
    }
}

/// Reads on to the end, warming what is cold; checks that nothing cold is handed out and returns offsets and numbers.
pub fn read_all<D: MapDisk>(
    partition: &mut Partition<D>,
    from: Offset,
    filter: &TypeFilter,
    budget: Budget,
) -> Vec<(Offset, u64)> {
    let (mut at, mut events) = (from, Vec::new());
    loop {
        let read = partition.read(at, filter, budget);
        assert!(read.next >= at);
        for slice in &read.slices {
            assert!(slice.is_resident(), "offset {} is cold", slice.offset());
            events.push((slice.offset(), number_of(slice)));
        }
        at = read.next;
        match read.status {
            Status::AtEnd => return events,
            Status::More => {}
            Status::Cold { wait, job } => {
                let done = job.expect("no other reader").run().unwrap();
                assert_eq!(partition.finish(done), Finished::Warm(wait));
            }
        }
    }
}

pub fn expected(from: u64, to: u64, types: u32, wanted: &[u32]) -> Vec<(Offset, u64)> {
    let is_wanted = |n: &u64| wanted.contains(&((n % u64::from(types)) as u32));
    (from..to).filter(is_wanted).map(|n| (Offset(n), n)).collect()
}

#[test]
fn appended_events_are_read_in_order_with_dense_offsets_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 500, 3);
    assert!(partition.sealed.len() > 5);
    assert_eq!((partition.start(), partition.end()), (Offset(0), Offset(500)));
    let events = read_all(&mut partition, Offset(0), &filter(&[0, 1, 2]), ALL);
    assert_eq!(events, expected(0, 500, 3, &[0, 1, 2]));
}

#[test]
fn an_append_without_room_asks_for_a_segment_and_finds_it_after_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    let bytes = record_of(0, 1, 1, 10);
    let record = Record::read(&bytes).unwrap();
    assert_eq!(partition.append(&record), Err(NoRoom));
    let job = partition.job().unwrap();
    assert_eq!(job.kind(), JobKind::Prepare);
    assert!(partition.job().is_none(), "one at a time");
    assert_eq!(partition.finish(job.run().unwrap()), Finished::Room);
    assert_eq!(partition.append(&record), Ok(Offset(0)));
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 10, 1);
    let large = record_of(10, 0, 5, 100_000);
    assert_eq!(append(&mut partition, &large), Offset(10));
    fill(&mut partition, 11, 80, 1);
    assert!(partition.spare.is_some(), "a segment that was made ahead and is too small does not hinder");
    let large = record_of(80, 0, 5, 50_000);
    assert_eq!(append(&mut partition, &large), Offset(80));
    let events = read_all(&mut partition, Offset(5), &filter(&[0]), Budget { events: 3, bytes: 500 });
    assert_eq!(events, expected(5, 81, 1, &[0]));
}

#[test]
fn the_next_segment_is_made_when_the_current_one_is_half_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    let mut prepared_at = Vec::new();
    for n in 0..60 {
        let record = record_of(n, 0, 1, 400);
        while partition.append(&Record::read(&record).unwrap()).is_err() {
            assert_eq!(n, 0, "later segments are ready in time");
            partition.run_jobs().unwrap();
        }
        while let Some(job) = partition.job() {
            if matches!(&job.0, Work::Prepare { .. }) {
                prepared_at.push(partition.reach().position);
            }
            partition.finish(job.run().unwrap());
        }
    }
    assert!(!prepared_at.is_empty());
    assert!(prepared_at.iter().all(|position| (8 << 10..9 << 10).contains(position)), "{prepared_at:?}");
}

#[test]
fn pages_are_made_writable_ahead_of_the_appends() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    for n in 0..300 {
        append(&mut partition, &record_of(n, 0, 1, 300));
        let active = partition.active.as_ref().unwrap();
        let (position, capacity) = (active.index.data_end(), active.tail.capacity());
        let ahead = (position + SMALL.window_bytes / 2).min(capacity);
        assert!(active.populated >= ahead, "at {position}: {}", active.populated);
        assert!(active.tail.mapped().map().resident(position as usize..ahead as usize));
    }
}

#[test]
fn appends_wait_for_a_disk_that_does_not_keep_up() {
    const HELD: u64 = 200 << 10;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 1 << 20, unwritten_bytes_max: HELD, ..SMALL };
    let mut partition = Partition::open(RealDisk, dir.path(), IDENTITY, config, None, Offset(0)).unwrap();
    let bytes = record_of(0, 1, 1, 1000);
    let record = Record::read(&bytes).unwrap();
    let slow = loop {
        let _ = partition.append(&record);
        match partition.job() {
            Some(job) if job.kind() == JobKind::Tidy => break job,
            Some(job) => drop(partition.finish(job.run().unwrap())),
            None => {}
        }
    };
    let begun = partition.bytes();
    let more = |partition: &mut Partition<RealDisk>| match partition.job() {
        Some(job) => partition.finish(job.run().unwrap()) == Finished::Room,
        None => false,
    };
    while partition.append(&record).is_ok() || more(&mut partition) {
        assert!(partition.bytes() < begun + HELD + 2000);
    }
    assert!(partition.bytes() >= begun + HELD);
    assert_eq!(partition.finish(slow.run().unwrap()), Finished::Room);
    assert!(partition.append(&record).is_ok());
}

#[test]
fn what_was_appended_last_stays_in_memory_also_over_the_end_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { release_bytes: 1, ..SMALL };
    let mut partition = Partition::open(RealDisk, dir.path(), IDENTITY, config, None, Offset(0)).unwrap();
    for n in 0..200 {
        append(&mut partition, &record_of(n, 0, 1, 300));
        let recent = partition.read(Offset(n.saturating_sub(5)), &filter(&[0]), ALL);
        assert_eq!(recent.slices.len() as u64, n.min(5) + 1, "at {n}");
    }
}

#[test]
fn everything_can_be_handed_to_another_thread() {
    fn movable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    movable::<Partition<RealDisk>>();
    movable::<Job<RealDisk>>();
    movable::<Done<<RealDisk as MapDisk>::Map>>();
    movable::<JobError>();
    shareable::<Slice<<RealDisk as MapDisk>::Map>>();
    shareable::<TypeFilter>();
}

#[test]
fn a_slice_outlives_expiry_and_removal_of_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 200, 1);
    let read = partition.read(Offset(0), &filter(&[0]), Budget { events: 1, bytes: 1000 });
    let slice = read.slices[0].clone();
    partition.expire(Offset(200));
    partition.run_jobs().unwrap();
    drop((read, partition));
    assert_eq!((slice.offset(), number_of(&slice)), (Offset(0), 0));
    let other_core = std::thread::spawn(move || number_of(&slice));
    assert_eq!(other_core.join().unwrap(), 0);
}
