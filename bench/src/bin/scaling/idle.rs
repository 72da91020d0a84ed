//! Publishing while more and more consumers wait for other types.

use super::Step;
use nistru::client::{Consumer, Subscription};
use nistru_bench::broker::Broker;
use nistru_bench::load::{self, BATCH};
use std::time::Duration;

const EVENTS: u64 = 200_000;
/// Groups of a client, in which the consumers take turns.
const GROUPS: u64 = 500;
/// How long the broker is watched doing nothing.
const REST: Duration = Duration::from_secs(3);

pub fn idle() -> Vec<Step> {
    [10, 1000, 5000].map(step).into()
}

fn step(consumers: u64) -> Step {
    let broker = Broker::start();
    let endpoint = broker.endpoint();
    let bodies = [load::demo_batch()];
    load::publish(&endpoint, 2, EVENTS / BATCH, &bodies);
    let before = broker.memory().anonymous;
    let waiting = wait(&broker, consumers);
    std::thread::sleep(Duration::from_secs(1));
    let each_kib = (broker.memory().anonymous - before).max(0.0) * 1024.0 / consumers as f64;
    let before = broker.cpu();
    std::thread::sleep(REST);
    let resting = (broker.cpu() - before).as_secs_f64() / REST.as_secs_f64() * 100.0;
    let before = broker.cpu();
    load::publish(&endpoint, 2, EVENTS / BATCH, &bodies);
    let cost = (broker.cpu() - before).as_secs_f64() * 1e6 / EVENTS as f64;
    drop(waiting);
    let note = format!("{each_kib:>6.1} KiB each, {resting:.1} % of a core at rest");
    Step { name: format!("{consumers} idle consumers"), cost, note }
}

/// Opens consumers of a client that may not see what is published.
fn wait(broker: &Broker, consumers: u64) -> Vec<Consumer> {
    let endpoint = broker.endpoint_of("police");
    let open = |number| {
        let group = Subscription::group(&format!("idle-{}", number % GROUPS));
        Consumer::open(&endpoint, &group).expect("a consumer")
    };
    (0..consumers).map(open).collect()
}
