//! What the directory asks for, and when.

use super::answer::{Found, read, tests::answer};
use super::cache_file::Remembered;
use super::directory::{Directory, Question, Reply, Rules, Verdict};
use super::settings::tests::bounds;
use crate::id::ClientId;
use crate::registry::model::{CertificateKey, Registry};
use proptest::prelude::{Just, Strategy, prop_assert, prop_oneof, proptest};
use std::collections::BTreeSet;
use std::time::Duration;

const FOUND_MS: u64 = 1_800_000;
const UNKNOWN_MS: u64 = 30_000;
const WAIT_MS: u64 = 10_000;
/// Some time long after 1970.
const START: u64 = 1_700_000_000_000;

fn rules() -> Rules {
    Rules {
        found_for: Duration::from_millis(FOUND_MS),
        unknown_for: Duration::from_millis(UNKNOWN_MS),
        requests_max: 4,
        wait_max: Duration::from_millis(WAIT_MS),
    }
}

fn directory() -> Directory<u32> {
    Directory::new(rules(), Vec::new())
}

fn key(serial: &str) -> CertificateKey {
    CertificateKey { issuer: "CN=ca".into(), serial: serial.into() }
}

fn found(n: u8, serials: &[&str]) -> Found {
    read(answer(n, serials).to_string().as_bytes(), &bounds(), |_| ()).unwrap()
}

fn id(n: u8) -> ClientId {
    found(n, &["1"]).client.id
}

fn certificate(serial: &str) -> Question {
    Question::Certificate(key(serial))
}

/// Asks for a certificate of which nothing is known and gives it this reply.
fn settle(directory: &mut Directory<u32>, serial: &str, reply: Reply, now: u64) -> Vec<(u32, Verdict)> {
    assert_eq!(directory.ask(key(serial), 0, now), None);
    assert_eq!(directory.next(now), Some(certificate(serial)));
    directory.answered(certificate(serial), reply, now)
}

#[test]
fn a_certificate_is_asked_for_once_however_many_wait_for_it() {
    let mut directory = directory();
    assert_eq!(directory.ask(key("a"), 1, START), None);
    assert_eq!(directory.ask(key("a"), 2, START), None);
    assert_eq!(directory.next(START), Some(certificate("a")));
    assert_eq!(directory.ask(key("a"), 3, START), None);
    assert_eq!(directory.next(START), None);
    let told = directory.answered(certificate("a"), Reply::Found(found(1, &["a"])), START);
    assert_eq!(told, [(1, Verdict::Known), (2, Verdict::Known), (3, Verdict::Known)]);
    assert!(directory.take_changed() && !directory.take_changed());
    assert_eq!(directory.ask(key("a"), 4, START), Some((4, Verdict::Known)));
}

#[test]
fn what_is_absent_is_remembered_for_its_time() {
    for (reply, verdict, for_ms) in [
        (Reply::NotFound, Verdict::Unknown, UNKNOWN_MS),
        (Reply::Unusable, Verdict::Unusable, UNKNOWN_MS),
        (Reply::Failed, Verdict::Unreachable, 2_000),
    ] {
        let mut directory = directory();
        assert_eq!(settle(&mut directory, "a", reply, START), [(0, verdict)]);
        assert_eq!(directory.ask(key("a"), 1, START + for_ms - 1), Some((1, verdict)));
        assert_eq!(directory.ask(key("a"), 1, START + for_ms), None);
        assert!(!directory.take_changed());
    }
}

#[test]
fn the_issuer_counts_as_well_as_the_serial_number() {
    let mut directory = directory();
    let other = CertificateKey { issuer: "CN=other".into(), serial: "a".into() };
    assert_eq!(directory.ask(other.clone(), 0, START), None);
    let question = directory.next(START).unwrap();
    let told = directory.answered(question, Reply::Found(found(1, &["a"])), START);
    assert_eq!(told, [(0, Verdict::Unknown)]);
    assert_eq!(directory.ask(key("a"), 1, START), Some((1, Verdict::Known)));
    assert_eq!(directory.ask(other, 1, START), Some((1, Verdict::Unknown)));
}

#[test]
fn a_client_is_asked_for_again_before_its_answer_is_too_old() {
    let mut directory = directory();
    settle(&mut directory, "a", Reply::Found(found(1, &["a"])), START);
    directory.take_changed();
    let due = directory.wake_at();
    assert!((START + FOUND_MS / 2..START + FOUND_MS).contains(&due));
    assert_eq!(directory.next(due - 1), None);
    assert_eq!(directory.next(due), Some(Question::Client(id(1))));
    assert_eq!(directory.next(due), None);
    assert_eq!(directory.ask(key("a"), 1, due), Some((1, Verdict::Known)));
    directory.answered(Question::Client(id(1)), Reply::Found(found(1, &["a"])), due);
    assert!(!directory.take_changed(), "the same answer changes nothing");
    assert!(directory.wake_at() > due + FOUND_MS / 2);
}

