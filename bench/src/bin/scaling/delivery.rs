//! The same events to more and more groups.

use super::Step;
use nistru_bench::broker::Broker;
use nistru_bench::load::{self, BATCH};

/// Events delivered in one step, over all groups.
const DELIVERED: u64 = 400_000;

/// What each delivery adds to the cost of taking the events in.
pub fn groups() -> Vec<Step> {
    [1, 12, 100].map(step).into()
}

fn step(groups: u64) -> Step {
    let broker = Broker::start();
    let endpoint = broker.endpoint();
    let bodies = [load::demo_batch()];
    let batches = DELIVERED / BATCH / groups;
    let mut consumers = load::consumers(&endpoint, groups, "group");
    load::consume(&mut consumers, BATCH * groups, || load::publish(&endpoint, 1, 1, &bodies));
    let before = broker.cpu();
    let took = load::consume(&mut consumers, batches * BATCH * groups, || {
        load::publish(&endpoint, 2, batches, &bodies);
    });
    let spent = broker.cpu() - before;
    let memory = broker.memory().anonymous;
    consumers.into_iter().for_each(|consumer| consumer.close());
    let alone = {
        let before = broker.cpu();
        load::publish(&endpoint, 2, batches, &bodies);
        broker.cpu() - before
    };
    let delivered = (batches * BATCH * groups) as f64;
    let cost = (spent.as_secs_f64() - alone.as_secs_f64()) * 1e6 / delivered;
    let rate = delivered / took.as_secs_f64();
    let note = format!("{rate:>9.0} delivered/s, {memory:.0} MiB");
    Step { name: format!("{groups} groups"), cost, note }
}
