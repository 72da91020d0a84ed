//! Starting on a partition that has become large.

use super::Step;
use nistru_bench::broker::Broker;
use nistru_bench::load::{self, BATCH};
use std::time::{Duration, Instant};

/// Events that are all in one partition.
const STEPS: [u64; 2] = [100_000, 10_000_000];

pub fn opening() -> Vec<Step> {
    let mut broker = Broker::start();
    let bodies = [load::batch(0..BATCH, 200, |_| load::DEMO.to_owned(), |_| 1)];
    let mut steps = Vec::new();
    let mut published = 0;
    for events in STEPS {
        load::publish(&broker.endpoint(), 4, (events - published) / BATCH, &bodies);
        published = events;
        let size = format!("{:.1} GiB", broker.bytes_in("partitions") as f64 / (1 << 30) as f64);
        let step = |how: &str, took: Duration| Step {
            name: format!("{events} events, {how}"),
            cost: took.as_secs_f64() * 1e3,
            note: size.clone(),
        };
        steps.push(step("killed", again(&mut broker, Broker::kill)));
        steps.push(step("stopped", again(&mut broker, Broker::stop)));
    }
    steps
}

/// How long the broker takes to be ready again after `end`.
fn again(broker: &mut Broker, end: fn(&mut Broker)) -> Duration {
    end(broker);
    let began = Instant::now();
    broker.start_again();
    began.elapsed()
}
