use super::super::scribe::{LAYOUT, Scribe, reopen};
use super::*;
use crate::journal::command::Body;
use crate::journal::disk::RealDisk;
use tempfile::tempdir;

const START: Mark = Mark { index: FrameIndex(0), term: crate::id::Term(0), chain: 0, time_ms: 0 };

fn indices(dir: &Path, after: &Mark) -> Vec<u64> {
    Scribe::resume(dir, after).unwrap().0.iter().map(|(index, _)| index.0).collect()
}

fn damage_of(dir: &Path, after: &Mark) -> Damage {
    match reopen(dir, after) {
        Err(RecoveryError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fresh_directory_gets_its_first_file_and_no_frames() {
    let dir = tempdir().unwrap();
    let journal = dir.path().join("journal");
    let recovered = reopen(&journal, &START).unwrap();
    assert_eq!((recovered.unapplied(), recovered.torn_tail()), (0, None));
    assert_eq!(RealDisk.list(&journal).unwrap(), ["00000001.jrn"]);
}

#[test]
fn committed_frames_are_replayed_over_several_files_and_gone_on_with() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    let bodies: Vec<usize> = (0..20).map(|n| (n * 1733 + 8) / 8 * 8).collect();
    for (fill, bytes) in bodies.iter().enumerate() {
        scribe.commit_block(*bytes, fill as u8);
    }
    let (frames, mut scribe) = Scribe::resume(dir.path(), &START).unwrap();
    assert_eq!(frames.len(), 20);
    for (at, (index, body)) in frames.iter().enumerate() {
        assert_eq!((index.0, body.len()), (at as u64 + 1, bodies[at] + 8));
        assert!(body[8..].iter().all(|byte| *byte == at as u8));
    }
    assert!(scribe.commit_block(8, 1).file > FileNumber(2));
    assert_eq!(indices(dir.path(), &START), (1..=21).collect::<Vec<_>>());
}

#[test]
fn frames_a_checkpoint_covers_are_neither_replayed_nor_needed() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(1, 20);
    let covered = scribe.sequencer.tip();
    scribe.commit_small(21, 20);
    assert_eq!(indices(dir.path(), &covered), (21..=40).collect::<Vec<_>>());
    scribe.flip(FileNumber(1), FIRST_FRAME + 100);
    scribe.flip(FileNumber(2), FIRST_FRAME + 10);
    assert_eq!(indices(dir.path(), &covered), (21..=40).collect::<Vec<_>>());
    assert_eq!(indices(dir.path(), &scribe.sequencer.tip()), [0; 0]);
}

#[test]
fn recycled_files_go_on_with_the_log_and_their_stale_frames_are_not_seen() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    for round in 0..12 {
        scribe.commit_small(round * 10, 10);
        scribe.sequencer.checkpointed(scribe.sequencer.committed());
    }
    let covered = scribe.sequencer.tip();
    scribe.commit_small(0, 3);
    assert!(RealDisk.list(dir.path()).unwrap().len() <= 4);
    assert_eq!(indices(dir.path(), &covered), [121, 122, 123]);
}

#[test]
fn a_frame_torn_anywhere_is_cut_and_its_place_used_again() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(0, 3);
    let block = vec![7; 10_000];
    let mut body = Body::default();
    body.push(&crate::journal::command::Command::Events(&block));
    let (round, bytes) = scribe.round(&body);
    for sector in 0..bytes.len() / 512 {
        // Sectors up to this one never reached the disk: those that hold only padding may be missing.
        let mut torn = bytes.clone();
        torn[..(sector + 1) * 512].fill(0);
        scribe.write(&round, &torn);
        let (frames, _) = Scribe::resume(dir.path(), &START).unwrap();
        assert_eq!(frames.len(), 3, "sector {sector}");
    }
    for sectors in 1..20 {
        let mut torn = bytes.clone();
        torn[sectors * 512..].fill(0);
        scribe.write(&round, &torn);
        let recovered = reopen(dir.path(), &START).unwrap();
        let tail = TornTail { file: round.file, position: round.position, index: round.index };
        assert_eq!((recovered.unapplied(), recovered.torn_tail()), (3, Some(tail)));
        assert_eq!(reopen(dir.path(), &START).unwrap().torn_tail(), None, "erased");
    }
    let (_, mut scribe) = Scribe::resume(dir.path(), &START).unwrap();
    assert_eq!(scribe.commit_block(8, 1).position, round.position);
    assert_eq!(indices(dir.path(), &START), [1, 2, 3, 4]);
}

