//! The files of records through crashes, failures and tampering.

use super::directory;
use super::ledger::{Ledger, Terms};
use super::marks::Receiver;
use super::position::Position;
use super::verify::{Report, verify};
use crate::journal::disk::{Disk, DiskFile, RealDisk};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;

const DAY_MS: u64 = 86_400_000;
const NOW: u64 = 20_000 * DAY_MS;

/// The real disk, with failures.
#[derive(Clone, Default)]
struct Flaky(Arc<Failures>);

#[derive(Default)]
struct Failures {
    syncs: AtomicBool,
    creates: AtomicBool,
}

struct FlakyFile(File, Arc<Failures>);

fn fails(flag: &AtomicBool) -> io::Result<()> {
    if flag.load(Relaxed) { Err(io::Error::other("planted")) } else { Ok(()) }
}

impl Disk for Flaky {
    type File = FlakyFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<FlakyFile> {
        fails(&self.0.creates)?;
        Ok(FlakyFile(RealDisk.create(path)?, self.0.clone()))
    }

    fn open(&self, path: &Path) -> io::Result<FlakyFile> {
        Ok(FlakyFile(RealDisk.open(path)?, self.0.clone()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for FlakyFile {
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.0)
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        self.0.read_at(buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        self.0.write_at(buf, pos)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        fails(&self.1.syncs)?;
        self.0.sync()
    }
}

struct Bench {
    dir: TempDir,
    disk: Flaky,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), disk: Flaky::default() }
    }

    fn terms(&self) -> Terms {
        Terms {
            dir: self.dir.path().join("audit"),
            event_type: "T.PersonalData.Transfer".into(),
            file_bytes_max: 1 << 20,
            retention: None,
            events_live_for: Duration::from_secs(5 * 86_400),
        }
    }

    fn open(&self) -> Ledger<Flaky> {
        self.open_with(self.terms(), NOW)
    }

    fn open_with(&self, terms: Terms, now_ms: u64) -> Ledger<Flaky> {
        Ledger::open(self.disk.clone(), terms, now_ms).unwrap()
    }

    fn path(&self, number: u64) -> PathBuf {
        directory::path(&self.terms().dir, number)
    }

    /// The records of a file.
    fn records(&self, number: u64) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(number)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line.get("seq").is_some()).collect()
    }

    fn verify(&self) -> Report {
        verify(&RealDisk, &self.terms().dir).unwrap()
    }

    fn breaks(&self) -> Vec<String> {
        self.verify().breaks.iter().map(ToString::to_string).collect()
    }

    fn edit(&self, number: u64, change: impl FnOnce(Vec<String>) -> Vec<String>) {
        let text = fs::read_to_string(self.path(number)).unwrap();
        let lines = change(text.split_inclusive('\n').map(str::to_owned).collect());
        fs::write(self.path(number), lines.concat()).unwrap();
    }
}

/// Records the offsets in one round; `Err` when it did not become durable.
fn record(ledger: &mut Ledger<Flaky>, offsets: &[u64], now_ms: u64) -> io::Result<()> {
    ledger.ready(now_ms, u64::MAX)?;
    let mut round = ledger.round(now_ms);
    let receiver = Arc::new(Receiver { user: "u".into(), group: "g".into() });
    for &offset in offsets {
        let members = format!("\"user\":\"u\",\"group\":\"g\",\"partition\":3,\"offset\":{offset}");
        round.add(&receiver, 3, offset, &[members.into_bytes()]);
    }
    let written = round.finish();
    ledger.commit(written)
}

