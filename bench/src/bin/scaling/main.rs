//! What an event costs as there are more groups, types, idle consumers and executors, and how long a large partition takes to open.
//!
//! `cargo build --release && cargo run --release -p nistru-bench --bin scaling [ROUNDS] [CASE]`. The broker is the release build
//! beside this program, in a process of its own, reached over TLS with client certificates; its cost is processor time as the
//! kernel counts it. Of several rounds the cheapest counts: everything else on the machine only makes them dearer. `TMPDIR` says on
//! which disk.

mod delivery;
mod executors;
mod idle;
mod opening;
mod rare;
mod types;

/// One step of a case.
pub struct Step {
    name: String,
    /// In the unit of the case.
    cost: f64,
    /// What else was seen.
    note: String,
}

/// What is looked at as something grows.
struct Case {
    name: &'static str,
    unit: &'static str,
    measure: fn() -> Vec<Step>,
}

const CASES: [Case; 6] = [
    Case { name: "groups", unit: "µs of broker per delivered event", measure: delivery::groups },
    Case { name: "types", unit: "µs of broker per event in and out", measure: types::types },
    Case { name: "rare", unit: "µs per 1,000 events looked at or passed over", measure: rare::rare },
    Case { name: "idle", unit: "µs of broker per published event", measure: idle::idle },
    Case { name: "executors", unit: "µs of broker per event in and out", measure: executors::executors },
    Case { name: "opening", unit: "ms until ready", measure: opening::opening },
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(3, |text| text.parse().expect("ROUNDS is a number"));
    let only = arguments.next().unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&only)) {
        println!("{}: {}", case.name, case.unit);
        let steps = (0..rounds).map(|_| (case.measure)()).reduce(cheapest).unwrap_or_default();
        let first = steps.first().map_or(1.0, |step| step.cost);
        for Step { name, cost, note } in &steps {
            println!("  {name:<28} {cost:>10.2}  {:>6.2} ×  {note}", cost / first);
        }
    }
}

fn cheapest(some: Vec<Step>, others: Vec<Step>) -> Vec<Step> {
    let cheaper = |(a, b): (Step, Step)| if a.cost <= b.cost { a } else { b };
    some.into_iter().zip(others).map(cheaper).collect()
}