#[test]
fn a_frame_that_is_there_when_the_one_before_it_is_not_is_cut_with_it() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(0, 3);
    let (first, _) = scribe.round(&Body::default());
    let (second, bytes) = scribe.round(&Body::default());
    scribe.write(&second, &bytes);
    let recovered = reopen(dir.path(), &START).unwrap();
    let tail = TornTail { file: second.file, position: second.position, index: second.index };
    assert_eq!((recovered.unapplied(), recovered.torn_tail()), (3, Some(tail)));
    let (_, mut scribe) = Scribe::resume(dir.path(), &START).unwrap();
    assert_eq!(scribe.commit_block(8, 1).position, first.position);
    assert_eq!(indices(dir.path(), &START), [1, 2, 3, 4]);
}

#[test]
fn a_whole_frame_that_was_never_acknowledged_is_kept() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    let (round, bytes) = scribe.round(&Body::default());
    scribe.write(&round, &bytes);
    assert_eq!(indices(dir.path(), &START), [1]);
}

#[test]
fn any_damage_to_a_frame_that_a_later_one_covers_is_refused_by_name_and_range() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    let rounds: Vec<_> = (0..4).map(|fill| scribe.commit_block(5000, fill)).collect();
    for (at, bad) in rounds[..3].iter().enumerate() {
        for byte in [0, 5, 20, 49, 70, 93, 96, 104, 5000] {
            scribe.flip(bad.file, bad.position + byte);
            let to = bad.position + 8192;
            let first = bad.index;
            let expected =
                Damage { file: bad.file, from: bad.position, to, first, synced_upto: FrameIndex(3) };
            assert_eq!(damage_of(dir.path(), &START), expected, "frame {at} byte {byte}");
            scribe.flip(bad.file, bad.position + byte);
        }
    }
    assert_eq!(indices(dir.path(), &START), [1, 2, 3, 4]);
}

#[test]
fn damage_at_the_end_of_a_file_is_told_by_the_next_file() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(0, 15);
    let next = scribe.commit_block(8, 1);
    scribe.commit_block(8, 2);
    assert_eq!(next.file, FileNumber(2));
    let last_of_first_file = 15 * BLOCK as u64;
    scribe.flip(FileNumber(1), last_of_first_file + 50);
    let damage = damage_of(dir.path(), &START);
    assert_eq!((damage.file, damage.from, damage.to), (FileNumber(1), last_of_first_file, LAYOUT.file_bytes));
    assert!(damage.to_string().contains("00000001.jrn"), "{damage}");
}

#[test]
fn a_missing_file_is_damage() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(0, 40);
    std::fs::remove_file(FileNumber(2).path(dir.path())).unwrap();
    let damage = damage_of(dir.path(), &START);
    assert_eq!((damage.first, damage.synced_upto), (FrameIndex(16), FrameIndex(39)));
    std::fs::remove_file(FileNumber(1).path(dir.path())).unwrap();
    assert!(matches!(
        reopen(dir.path(), &START),
        Err(RecoveryError::StartsLate { oldest: FrameIndex(31), needed: FrameIndex(1) })
    ));
}

#[test]
fn a_journal_that_ends_before_its_checkpoint_is_refused() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(0, 5);
    let covered = Mark { index: FrameIndex(9), ..scribe.sequencer.tip() };
    assert!(matches!(
        reopen(dir.path(), &covered),
        Err(RecoveryError::EndsEarly { last: FrameIndex(5), covered: FrameIndex(9) })
    ));
    let empty = tempdir().unwrap();
    assert!(matches!(reopen(empty.path(), &covered), Err(RecoveryError::EndsEarly { .. })));
}

#[test]
fn a_checkpoint_of_another_history_is_refused() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_small(0, 5);
    let covered = Mark { index: FrameIndex(3), chain: 1, ..scribe.sequencer.tip() };
    assert!(matches!(
        reopen(dir.path(), &covered),
        Err(RecoveryError::OtherHistory { index: FrameIndex(3) })
    ));
}

