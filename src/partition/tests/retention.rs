//! Expiry, ageing, and a disk that is full or gone.

use super::heap_disk::HeapDisk;
use super::*;
use std::sync::atomic::Ordering;

fn on_heap(disk: &HeapDisk) -> Partition<HeapDisk> {
    Partition::open(disk.clone(), Path::new("p"), IDENTITY, SMALL, None, Offset(0)).unwrap()
}

#[test]
fn whole_segments_expire_by_the_age_of_their_youngest_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 300, 2);
    assert_eq!(partition.expirable(1000), None);
    let second = partition.sealed[1].base;
    let last_of_first = 1000 + second.0 - 1;
    assert_eq!(partition.expirable(last_of_first), None, "one event is not older");
    assert_eq!(partition.expirable(last_of_first + 1), Some(second));
    assert_eq!(partition.expirable(u64::MAX), Some(Offset(300)), "the segment being written, too");
    partition.expire(second);
    assert_eq!((partition.start(), partition.expirable(last_of_first + 1)), (second, None));
    partition.run_jobs().unwrap();
    assert!(!dir.path().join("0000000000000001.seg").exists());
    assert!(!dir.path().join("0000000000000001.idx").exists());
    assert!(dir.path().join("0000000000000002.seg").exists());
    let events = read_all(&mut partition, Offset(0), &filter(&[0, 1]), ALL);
    assert_eq!(events, expected(second.0, 300, 2, &[0, 1]));
}

#[test]
fn expiry_inside_a_segment_hides_its_first_events_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 100, 2);
    partition.expire(Offset(17));
    partition.expire(Offset(3));
    let events = read_all(&mut partition, Offset(0), &filter(&[1]), ALL);
    assert_eq!(events, expected(17, 100, 2, &[1]));
    assert!(dir.path().join("0000000000000001.seg").exists());
}

#[test]
fn a_partition_that_expired_whole_is_removed_at_the_next_tick_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 20, 2);
    partition.expire(partition.expirable(u64::MAX).unwrap());
    for _ in 0..2 {
        partition.tick(0);
        partition.run_jobs().unwrap();
    }
    assert!(!dir.path().join("0000000000000001.seg").exists());
    fill(&mut partition, 20, 40, 2);
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0, 1]), ALL), expected(20, 40, 2, &[0, 1]));
    let end = flush(&mut partition);
    drop(partition);
    assert_eq!(open(dir.path(), Some(end)).start(), Offset(20));
}

#[test]
fn an_old_segment_is_sealed_though_not_full_and_its_file_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 10, 2);
    for _ in 0..2 {
        partition.tick(1000 + SMALL.segment_ms - 1);
        partition.run_jobs().unwrap();
    }
    assert!(partition.sealed.is_empty(), "not old yet");
    for _ in 0..2 {
        partition.tick(1000 + SMALL.segment_ms);
        partition.run_jobs().unwrap();
    }
    assert_eq!(partition.sealed.len(), 1);
    let length = std::fs::metadata(dir.path().join("0000000000000001.seg")).unwrap().len();
    assert_eq!(length, 4096);
    let end = flush(&mut partition);
    assert_eq!((end.offset, end.position), (Offset(10), 64));
    drop(partition);
    let mut partition = open(dir.path(), Some(end));
    fill(&mut partition, 10, 30, 2);
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0]), ALL), expected(0, 30, 2, &[0]));
}

#[test]
fn a_full_disk_refuses_the_next_segment_only_and_passes() {
    let disk = HeapDisk::default();
    let mut partition = on_heap(&disk);
    fill(&mut partition, 0, 10, 1);
    *disk.room.lock().unwrap() = Some(0);
    let mut n = 10;
    let failed = loop {
        let record = record_of(n, 0, 1, 100);
        match partition.append(&Record::read(&record).unwrap()) {
            Ok(_) => n += 1,
            Err(NoRoom) => break n,
        }
        while let Some(job) = partition.job() {
            match job.run() {
                Ok(done) => drop(partition.finish(done)),
                Err(error) => {
                    assert!(error.error.is_disk_full() && error.kind == JobKind::Prepare, "{error}");
                    partition.failed(&error);
                }
            }
        }
    };
    assert!(failed > 60 && partition.job().is_none(), "not tried again before the next tick");
    assert!(!disk.names().contains(&"0000000000000002.seg".to_owned()), "nothing half made stays");
    *disk.room.lock().unwrap() = None;
    partition.tick(0);
    append(&mut partition, &record_of(n, 0, 1, 100));
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0]), ALL).len() as u64, n + 1);
}