#[test]
fn records_go_on_after_a_restart_and_repeats_are_marked() {
    let bench = Bench::new();
    let mut ledger = bench.open();
    record(&mut ledger, &[5, 6], NOW).unwrap();
    record(&mut ledger, &[6, 7], NOW).unwrap();
    let tip = ledger.tip();
    drop(ledger);
    let mut ledger = bench.open();
    assert_eq!(ledger.tip(), tip);
    record(&mut ledger, &[7, 8], NOW).unwrap();
    let records = bench.records(1);
    let told: Vec<_> =
        records.iter().map(|r| (r["seq"].as_u64().unwrap(), r["redelivery"] == true)).collect();
    assert_eq!(told, [(1, false), (2, false), (3, true), (4, false), (5, true), (6, false)]);
    assert_eq!(records[0]["event_type"], "T.PersonalData.Transfer");
    let report = bench.verify();
    assert_eq!((report.records, report.breaks.len(), report.notes.len()), (6, 0, 0));
    assert_eq!(report.end.unwrap().0, 6);
}

#[test]
fn a_full_file_is_followed_by_one_that_carries_the_chain_and_the_marks() {
    let bench = Bench::new();
    let terms = Terms { file_bytes_max: 4096, ..bench.terms() };
    let mut ledger = bench.open_with(terms.clone(), NOW);
    for offset in 0..40 {
        record(&mut ledger, &[offset], NOW).unwrap();
    }
    assert!(ledger.tip().file > 2);
    // Only the newest file is read for the marks.
    let mut ledger = bench.open_with(terms, NOW);
    record(&mut ledger, &[0], NOW).unwrap();
    assert_eq!(bench.records(ledger.tip().file).last().unwrap()["redelivery"], true);
    assert_eq!(bench.breaks(), [""; 0]);
    assert_eq!(bench.verify().records, 41);
}

#[test]
fn many_marks_do_not_make_a_file_full() {
    let bench = Bench::new();
    let mut ledger = bench.open_with(Terms { file_bytes_max: 4096, ..bench.terms() }, NOW);
    let mut round = ledger.round(NOW);
    for group in 0..500 {
        let receiver = Arc::new(Receiver { user: "u".into(), group: group.to_string() });
        let members = format!("\"user\":\"u\",\"group\":\"{group}\",\"partition\":3,\"offset\":0");
        round.add(&receiver, 3, 0, &[members.into_bytes()]);
    }
    let written = round.finish();
    ledger.commit(written).unwrap();
    for offset in 0..8 {
        record(&mut ledger, &[offset], NOW).unwrap();
    }
    assert_eq!(ledger.tip().file, 2);
    assert_eq!(bench.breaks(), [""; 0]);
}

#[test]
fn a_new_day_begins_a_new_file_and_removes_those_that_are_old_and_sent() {
    let bench = Bench::new();
    let terms = Terms { retention: Some(Duration::from_secs(2 * 86_400)), ..bench.terms() };
    let mut ledger = bench.open_with(terms.clone(), NOW);
    for day in 0..5 {
        record(&mut ledger, &[day], NOW + day * DAY_MS).unwrap();
    }
    assert_eq!(directory::numbers(&RealDisk, &terms.dir).unwrap(), [2, 3, 4, 5]);
    ledger.ready(NOW + 9 * DAY_MS, 4).unwrap();
    assert_eq!(directory::numbers(&RealDisk, &terms.dir).unwrap(), [4, 5, 6], "4 is not sent");
    ledger.ready(NOW + 12 * DAY_MS, 6).unwrap();
    assert_eq!(directory::numbers(&RealDisk, &terms.dir).unwrap(), [6, 7]);
    ledger.ready(NOW + 13 * DAY_MS, 6).unwrap();
    assert_eq!(directory::numbers(&RealDisk, &terms.dir).unwrap(), [6, 7], "an empty day needs no file");
    let report = bench.verify();
    assert!(report.breaks.is_empty() && report.notes.len() == 1, "{report:?}");
    fs::remove_file(bench.path(6)).unwrap();
    assert!(bench.breaks()[0].starts_with("00000006.jsonl: missing"), "{:?}", bench.breaks());
}

