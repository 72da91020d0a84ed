//! The same work on more and more executors, also on more than there are processors.

use super::Step;
use nistru_bench::broker::Broker;
use nistru_bench::load::{self, BATCH};

const EVENTS: u64 = 300_000;

pub fn executors() -> Vec<Step> {
    [1, 2, 3, 4].map(step).into()
}

fn step(cores: usize) -> Step {
    let broker = Broker::start_with(Some(cores), |_| {});
    let endpoint = broker.endpoint();
    let bodies = [load::demo_batch()];
    let mut consumers = load::consumers(&endpoint, 4, "group");
    let groups = consumers.len() as u64;
    load::consume(&mut consumers, BATCH * groups, || load::publish(&endpoint, 1, 1, &bodies));
    let before = broker.cpu();
    let batches = EVENTS / BATCH / groups;
    let took = load::consume(&mut consumers, batches * BATCH * groups, || {
        load::publish(&endpoint, 4, batches, &bodies);
    });
    let delivered = (batches * BATCH * groups) as f64;
    let cost = (broker.cpu() - before).as_secs_f64() * 1e6 / delivered;
    let rate = delivered / took.as_secs_f64();
    let note = format!("{rate:>9.0} delivered/s, {:.0} MiB", broker.memory().anonymous);
    Step { name: format!("{cores} executors"), cost, note }
}
