//! Opening after a clean end, after a kill, and with files that are not as they were.

use super::*;
use crate::partition::segment::{FileKind, path_of};
use std::fs;
use std::os::unix::fs::FileExt;

/// 300 events in several segments, flushed; the directory and the end of the first 200.
fn written() -> (tempfile::TempDir, End) {
    let dir = tempfile::tempdir().unwrap();
    let mut partition = open(dir.path(), None);
    fill(&mut partition, 0, 200, 3);
    let end = flush(&mut partition);
    fill(&mut partition, 200, 300, 3);
    (dir, end)
}

fn refused(dir: &Path, end: End) -> Error {
    Partition::open(RealDisk, dir, IDENTITY, SMALL, Some(end), id::Offset(0)).err().expect("refused")
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn what_the_checkpoint_knows_is_kept_and_the_rest_is_written_again() {
    let (dir, end) = written();
    let mut partition = open(dir.path(), Some(end));
    assert_eq!((partition.start(), partition.end(), partition.reach()), (Offset(0), Offset(200), end));
    fill(&mut partition, 200, 350, 3);
    let events = read_all(&mut partition, Offset(0), &filter(&[0, 1, 2]), ALL);
    assert_eq!(events, expected(0, 350, 3, &[0, 1, 2]));
}

#[test]
fn opening_twice_is_the_same_as_once() {
    let (dir, end) = written();
    drop(open(dir.path(), Some(end)));
    let bytes = fs::read(path_of(dir.path(), end.segment, FileKind::Segment)).unwrap();
    assert_eq!(bytes[end.position as usize..][..8], [0; 8], "what was behind the end is cut off by a mark");
    let mut partition = open(dir.path(), Some(end));
    let events = read_all(&mut partition, Offset(0), &filter(&[1]), ALL);
    assert_eq!(events, expected(0, 200, 3, &[1]));
}

#[test]
fn without_a_checkpoint_everything_is_written_anew() {
    let (dir, _) = written();
    let mut partition = open(dir.path(), None);
    assert_eq!((partition.end(), partition.reach().segment), (Offset(0), 0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fill(&mut partition, 0, 50, 3);
}

#[test]
fn stale_bytes_behind_the_end_do_not_come_back() {
    let (dir, end) = written();
    let mut partition = open(dir.path(), Some(end));
    let short = record_of(200, 8, 1, 0);
    append(&mut partition, &short);
    let after = flush(&mut partition);
    drop(partition);
    let path = path_of(dir.path(), after.segment, FileKind::Segment);
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[after.position as usize..][..8], [0; 8], "the mark stands behind the last record");
    let mut partition = open(dir.path(), Some(after));
    assert_eq!(read_all(&mut partition, Offset(199), &filter(&[0, 1, 2, 8]), ALL).len(), 2);
}

#[test]
fn other_files_are_left_alone_and_half_made_ones_removed() {
    let (dir, end) = written();
    for name in ["README", "0000000000000001.idx.tmp", "00000000000000ff.seg", "00000000000000ff.idx"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    drop(open(dir.path(), Some(end)));
    let there = |name: &str| dir.path().join(name).exists();
    assert!(there("README") && !there("0000000000000001.idx.tmp"));
    assert!(!there("00000000000000ff.seg") && !there("00000000000000ff.idx"));
}

#[test]
fn lost_and_damaged_indexes_are_made_again() {
    let (dir, end) = written();
    fs::remove_file(path_of(dir.path(), 1, FileKind::Index)).unwrap();
    overwrite(&path_of(dir.path(), 2, FileKind::Index), 50, b"???");
    fs::write(path_of(dir.path(), 3, FileKind::Index), b"short").unwrap();
    let mut partition = open(dir.path(), Some(end));
    assert!(path_of(dir.path(), 1, FileKind::Index).exists());
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[2]), ALL), expected(0, 200, 3, &[2]));
}

#[test]
fn a_flipped_bit_below_the_end_is_corruption_with_file_and_byte() {
    let (dir, end) = written();
    let path = path_of(dir.path(), end.segment, FileKind::Segment);
    let bytes = fs::read(&path).unwrap();
    for at in [64, 70, 100, end.position as usize - 20] {
        overwrite(&path, at as u64, &[bytes[at] ^ 4]);
        let Error::Corrupt { file, at: named, .. } = refused(dir.path(), end) else { panic!("byte {at}") };
        assert!(file == path && named as usize <= at && at < named as usize + 500, "{named} for {at}");
        overwrite(&path, at as u64, &[bytes[at]]);
    }
    open(dir.path(), Some(end));
}