#[test]
fn a_torn_write_does_not_count_and_its_numbers_are_given_again() {
    let bench = Bench::new();
    let mut ledger = bench.open();
    record(&mut ledger, &[1, 2], NOW).unwrap();
    record(&mut ledger, &[3, 4], NOW).unwrap();
    drop(ledger);
    let whole = fs::read(bench.path(1)).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for cut in [last_line + 1, last_line + 60, whole.len() - 1] {
        fs::write(bench.path(1), &whole[..cut]).unwrap();
        let report = bench.verify();
        assert_eq!((report.breaks.len(), report.notes.len()), (0, 1), "{report:?}");
    }
    let mut ledger = bench.open();
    assert_eq!((ledger.tip().file, ledger.tip().next_seq), (2, 4));
    record(&mut ledger, &[4], NOW).unwrap();
    assert_eq!(bench.records(2)[0]["redelivery"], false);
    let report = bench.verify();
    assert_eq!((report.breaks.len(), report.notes.len()), (0, 1), "{report:?}");
}

#[test]
fn a_hole_in_the_last_round_is_torn_and_one_before_it_is_damage() {
    let bench = Bench::new();
    let mut ledger = bench.open();
    record(&mut ledger, &[1, 2, 3], NOW).unwrap();
    record(&mut ledger, &[4, 5, 6], NOW).unwrap();
    drop(ledger);
    let whole = fs::read(bench.path(1)).unwrap();
    bench.edit(1, |mut lines| {
        lines[5] = "\0".repeat(lines[5].len());
        lines
    });
    assert_eq!(bench.breaks(), [""; 0]);
    fs::write(bench.path(1), &whole).unwrap();
    bench.edit(1, |mut lines| {
        lines[2] = lines[2].replace("\"offset\":2", "\"offset\":9");
        lines
    });
    assert!(bench.breaks()[0].starts_with("00000001.jsonl:3: the chain is broken"), "{:?}", bench.breaks());
    let mut ledger = bench.open();
    assert_eq!((ledger.tip().file, ledger.tip().next_seq), (2, 7), "changed records keep their numbers");
    record(&mut ledger, &[6], NOW).unwrap();
    assert_eq!(bench.records(2)[0]["redelivery"], true);
    assert!(bench.breaks()[0].starts_with("00000001.jsonl:3: "), "{:?}", bench.breaks());
}

#[test]
fn any_removal_change_or_exchange_of_durable_lines_shows() {
    let bench = Bench::new();
    let mut ledger = bench.open_with(Terms { file_bytes_max: 4096, ..bench.terms() }, NOW);
    for offset in 0..30 {
        record(&mut ledger, &[offset], NOW).unwrap();
    }
    let newest = ledger.tip().file;
    assert!(newest > 2);
    let files: Vec<_> = (1..=newest).map(|number| fs::read(bench.path(number)).unwrap()).collect();
    let restore = || {
        for (number, content) in (1..).zip(&files) {
            fs::write(bench.path(number), content).unwrap();
        }
    };
    let lines = fs::read_to_string(bench.path(2)).unwrap().lines().count();
    for at in 0..lines - 1 {
        for change in 0..3 {
            bench.edit(2, |mut lines| {
                match change {
                    0 => drop(lines.remove(at)),
                    1 => lines[at] = lines[at].replacen("\"chain\"", "\"chain\" ", 1),
                    _ => lines.rotate_left(at + 1),
                }
                lines
            });
            assert!(!bench.breaks().is_empty(), "line {at}, change {change}");
            restore();
        }
    }
    for number in 1..newest {
        fs::remove_file(bench.path(number)).unwrap();
        assert!(bench.breaks()[0].contains("missing"), "{:?}", bench.breaks());
        restore();
    }
    fs::rename(bench.path(1), bench.path(99)).unwrap();
    assert!(!bench.breaks().is_empty());
}