#[test]
fn a_change_counts_and_takes_certificates_away() {
    let mut directory = directory();
    settle(&mut directory, "a", Reply::Found(found(1, &["a", "b"])), START);
    directory.take_changed();
    let due = directory.wake_at();
    let question = directory.next(due).unwrap();
    directory.answered(question, Reply::Found(found(1, &["b", "c"])), due);
    assert!(directory.take_changed());
    assert_eq!(directory.ask(key("a"), 1, due), None);
    assert_eq!(directory.ask(key("c"), 1, due), Some((1, Verdict::Known)));
}

#[test]
fn a_certificate_that_two_clients_claim_is_held_by_the_one_that_was_answered_last() {
    let mut directory = directory();
    settle(&mut directory, "a", Reply::Found(found(1, &["a"])), START);
    settle(&mut directory, "b", Reply::Found(found(2, &["a", "b"])), START + 1);
    let holder = |directory: &Directory<u32>| {
        let registry = Registry::default().with_clients(directory.clients());
        registry.client_of(&key("a")).map(|client| client.id)
    };
    assert_eq!(holder(&directory), Some(id(2)));
    directory.take_changed();
    let later = START + FOUND_MS;
    assert_eq!(directory.next(later), Some(Question::Client(id(2))));
    assert_eq!(directory.next(later), Some(Question::Client(id(1))));
    directory.answered(Question::Client(id(1)), Reply::Found(found(1, &["a"])), later);
    assert!(directory.take_changed());
    assert_eq!(holder(&directory), Some(id(1)));
}

#[test]
fn a_client_that_is_gone_is_forgotten() {
    let mut directory = directory();
    settle(&mut directory, "a", Reply::Found(found(1, &["a"])), START);
    directory.take_changed();
    let due = directory.wake_at();
    let question = directory.next(due).unwrap();
    directory.answered(question, Reply::NotFound, due);
    assert!(directory.take_changed() && directory.clients().is_empty());
    assert_eq!(directory.wake_at(), u64::MAX);
    assert_eq!(directory.ask(key("a"), 1, due), None);
}

#[test]
fn a_known_client_goes_on_while_the_api_fails_and_is_asked_for_ever_more_rarely() {
    let mut directory = directory();
    settle(&mut directory, "a", Reply::Found(found(1, &["a"])), START);
    directory.take_changed();
    let mut pauses = Vec::new();
    let mut now = directory.wake_at();
    for reply in [
        Reply::Failed,
        Reply::Unusable,
        Reply::Found(found(2, &["a"])),
        Reply::Failed,
        Reply::Failed,
        Reply::Failed,
    ] {
        assert_eq!(directory.next(now), Some(Question::Client(id(1))));
        directory.answered(Question::Client(id(1)), reply, now);
        pauses.push(directory.wake_at() - now);
        now = directory.wake_at();
        assert_eq!(directory.ask(key("a"), 1, now), Some((1, Verdict::Known)));
    }
    assert_eq!(pauses, [15_000, 30_000, 60_000, 120_000, 240_000, 300_000]);
    assert!(!directory.take_changed());
}

#[test]
fn requests_are_bounded_and_repetitions_leave_room_for_first_questions() {
    let remembered = (1..=9).map(|n| Remembered { found: found(n, &[&format!("{n}")]), answered_ms: START });
    let mut directory = Directory::new(rules(), remembered.collect());
    assert_eq!(directory.clients().len(), 9);
    let later = START + 2 * FOUND_MS;
    assert!(matches!(directory.next(later), Some(Question::Client(_))));
    assert!(matches!(directory.next(later), Some(Question::Client(_))));
    assert_eq!(directory.next(later), None);
    for serial in ["a", "b", "c"] {
        assert_eq!(directory.ask(key(serial), 0, later), None);
    }
    assert_eq!(directory.next(later), Some(certificate("a")));
    assert_eq!(directory.next(later), Some(certificate("b")));
    assert_eq!(directory.next(later), None);
    directory.answered(certificate("a"), Reply::Failed, later);
    assert_eq!(directory.next(later), Some(certificate("c")));
}