#[test]
fn a_damaged_header_and_a_cut_file_are_corruption() {
    let (dir, end) = written();
    let path = path_of(dir.path(), end.segment, FileKind::Segment);
    overwrite(&path, 24, &[9]);
    assert!(
        refused(dir.path(), end)
            .to_string()
            .ends_with("corrupt at byte 0: the checksum of the header does not match")
    );
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert!(refused(dir.path(), end).to_string().ends_with("the header was never written"));
    let (dir, end) = written();
    let path = path_of(dir.path(), end.segment, FileKind::Segment);
    let length = u64::from(end.position) - 1;
    fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
    assert!(matches!(refused(dir.path(), end), Error::Corrupt { at, .. } if at == length));
}

#[test]
fn segments_in_front_of_a_gap_are_removed_when_expired_and_kept_when_events_are_missing() {
    let (dir, end) = written();
    let first = path_of(dir.path(), 1, FileKind::Segment);
    fs::remove_file(path_of(dir.path(), 2, FileKind::Segment)).unwrap();
    let mut partition = open(dir.path(), Some(end));
    partition.run_jobs().unwrap();
    let start = partition.start();
    assert!(matches!(partition.require(Offset(0)), Err(Error::Missing { to, .. }) if to == start));
    partition.run_jobs().unwrap();
    assert!(first.exists());
    partition.require(start).unwrap();
    partition.run_jobs().unwrap();
    assert!(!first.exists());
}

#[test]
fn a_checkpoint_that_does_not_fit_the_files_is_refused() {
    let (dir, end) = written();
    let further = End { position: end.position + 8, ..end };
    assert!(matches!(refused(dir.path(), further), Error::Corrupt { .. }));
    let fewer = End { offset: Offset(end.offset.0 - 1), ..end };
    assert!(matches!(refused(dir.path(), fewer), Error::Corrupt { .. }));
    let before = End { offset: Offset(1), ..end };
    assert!(refused(dir.path(), before).to_string().contains("what follows at 1"));
}

#[test]
fn files_of_another_cluster_partition_or_version_are_foreign() {
    let (dir, end) = written();
    for (identity, said) in [
        (Identity { cluster: [1; 16], ..IDENTITY }, "it is of another cluster"),
        (Identity { partition: id::Partition(6), ..IDENTITY }, "it is of partition 5, expected 6"),
    ] {
        let error =
            Partition::open(RealDisk, dir.path(), identity, SMALL, Some(end), id::Offset(0)).err().unwrap();
        assert!(matches!(&error, Error::Foreign { what, .. } if what == said), "{error}");
    }
    let path = path_of(dir.path(), 1, FileKind::Segment);
    let mut header = fs::read(&path).unwrap()[..64].to_vec();
    header[8] = 2;
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    overwrite(&path, 0, &header);
    let error = refused(dir.path(), end);
    assert!(error.to_string().ends_with("its format version is 2, this program reads 1"), "{error}");
}

#[test]
fn removed_old_segments_are_fine_when_they_expired_and_an_error_when_not() {
    let (dir, end) = written();
    for number in [1, 2] {
        fs::remove_file(path_of(dir.path(), number, FileKind::Segment)).unwrap();
    }
    let mut partition = open(dir.path(), Some(end));
    let start = partition.start();
    assert!(start > Offset(0));
    let error = partition.require(Offset(10)).err().unwrap();
    assert!(
        error
            .to_string()
            .ends_with(&format!("lacks the events from offset 10 up to, not including, {start}"))
    );
    partition.require(start).unwrap();
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0]), ALL), expected(start.0, 200, 3, &[0]));
}

#[test]
fn a_checkpoint_older_than_the_expiry_of_all_its_segments_is_replayed_on_top() {
    let (dir, end) = written();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let number = u64::from_str_radix(&path.file_name().unwrap().to_str().unwrap()[..16], 16).unwrap();
        if number <= end.segment {
            fs::remove_file(path).unwrap();
        }
    }
    let mut partition = open(dir.path(), Some(end));
    fill(&mut partition, 200, 300, 3);
    assert!(partition.require(Offset(150)).is_err());
    partition.expire(Offset(250));
    partition.require(Offset(250)).unwrap();
    assert_eq!(read_all(&mut partition, Offset(0), &filter(&[0]), ALL), expected(250, 300, 3, &[0]));
    let end = flush(&mut partition);
    drop(partition);
    assert_eq!(open(dir.path(), Some(end)).end(), Offset(300));
}