#[test]
fn after_a_failed_sync_a_new_file_goes_on_behind_the_last_durable_record() {
    let bench = Bench::new();
    let mut ledger = bench.open();
    record(&mut ledger, &[1], NOW).unwrap();
    bench.disk.0.syncs.store(true, Relaxed);
    assert!(record(&mut ledger, &[2], NOW).is_err());
    assert!(record(&mut ledger, &[2], NOW).is_err(), "no new file either");
    bench.disk.0.syncs.store(false, Relaxed);
    record(&mut ledger, &[2], NOW).unwrap();
    assert_eq!((ledger.tip().file, ledger.tip().next_seq), (2, 3));
    assert_eq!(bench.records(2)[0]["redelivery"], false, "the first try does not count");
    let report = bench.verify();
    assert_eq!((report.breaks.len(), report.notes.len(), report.records), (0, 1, 2), "{report:?}");
}

#[test]
fn a_disk_that_fails_again_and_again_leaves_one_file_behind() {
    let bench = Bench::new();
    let mut ledger = bench.open();
    record(&mut ledger, &[1], NOW).unwrap();
    for _ in 0..5 {
        bench.disk.0.syncs.store(true, Relaxed);
        assert!(record(&mut ledger, &[2], NOW).is_err());
        bench.disk.0.syncs.store(false, Relaxed);
        ledger.ready(NOW, 1).unwrap();
    }
    record(&mut ledger, &[2], NOW).unwrap();
    assert_eq!(ledger.tip().file, 2);
    assert_eq!(bench.breaks(), [""; 0]);
}

#[test]
fn a_file_that_is_removed_under_the_broker_is_followed_at_once_and_missed() {
    let bench = Bench::new();
    let mut ledger = bench.open();
    record(&mut ledger, &[1], NOW).unwrap();
    fs::remove_file(bench.path(1)).unwrap();
    record(&mut ledger, &[2], NOW).unwrap();
    assert_eq!(bench.records(2).len(), 1);
    assert!(bench.breaks()[0].starts_with("00000001.jsonl: missing"), "{:?}", bench.breaks());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_and_works_later() {
    let bench = Bench::new();
    fs::write(bench.terms().dir, "in the way").unwrap();
    assert!(Ledger::open(bench.disk.clone(), bench.terms(), NOW).is_err());
    fs::remove_file(bench.terms().dir).unwrap();
    let mut ledger = bench.open();
    bench.disk.0.creates.store(true, Relaxed);
    record(&mut ledger, &[1], NOW).unwrap();
    assert!(record(&mut ledger, &[2], NOW + DAY_MS).is_err(), "the file of the new day cannot be made");
    bench.disk.0.creates.store(false, Relaxed);
    record(&mut ledger, &[2], NOW + DAY_MS).unwrap();
    assert_eq!(bench.breaks(), [""; 0]);
}

#[test]
fn a_removed_end_shows_against_what_was_sent() {
    let bench = Bench::new();
    record(&mut bench.open(), &[1, 2], NOW).unwrap();
    Position { file: 1, bytes: 1, seq: 2 }.save(&bench.terms().dir).unwrap();
    assert_eq!(bench.breaks(), [""; 0]);
    bench.edit(1, |lines| lines[..2].to_vec());
    assert!(bench.breaks()[0].contains("records are missing at the end"), "{:?}", bench.breaks());
}

#[test]
fn the_example_in_the_documentation_is_a_file_of_this_format() {
    let document = include_str!("../../storage-format.md");
    let (_, example) = document.split_once("```jsonl audit\n").expect("the example");
    let (example, _) = example.split_once("```").expect("its end");
    let bench = Bench::new();
    fs::create_dir(bench.terms().dir).unwrap();
    fs::write(bench.path(2), example).unwrap();
    let report = bench.verify();
    assert_eq!(report.records, 1);
    let missing: Vec<_> = report.breaks.iter().map(ToString::to_string).collect();
    assert_eq!(missing.len(), 1, "only the file before is missing: {missing:?}");
    fs::write(bench.path(2), example.replace("\"seq\":41", "\"seq\":42")).unwrap();
    assert!(bench.verify().breaks.len() + bench.verify().notes.len() > 1);
}