#[test]
fn who_waits_too_long_for_a_request_to_begin_is_told() {
    let mut directory = directory();
    for number in 0..6 {
        assert_eq!(directory.ask(key(&format!("{number}")), number, START + u64::from(number)), None);
    }
    for _ in 0..4 {
        directory.next(START).unwrap();
    }
    assert_eq!(directory.wake_at(), START + 4 + WAIT_MS);
    assert_eq!(directory.give_up(START + 4 + WAIT_MS), [(4, Verdict::Unreachable)]);
    directory.answered(certificate("0"), Reply::NotFound, START);
    assert_eq!(directory.next(START), Some(certificate("5")));
}

#[test]
fn a_flood_of_unknown_certificates_fills_no_memory() {
    let mut directory = directory();
    for number in 0..30_000u32 {
        settle(&mut directory, &format!("{number:x}"), Reply::NotFound, START);
    }
    assert_eq!(directory.figures(START).1, 10_000);
    for number in 0..1024 {
        assert_eq!(directory.ask(key(&format!("f{number}")), number, START), None);
    }
    assert_eq!(directory.ask(key("aaaa"), 9, START), Some((9, Verdict::Unreachable)));
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_out() {
    let mut directory = directory();
    settle(&mut directory, "a", Reply::NotFound, START);
    settle(&mut directory, "b", Reply::Found(found(1, &["b"])), START);
    let before = START - 3 * FOUND_MS;
    assert_eq!(directory.ask(key("a"), 1, before), None);
    assert_eq!(directory.next(before), Some(certificate("a")));
    assert_eq!(directory.next(before), Some(Question::Client(id(1))));
}

/// What may happen to a directory.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    Next,
    /// One of the questions under way gets one of the replies.
    Answer(usize, u8),
    Wait(u64),
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..8u8).prop_map(Step::Ask),
        Just(Step::Next),
        (0..8usize, 0..6u8).prop_map(|(which, reply)| Step::Answer(which, reply)),
        prop_oneof![1..5_000u64, Just(FOUND_MS)].prop_map(Step::Wait),
        Just(Step::GiveUp),
    ]
}

/// Clients 1 to 3 hold two certificates each, which overlap.
fn reply(kind: u8) -> Reply {
    match kind {
        0 => Reply::NotFound,
        1 => Reply::Unusable,
        2 => Reply::Failed,
        n => Reply::Found(found(n - 2, &[&format!("{}", n - 3), &format!("{}", n - 2)])),
    }
}

/// A directory and what must be true of it.
struct Watched {
    directory: Directory<u32>,
    now: u64,
    under_way: Vec<Question>,
    asked: u32,
    waiting: BTreeSet<u32>,
}

impl Watched {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Ask(serial) => {
                self.asked += 1;
                match self.directory.ask(key(&serial.to_string()), self.asked, self.now) {
                    Some((waiter, _)) => assert_eq!(waiter, self.asked),
                    None => assert!(self.waiting.insert(self.asked)),
                }
            }
            Step::Next => {
                if let Some(question) = self.directory.next(self.now) {
                    assert!(!self.under_way.contains(&question), "{question:?} is under way already");
                    self.under_way.push(question);
                    assert!(self.under_way.len() <= rules().requests_max);
                }
            }
            Step::Answer(which, kind) if !self.under_way.is_empty() => {
                let question = self.under_way.remove(which % self.under_way.len());
                let told = self.directory.answered(question, reply(*kind), self.now);
                self.told(told);
            }
            Step::Answer(..) => {}
            Step::Wait(ms) => self.now += ms,
            Step::GiveUp => {
                let told = self.directory.give_up(self.now);
                self.told(told);
            }
        }
    }

    fn told(&mut self, told: Vec<(u32, Verdict)>) {
        for (waiter, _) in told {
            assert!(self.waiting.remove(&waiter), "{waiter} is told twice");
        }
    }
}

proptest! {
    #[test]
    fn everybody_who_waits_is_told_once_and_no_question_is_asked_twice_at_a_time(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let (under_way, waiting) = (Vec::new(), BTreeSet::new());
        let mut watched = Watched { directory: directory(), now: START, under_way, asked: 0, waiting };
        steps.iter().for_each(|step| watched.take(step));
        while !watched.under_way.is_empty() {
            watched.take(&Step::Answer(0, 2));
        }
        watched.take(&Step::Wait(WAIT_MS));
        watched.take(&Step::GiveUp);
        prop_assert!(watched.waiting.is_empty());
        // Whatever happened, every client that is known will be asked for again.
        for _ in 0..watched.directory.clients().len() {
            watched.now += FOUND_MS;
            watched.take(&Step::Next);
            prop_assert!(!watched.under_way.is_empty());
            watched.take(&Step::Answer(0, 0));
        }
        prop_assert!(watched.directory.clients().is_empty());
    }
}
