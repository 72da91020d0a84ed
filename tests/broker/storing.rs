//! Storage over time: full disks, retention, repeats.

use crate::errors::refuses_as_full;
use crate::harness::{
    Broker, PATIENCE, expect, keyed, next_event, next_ids, post_batch, post_event, record, wait_for,
};
use crate::transport::replace_line;
use nistru::journal::disk::{Disk, DiskFile, RealDisk};
use std::time::Duration;

const GIB: u64 = 1 << 30;

#[test]
fn a_nearly_full_disk_is_503_until_there_is_room_again() {
    let mut broker = Broker::prepare(&[]);
    let free = RealDisk.free_bytes(broker.dir()).unwrap();
    assert!(free > 6 * GIB, "the test needs some room on the disk");
    let reserve = (free - 2 * GIB).to_string();
    broker.configure(&[("storage", "min_free_bytes", &reserve)]);
    broker.launch();
    let mut producer = broker.connect("demo");
    expect(&post_event(&mut producer, &record("before", 1)), 202);
    let filler = broker.dir().join("filler");
    RealDisk.create(&filler).unwrap().allocate(4 * GIB).unwrap();
    broker.wait_for_log("storage is nearly full");
    refuses_as_full(&mut producer, &record("refused", 2));
    assert_eq!(broker.admin("/readyz").0, 503);
    std::fs::remove_file(&filler).unwrap();
    broker.wait_for_log("storage has room again");
    expect(&post_event(&mut producer, &record("after", 3)), 202);
    let mut ids = next_ids(&mut broker.consume("demo", "g"), 2);
    ids.sort();
    assert_eq!(ids, ["after", "before"]);
}

#[test]
fn expired_events_go_and_what_a_group_lost_is_counted() {
    let mut broker =
        Broker::with(&[("storage", "retention", "\"2s\""), ("storage", "segment_bytes", "\"256 KiB\"")]);
    let mut producer = broker.connect("demo");
    let mut consumer = broker.consume("demo", "g");
    let batch: Vec<_> = (0..100).map(|n| keyed(&format!("old-{n}"), "k", n)).collect();
    expect(&post_batch(&mut producer, &batch), 202);
    next_ids(&mut consumer, 100);
    consumer.confirm(40).unwrap();
    wait_for("the confirm", || (broker.metric("events_confirmed_total") == 40.0).then_some(()));
    consumer.close();
    wait_for("the expiry", || (broker.metric("group_expired_events_total") == 60.0).then_some(()));
    assert_eq!(broker.metric("group_lag_events"), 0.0);
    expect(&post_event(&mut producer, &keyed("new", "k", 1)), 202);
    let mut consumer = broker.consume("demo", "g");
    assert_eq!(next_event(&mut consumer)["id"], "new");
    broker.kill();
    broker.launch();
    expect(&post_event(&mut broker.connect("demo"), &keyed("newer", "k", 1)), 202);
    let last = wait_for("the newest event", || {
        let id = next_event(&mut broker.consume("demo", "late"))["id"].as_str().unwrap().to_owned();
        (id != "old-0").then_some(id)
    });
    assert!(last.starts_with("new"), "{last}");
}

#[test]
fn repeats_within_the_window_are_acknowledged_and_not_stored_again_even_across_a_crash() {
    let mut broker = Broker::prepare(&[]);
    let file = broker.registry("types/Demo.Load.Record.Created.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        replace_line(&text, "name", "name = \"Demo.Load.Record.Created\"\ndeduplicate_for = \"10m\""),
    )
    .unwrap();
    broker.launch();
    for _ in 0..3 {
        expect(&post_event(&mut broker.connect("demo"), &record("same", 1)), 202);
    }
    let batch = [record("same", 1), record("other", 2)];
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    assert_eq!(broker.metric("events_deduplicated_total"), 3.0);
    broker.kill();
    broker.launch();
    expect(&post_event(&mut broker.connect("demo"), &record("same", 1)), 202);
    let mut consumer = broker.consume("demo", "g");
    let mut ids = next_ids(&mut consumer, 2);
    ids.sort();
    assert_eq!(ids, ["other", "same"]);
    assert!(consumer.next(Duration::from_millis(300)).unwrap().is_none());
}

#[test]
fn events_that_have_left_the_page_cache_are_still_delivered_in_order() {
    let broker = Broker::with(&[("storage", "segment_bytes", "\"256 KiB\"")]);
    let mut producer = broker.connect("demo");
    let mut expected = Vec::new();
    // More sealed segments than a partition keeps the indexes of.
    let filling = format!("\"data\":{{\"note\":\"{}\",", "x".repeat(1200));
    for round in 0..40 {
        let batch: Vec<_> =
            (0..50).map(|n| keyed(&format!("{round}-{n}"), "k", n).replace("\"data\":{", &filling)).collect();
        expected.extend((0..50).map(|n| format!("{round}-{n}")));
        expect(&post_batch(&mut producer, &batch), 202);
    }
    for entry in std::fs::read_dir(broker.dir().join("data/partitions")).unwrap() {
        for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            // Index files get their names while segments are sealed; segments keep theirs.
            if path.extension().is_some_and(|extension| extension == "seg") {
                forget(&std::fs::File::open(path).unwrap());
            }
        }
    }
    let mut consumer = broker.consume("demo", "g");
    for id in expected {
        let event = consumer.next(PATIENCE).unwrap().expect("an event");
        assert!(event.text().contains(&format!("\"id\":\"{id}\"")), "{}", event.text());
        consumer.confirm(event.offset().unwrap()).unwrap();
    }
}

/// Has the kernel drop the file's pages from its cache.
fn forget(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    file.sync_all().unwrap();
    // SAFETY: the descriptor is open during the call.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}