#[test]
fn a_damaged_or_foreign_first_block_is_refused() {
    let dir = tempdir().unwrap();
    let scribe = Scribe::new(dir.path());
    scribe.flip(FileNumber(1), 20);
    assert!(matches!(reopen(dir.path(), &START), Err(RecoveryError::FileHeader { file: FileNumber(1) })));
    let mut header = {
        scribe.flip(FileNumber(1), 20);
        scribe.file_header(FileNumber(1))
    };
    header.cluster = ClusterId([4; 16]);
    scribe.open(FileNumber(1)).write_at(&header.block(), 0).unwrap();
    assert!(matches!(reopen(dir.path(), &START), Err(RecoveryError::ForeignFile { .. })));
}

#[test]
fn a_frame_that_supersedes_a_suffix_takes_its_place() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.commit_block(8, 1);
    let kept = scribe.sequencer.tip();
    scribe.commit_block(8, 2);
    let last = scribe.commit_block(8, 3);
    let body = Body::default();
    let mut header = FrameHeader {
        kind: crate::journal::frame::FrameKind::Commands,
        nonce: scribe.file_header(FileNumber(1)).nonce,
        index: FrameIndex(2),
        prev_index: FrameIndex(1),
        term: crate::id::Term(2),
        prev_term: kept.term,
        synced_upto: FrameIndex(1),
        time_ms: 2_000,
        block: (last.position / BLOCK as u64 + 1) as u32,
        body_bytes: body.bytes() as u32,
        body_crc: 0,
        prev_chain: kept.chain,
        chain: 0,
    };
    header.chain = header.computed_chain();
    let mut bytes = vec![0; BLOCK];
    header.write(&mut bytes);
    scribe.open(FileNumber(1)).write_at(&bytes, header.position()).unwrap();
    let (frames, scribe) = Scribe::resume(dir.path(), &START).unwrap();
    let replayed: Vec<_> = frames.iter().map(|(index, body)| (index.0, body.len())).collect();
    assert_eq!(replayed, [(1, 16), (2, 0)]);
    assert_eq!(scribe.sequencer.tip(), header.mark());
    let covered = Mark { index: FrameIndex(2), ..header.mark() };
    assert_eq!(indices(dir.path(), &covered), [0; 0]);
}

#[test]
fn files_of_another_configured_length_are_used_to_their_end_and_not_kept_ready() {
    let dir = tempdir().unwrap();
    let mut scribe = Scribe::new(dir.path());
    scribe.do_file_work();
    scribe.commit_small(0, 2);
    let layout = Layout { file_bytes: 32 * BLOCK as u64, ..LAYOUT };
    let recovered = recover(&RealDisk, dir.path(), &layout, &START, &mut || 1).unwrap();
    assert_eq!(recovered.unapplied(), 2);
    assert_eq!(RealDisk.list(dir.path()).unwrap(), ["00000001.jrn"]);
}

#[test]
fn a_half_made_file_is_removed_at_start() {
    let dir = tempdir().unwrap();
    Scribe::new(dir.path()).commit_small(0, 2);
    std::fs::write(dir.path().join("00000002.new"), b"half").unwrap();
    assert_eq!(indices(dir.path(), &START), [1, 2]);
    assert!(!dir.path().join("00000002.new").exists());
}

#[test]
fn after_a_restart_files_are_kept_for_as_long_as_an_older_checkpoint_needs_them() {
    for covered in [0, 20] {
        let dir = tempdir().unwrap();
        let mut scribe = Scribe::new(dir.path());
        scribe.commit_small(0, 20);
        let after = if covered == 20 { scribe.sequencer.tip() } else { START };
        scribe.commit_small(20, 20);
        let (_, mut scribe) = Scribe::resume(dir.path(), &after).unwrap();
        scribe.sequencer.checkpointed(FrameIndex(15));
        scribe.commit_small(40, 40);
        let kept = |number| FileNumber(number).path(dir.path()).exists();
        assert!(kept(2) && kept(3), "checkpoint {covered}");
        assert_eq!(kept(1), covered == 20, "a file that was not read counts as needed up to the checkpoint");
    }
}
