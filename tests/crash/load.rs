//! Producers and consumers that go on through every death of the broker.

use crate::harness::{PATIENCE, post_batch_or_error};
use crate::history::{Event, History};
use nistru::client::{Connection, Consumer, Delivery, Endpoint, Subscription};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Keys of one producer.
const KEYS: u64 = 5;
/// How long a silent group is taken to have got everything.
const SILENCE: Duration = Duration::from_secs(2);

/// What all load threads share.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub dir: &'a Path,
    /// Of the broker that runs now.
    pub port: &'a AtomicU16,
    pub done: &'a AtomicBool,
    pub history: &'a Mutex<History>,
}

/// Random numbers that a seed fixes (a linear congruential generator after Knuth).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

impl Target<'_> {
    fn endpoint(&self) -> Endpoint {
        let url = format!("https://localhost:{}", self.port.load(Relaxed));
        Endpoint::of_dev(&url, self.dir, "demo")
            .expect("the client's files are there")
            .patient(Duration::from_secs(5))
    }

    fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }
}

/// Posts batches of random sizes until the test is done. What became of a request without an answer stays unknown.
pub fn produce(target: Target<'_>, producer: usize, mut chance: Chance) {
    let mut numbers = [0; KEYS as usize];
    let mut batches = 0;
    while !target.is_done() {
        let Ok(mut connection) = Connection::open(&target.endpoint()) else { continue };
        while !target.is_done() {
            batches += 1;
            let batch = format!("{producer}-{batches}");
            let size = 1 + chance.below(20) as usize;
            let events: Vec<_> = (0..size)
                .map(|_| {
                    let key = chance.below(KEYS) as usize;
                    numbers[key] += 1;
                    let (key, number) = (format!("{producer}.{key}"), numbers[key]);
                    Event { id: format!("{key}.{number}"), key, number, batch: batch.clone() }
                })
                .collect();
            target.history.lock().unwrap().sent(&batch, size);
            let texts: Vec<_> = events.iter().map(Event::to_json).collect();
            match post_batch_or_error(&mut connection, &texts) {
                Ok(answer) if answer.status == 202 => target.history.lock().unwrap().acknowledge(events),
                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                Err(_) => break,
            }
        }
    }
}

/// Consumes, confirms now and then and reports some events as dead until the test is done.
pub fn consume(target: Target<'_>, group: &str, mut chance: Chance) {
    while !target.is_done() {
        let Ok(mut consumer) = Consumer::open(&target.endpoint(), &Subscription::group(group)) else {
            continue;
        };
        let mut received = Vec::new();
        while let Ok(delivery) = consumer.next(Duration::from_millis(50)) {
            if target.is_done() {
                return;
            }
            let Some(delivery) = delivery else { continue };
            received.push(Event::of(&delivery).id);
            if chance.below(20) == 0 && consumer.send(&format!("dead:{}", delivery.text())).is_err() {
                break;
            }
            if chance.below(10) == 0 {
                let upto = 1 + chance.below(received.len() as u64);
                if consumer.confirm(upto).is_err() {
                    break;
                }
                target.history.lock().unwrap().confirm(received[..upto as usize].iter().cloned());
            }
        }
    }
}

/// Everything a fresh group gets: at least `expected` events, and then until nothing more comes.
pub fn read_all(endpoint: &Endpoint, group: &str, expected: usize, patience: Duration) -> Vec<Event> {
    read(endpoint, &Subscription::group(group), expected, patience)
}

/// The ids of all dead events.
pub fn read_dead(endpoint: &Endpoint, group: &str) -> BTreeSet<String> {
    let wanted = Subscription { events: Some(false), dead: Some(true), ..Subscription::group(group) };
    read(endpoint, &wanted, 0, PATIENCE).into_iter().map(|event| event.id).collect()
}

fn read(endpoint: &Endpoint, wanted: &Subscription, expected: usize, patience: Duration) -> Vec<Event> {
    let mut consumer = Consumer::open(endpoint, wanted).expect("the broker accepts a consumer");
    let mut events = Vec::new();
    let deadline = Instant::now() + patience;
    loop {
        match consumer.next(SILENCE).expect("the session goes on") {
            Some(delivery) => {
                events.push(Event::of(&delivery));
                consumer.confirm(delivery.offset().expect("an offset")).expect("a confirm is taken");
            }
            None if events.len() >= expected || Instant::now() > deadline => return events,
            None => {}
        }
    }
}

/// What the group still gets, all of it confirmed.
pub fn drain(endpoint: &Endpoint, group: &str) -> BTreeSet<String> {
    read_all(endpoint, group, 0, PATIENCE).into_iter().map(|event| event.id).collect()
}

impl Event {
    fn to_json(&self) -> String {
        let Self { id, key, number, batch } = self;
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"urn:demo","type":"Demo.Load.Record.Created","partitionkey":"{key}","data":{{"number":{number},"name":"{batch}"}}}}"#
        )
    }

    fn of(delivery: &Delivery) -> Self {
        let event: serde_json::Value = serde_json::from_str(delivery.text()).expect("an event is JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
        Self {
            id: text(&event["id"]),
            key: text(&event["partitionkey"]),
            number: event["data"]["number"].as_u64().expect("a number"),
            batch: text(&event["data"]["name"]),
        }
    }
}