#[test]
fn files_are_not_removed_while_a_reader_may_yet_open_them() {
    let disk = HeapDisk::default();
    let mut partition = on_heap(&disk);
    fill(&mut partition, 0, 200, 1);
    for _ in 0..3 {
        partition.tick(0);
        partition.run_jobs().unwrap();
    }
    let load = partition.load_job(Offset(0)).unwrap();
    partition.expire(Offset(150));
    partition.run_jobs().unwrap();
    assert!(disk.names().contains(&"0000000000000001.seg".to_owned()));
    partition.finish(load.run().unwrap());
    partition.run_jobs().unwrap();
    assert!(!disk.names().contains(&"0000000000000001.seg".to_owned()));
    assert!(partition.open.values().all(|open| open.durable) && !partition.open.contains_key(&1));
}

#[test]
fn segments_stay_open_until_they_are_durable() {
    let mut partition = on_heap(&HeapDisk::default());
    for n in 0..200 {
        let record = record_of(n, 0, 1, 300);
        while partition.append(&Record::read(&record).unwrap()).is_err() {
            let room = partition.job().unwrap();
            assert!(matches!(room.kind(), JobKind::Prepare | JobKind::Populate));
            partition.finish(room.run().unwrap());
        }
    }
    assert!(partition.sealed.len() > SMALL.loaded_max);
    let mut seals = Vec::new();
    for _ in 0..3 {
        partition.tick(0);
        while let Some(job) = partition.job() {
            match job.kind() {
                JobKind::Seal => seals.push(job),
                _ => drop(partition.finish(job.run().unwrap())),
            }
        }
    }
    assert_eq!((partition.open.len(), seals.len()), (partition.sealed.len(), 1));
}

#[test]
fn a_flush_covers_what_was_written_since_the_last_one_and_no_less() {
    let mut partition = on_heap(&HeapDisk::default());
    let parts = |partition: &Partition<HeapDisk>| match partition.flush_job().0 {
        Work::Flush { parts, end, .. } => {
            (parts.iter().map(|part| (part.number, part.range.clone())).collect::<Vec<_>>(), end.position)
        }
        _ => panic!("not a flush"),
    };
    fill(&mut partition, 0, 10, 1);
    let (first, middle) = parts(&partition);
    assert_eq!(first, [(1, 0..middle)]);
    flush(&mut partition);
    // Without the other jobs nothing else makes the first segment durable.
    while partition.reach().segment == 1 {
        let record = record_of(0, 0, 1, 500);
        if partition.append(&Record::read(&record).unwrap()).is_err() {
            let prepare = partition.job().unwrap();
            partition.finish(prepare.run().unwrap());
        }
    }
    let full = partition.open[&1].loaded.index.data_end();
    let (second, end) = parts(&partition);
    assert_eq!(second, [(1, middle..full), (2, 0..end)]);
    flush(&mut partition);
    assert_eq!(parts(&partition).0.last(), Some(&(2, end..end)));
}

#[test]
fn a_flush_that_fails_says_which_file() {
    let disk = HeapDisk::default();
    let mut partition = on_heap(&disk);
    fill(&mut partition, 0, 10, 1);
    disk.fail_syncs.store(1, Ordering::Relaxed);
    let failed = partition.flush_job().run().err().unwrap();
    assert_eq!(failed.kind, JobKind::Flush);
    assert!(failed.error.is_fatal() && !failed.error.is_disk_full());
    assert_eq!(failed.to_string(), "p/0000000000000001.seg could not be made durable: the disk is gone");
}
