use super::super::story::{PARTITIONS, Story, confirm, event};
use super::*;
use crate::id::PRIVATE_PARTITIONS;
use crate::journal::command::Command;
use crate::journal::disk::RealDisk;
use tempfile::tempdir;

const CLUSTER: ClusterId = ClusterId([8; 16]);
const GENESIS: Genesis = Genesis { cluster: CLUSTER, partitions: PARTITIONS - PRIVATE_PARTITIONS };

fn ends(state: &State) -> Vec<PartitionEnd> {
    let end = |n| PartitionEnd { offset: state.end(crate::id::Partition(n)), segment: 3, position: 64 };
    (0..PARTITIONS).map(end).collect()
}

fn write(dir: &Path, state: &State) -> CheckpointDone {
    CheckpointJob::new(&RealDisk, dir, CLUSTER, state.snapshot(), ends(state)).run().unwrap()
}

fn reload(dir: &Path) -> Loaded {
    load(&RealDisk, dir, &GENESIS).unwrap()
}

/// Everything in a state that a checkpoint must keep.
fn shown(state: &State) -> String {
    format!("{:?}", state.snapshot())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = RealDisk.list(dir).unwrap();
    names.sort();
    names
}

/// A story in which every part of the state holds something.
fn full_story() -> Story {
    let mut story = Story::new();
    let block = [event(0, 60, "s", "1"), event(1, 60, "s", "2"), event(1, 5, "s", "3")].concat();
    story.tell(5_000, &[Command::Events(&block), confirm(1, 1)]).unwrap();
    story.gap(9, 4);
    story
}

#[test]
fn a_state_survives_being_written_and_loaded() {
    let dir = tempdir().unwrap();
    let story = full_story();
    write(dir.path(), &story.state);
    let mut loaded = reload(dir.path());
    assert_eq!(shown(&loaded.state), shown(&story.state));
    assert_eq!(loaded.ends, Some(ends(&story.state)));
    let (group, name) = story.state.groups().next().unwrap();
    assert_eq!(loaded.state.group_id(name), Some(group));
    assert_eq!(loaded.state.groups_of(name.client, None).next(), Some((group, name)));
    assert_eq!(loaded.state.dedup().screen(6_000, &event(0, 60, "s", "1")), Some(Vec::new()));
}

#[test]
fn without_a_checkpoint_the_state_is_the_one_before_the_first_frame() {
    let dir = tempdir().unwrap();
    let loaded = reload(&dir.path().join("checkpoint"));
    assert_eq!(
        (loaded.state.applied().index, loaded.ends, loaded.safe),
        (FrameIndex(0), None, FrameIndex(0))
    );
}

#[test]
fn two_checkpoints_are_kept_and_the_journal_is_needed_from_the_older_one_on() {
    let dir = tempdir().unwrap();
    let mut story = Story::new();
    let mut safe = Vec::new();
    for _ in 0..4 {
        safe.push(write(dir.path(), &story.state).safe.0);
        story.events(0, 1);
    }
    assert_eq!(safe, [0, 1, 2, 3]);
    assert_eq!(names(dir.path()), [name(FrameIndex(3)), name(FrameIndex(4))]);
    assert_eq!(reload(dir.path()).safe, FrameIndex(3));
}

#[test]
fn a_removed_checkpoint_that_came_back_is_not_fallen_back_on() {
    let dir = tempdir().unwrap();
    let mut story = Story::new();
    write(dir.path(), &story.state);
    let oldest = dir.path().join(name(FrameIndex(1)));
    let bytes = std::fs::read(&oldest).unwrap();
    for _ in 0..2 {
        story.events(0, 1);
        write(dir.path(), &story.state);
    }
    std::fs::write(&oldest, bytes).unwrap();
    assert_eq!(reload(dir.path()).safe, FrameIndex(2));
    assert_eq!(names(dir.path()), [name(FrameIndex(2)), name(FrameIndex(3))]);
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used() {
    let dir = tempdir().unwrap();
    let mut story = Story::new();
    write(dir.path(), &story.state);
    let before = shown(&story.state);
    story.events(0, 1);
    write(dir.path(), &story.state);
    let newest = dir.path().join(name(FrameIndex(2)));
    let sound = std::fs::read(&newest).unwrap();
    for at in (0..sound.len()).step_by(7) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&newest, damaged).unwrap();
        let loaded = reload(dir.path());
        assert_eq!((shown(&loaded.state), loaded.safe), (before.clone(), FrameIndex(0)), "byte {at}");
        assert_eq!(loaded.damaged, [name(FrameIndex(2))]);
    }
    for length in [0, 63, 64, sound.len() - 1] {
        std::fs::write(&newest, &sound[..length]).unwrap();
        assert_eq!(reload(dir.path()).state.applied().index, FrameIndex(1), "length {length}");
    }
}

#[test]
fn an_unfinished_checkpoint_is_ignored_and_made_anew() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("checkpoint.new"), b"half").unwrap();
    assert!(reload(dir.path()).ends.is_none());
    write(dir.path(), &Story::new().state);
    assert_eq!(names(dir.path()), [name(FrameIndex(1))]);
}

#[test]
fn another_version_or_another_cluster_is_refused_not_skipped() {
    let dir = tempdir().unwrap();
    let mut story = Story::new();
    write(dir.path(), &story.state);
    story.events(0, 1);
    write(dir.path(), &story.state);
    let newest = dir.path().join(name(FrameIndex(2)));
    let sound = std::fs::read(&newest).unwrap();
    let altered = |at: usize| {
        let mut altered = sound.clone();
        altered[at] ^= 3;
        let crc = crc32fast::hash(&altered[..60]);
        altered[60..64].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&newest, altered).unwrap();
        load(&RealDisk, dir.path(), &GENESIS)
    };
    assert!(matches!(altered(8), Err(CheckpointError::Version { version: 2, .. })));
    assert!(matches!(altered(24), Err(CheckpointError::Foreign { .. })));
}

#[test]
fn a_state_that_contradicts_itself_is_taken_for_damage() {
    let story = full_story();
    let snapshot = story.state.snapshot();
    let mut beyond = ends(&story.state);
    beyond[1].offset = Offset(0);
    assert!(from_bytes(&snapshot.to_bytes(&beyond), PARTITIONS).is_none(), "a cursor beyond the end");
    let sound = snapshot.to_bytes(&ends(&story.state));
    assert!(from_bytes(&sound, PARTITIONS).is_some());
    assert!(from_bytes(&sound, PARTITIONS + 1).is_none(), "another number of partitions");
}

#[test]
#[should_panic(expected = "ends at frame 1")]
fn ends_at_another_frame_than_the_snapshot_are_a_bug() {
    let story = Story::new();
    let mut ends = ends(&story.state);
    ends[0].offset = Offset(1);
    CheckpointJob::new(&RealDisk, Path::new("/"), CLUSTER, story.state.snapshot(), ends);
}

#[test]
fn a_snapshot_does_not_change_with_the_state() {
    let mut story = full_story();
    let snapshot = story.state.snapshot();
    let before = format!("{snapshot:?}");
    story.tell(5_001, &[Command::Events(&event(0, 60, "s", "9")), confirm(0, 1)]).unwrap();
    assert_eq!(format!("{snapshot:?}"), before);
}
