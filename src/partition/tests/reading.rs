//! Reading by type, cold memory, budgets, counting.

use super::heap_disk::HeapDisk;
use super::*;
use crate::journal::disk::{Disk, DiskFile};
use crate::partition::index::Index;
use crate::partition::segment::{FileKind, path_of};
use std::sync::atomic::Ordering;

/// A partition in which type 7 comes once in `every` events.
fn with_rare_type(disk: HeapDisk, events: u64, every: u64) -> Partition<HeapDisk> {
    let mut partition = Partition::open(disk, Path::new("p"), IDENTITY, SMALL, None, Offset(0)).unwrap();
    for n in 0..events {
        let type_id = if n % every == every - 1 { 7 } else { (n % 3) as u32 };
        append(&mut partition, &record_of(n, type_id, n, 200));
    }
    partition
}

/// Lets go of all memory that can be: as when nobody read for some ticks.
fn forget<D: MapDisk>(partition: &mut Partition<D>) {
    for _ in 0..3 {
        partition.tick(0);
        partition.run_jobs().unwrap();
    }
    assert!(partition.open.is_empty());
}

#[test]
fn every_filter_and_every_start_give_exactly_the_wanted_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 300, 5);
    for wanted in
        [&[0][..], &[4], &[1, 3], &[0, 2, 4], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4, 9], &[2, 9], &[9], &[]]
    {
        for from in [0, 1, 57, 58, 59, 60, 200, 299, 300] {
            let events = read_all(&mut partition, Offset(from), &filter(wanted), ALL);
            assert_eq!(events, expected(from, 300, 5, wanted), "{wanted:?} from {from}");
        }
    }
}

#[test]
fn the_size_of_an_event_is_told_without_its_padding_or_a_little_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 20, 1);
    for slice in partition.read(Offset(0), &filter(&[0]), ALL).slices {
        assert!((slice.len()..slice.len() + 8).contains(&slice.bytes_bound()));
    }
}

#[test]
fn a_budget_ends_a_read_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 200, 2);
    let first = partition.read(Offset(0), &filter(&[1]), Budget { events: 3, bytes: usize::MAX });
    assert_eq!(first.slices.iter().map(Slice::offset).collect::<Vec<_>>(), [1, 3, 5].map(Offset));
    assert!(matches!(first.status, Status::More));
    let bytes: usize = partition
        .read(Offset(0), &filter(&[1]), Budget { events: 9, bytes: 1000 })
        .slices
        .iter()
        .map(|slice| slice.record().stride())
        .sum();
    assert!((500..=1000).contains(&bytes), "{bytes}");
    for budget in [Budget { events: 1, bytes: 1 }, Budget { events: 7, bytes: 2000 }] {
        assert_eq!(read_all(&mut partition, Offset(0), &filter(&[1]), budget), expected(0, 200, 2, &[1]));
    }
}

#[test]
fn an_event_larger_than_the_budget_comes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    for n in 0..3 {
        append(&mut partition, &record_of(n, 0, 1, 3000));
    }
    let read = partition.read(Offset(1), &filter(&[0]), Budget { events: 10, bytes: 10 });
    assert_eq!((read.slices.len(), read.next), (1, Offset(2)));
}

#[test]
fn a_reader_of_a_rare_type_reads_little_of_the_disk() {
    let disk = HeapDisk::default();
    let mut partition = with_rare_type(disk.clone(), 3000, 1000);
    forget(&mut partition);
    let rare = read_all(&mut partition, Offset(0), &filter(&[7]), ALL);
    assert_eq!(rare, [999, 1999, 2999].map(|n| (Offset(n), n)));
    let loaded = partition.open.len();
    assert!(loaded <= 3, "{loaded} of {} segments were opened", partition.sealed.len());
}

#[test]
fn events_that_are_not_in_memory_come_after_a_job_and_never_before() {
    let disk = HeapDisk::default();
    let mut partition = with_rare_type(disk, 600, 10);
    forget(&mut partition);
    let read = partition.read(Offset(0), &filter(&[7]), ALL);
    assert!(read.slices.is_empty() && read.next == Offset(0));
    let Status::Cold { wait, job: Some(job) } = read.status else { panic!("not cold") };
    let again = partition.read(Offset(0), &filter(&[0]), ALL).status;
    assert!(
        matches!(again, Status::Cold { wait: same, job: None } if same == wait),
        "one job for all readers"
    );
    assert_eq!(partition.finish(job.run().unwrap()), Finished::Warm(wait));
    // `read_all` asserts that what it gets is resident.
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[7]), ALL).len(), 60);
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0, 1, 2, 7]), ALL).len(), 600);
}

#[test]
fn memory_behind_the_recent_end_is_let_go_and_comes_back() {
    let mut partition = with_rare_type(HeapDisk::default(), 40, 10);
    partition.tick(0);
    partition.run_jobs().unwrap();
    let map = partition.active.as_ref().unwrap().tail.mapped().clone();
    assert!(!map.map().resident(0..4096), "the start of the segment is let go");
    assert!(map.map().resident(map.written() as usize - 4096..map.written() as usize), "its end is not");
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0, 1, 2, 7]), ALL).len(), 40);
}

#[test]
fn a_replay_lets_go_of_memory_while_it_appends() {
    let disk = HeapDisk::default();
    let mut partition = Partition::open(disk, Path::new("p"), IDENTITY, SMALL, None, Offset(0)).unwrap();
    for n in 0..400 {
        let record = record_of(n, 0, 1000 + n, 200);
        partition.append_blocking(&Record::read(&record).unwrap()).unwrap();
    }
    let resident = partition.open.values().filter(|open| open.loaded.mapped.map().resident(0..4096)).count();
    assert!(partition.open.len() > 5 && resident < 5, "{resident} of {}", partition.open.len());
}

#[test]
fn a_bit_that_flipped_on_the_disk_is_named_and_not_delivered() {
    let disk = HeapDisk::default();
    let mut partition = with_rare_type(disk.clone(), 300, 10);
    forget(&mut partition);
    let path = path_of(Path::new("p"), 1, FileKind::Segment);
    let file = disk.open(&path).unwrap();
    let at = 64 + 264 * 2 + 100;
    file.write_at(b"?", at).unwrap();
    let mut delivered = Vec::new();
    let failed = loop {
        let read = partition.read(Offset(0), &filter(&[0, 1, 2]), ALL);
        delivered.extend(read.slices.iter().map(Slice::offset));
        let Status::Cold { job: Some(job), .. } = read.status else { panic!("not cold") };
        match job.run() {
            Ok(done) => drop(partition.finish(done)),
            Err(failed) => break failed,
        }
    };
    partition.failed(&failed);
    assert!(delivered.is_empty() && matches!(failed.kind, JobKind::Warm(_)));
    let text = failed.to_string();
    assert!(text.starts_with("p/0000000000000001.seg is corrupt at byte "), "{text}");
    let Error::Corrupt { at: named, .. } = failed.error else { panic!("{text}") };
    assert!(named <= at && at < named + 300, "{named}");
}

#[test]
fn a_lost_damaged_or_wrong_index_is_made_again_while_running() {
    let wrong = Index::default().encode(&IDENTITY, 2, Offset(61));
    for bytes in [None, Some(vec![0xff; 300]), Some(wrong)] {
        let disk = HeapDisk::default();
        let mut partition = with_rare_type(disk.clone(), 300, 10);
        assert_eq!(partition.sealed[1].base, Offset(61));
        forget(&mut partition);
        let path = path_of(Path::new("p"), 2, FileKind::Index);
        let good = disk.content(&path);
        disk.remove(&path).unwrap();
        if let Some(bytes) = &bytes {
            disk.create(&path).unwrap().write_at(bytes, 0).unwrap();
        }
        assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0, 1, 2, 7]), ALL).len(), 300, "{bytes:?}");
        assert_eq!(disk.content(&path), good);
    }
}

#[test]
fn few_indexes_stay_in_memory_however_much_is_read() {
    let mut partition = with_rare_type(HeapDisk::default(), 2000, 10);
    forget(&mut partition);
    for from in [0, 700, 100, 900, 300] {
        let mut at = Offset(from);
        for _ in 0..40 {
            let read = partition.read(at, &filter(&[0, 1, 2, 7]), Budget { events: 50, bytes: 20_000 });
            at = read.next;
            if let Status::Cold { job: Some(job), .. } = read.status {
                partition.finish(job.run().unwrap());
            }
            partition.run_jobs().unwrap();
            let loaded = partition.open.len();
            assert!(loaded <= SMALL.loaded_max, "{loaded}");
        }
    }
}

#[test]
fn counts_are_exact_in_memory_and_for_whole_segments_and_close_otherwise() {
    let mut partition = with_rare_type(HeapDisk::default(), 1000, 10);
    let exact = |from: u64, to: u64| (from..to).filter(|n| n % 10 == 9).count() as u64;
    let whole = partition.count(&filter(&[7]), Offset(0)..Offset(1000));
    assert_eq!(whole, Counted { events: 100, exact: true });
    forget(&mut partition);
    assert_eq!(partition.count(&filter(&[7]), Offset(0)..partition.end()), whole);
    let estimate = partition.count(&filter(&[7]), Offset(25)..Offset(1000));
    assert!(!estimate.exact && estimate.events.abs_diff(exact(25, 1000)) <= 3, "{estimate:?}");
    let job = partition.load_job(Offset(25)).unwrap();
    partition.finish(job.run().unwrap());
    let counted = partition.count(&filter(&[7]), Offset(25)..Offset(1000));
    assert_eq!(counted, Counted { events: exact(25, 1000), exact: true });
    partition.expire(Offset(500));
    let counted = partition.count(&filter(&[7]), Offset(0)..Offset(1000));
    assert!(counted.events.abs_diff(50) <= 3, "{counted:?}");
}

#[test]
fn an_index_costs_a_reader_nothing_when_its_type_is_not_in_the_segment() {
    let disk = HeapDisk::default();
    let mut partition = with_rare_type(disk.clone(), 1000, 2000);
    forget(&mut partition);
    let before = disk.bytes_read.load(Ordering::Relaxed);
    let read = partition.read(Offset(0), &filter(&[7]), ALL);
    assert!(matches!(read.status, Status::AtEnd) && read.next == partition.end());
    assert_eq!(disk.bytes_read.load(Ordering::Relaxed), before);
}
