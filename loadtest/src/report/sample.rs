//! A report for tests, with something in every field.

use super::model::{Broker, Client, FORMAT, Group, Report, Scenario, Server, Stalls};
use super::{Flow, Machine};
use crate::ledger::Verdict;
use crate::measure::Window;
use crate::usage::Usage;

const WINDOW: Window = Window { start_ns: 0, end_ns: 3_000_000_000 };

/// A run of three seconds with 100 events a second, each `latency_ms` late and every hundredth ten times as late.
pub fn report(latency_ms: u64) -> Report {
    let mut acknowledged = flow(latency_ms);
    acknowledged.note_waiting(1, latency_ms * 1_000_000);
    Report {
        format: FORMAT,
        scenario: Scenario {
            name: "sample".to_owned(),
            text: "name = \"sample\"\n".to_owned(),
            summary: "1 producer".to_owned(),
        },
        broker: Broker {
            url: "https://localhost:8443".to_owned(),
            version: Some("0.1.0".to_owned()),
            started: true,
            cores: Some(2),
        },
        machine: Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_mib: 4096,
            kernel: "6.18.0".to_owned(),
            filesystem: Some("ext4".to_owned()),
        },
        started: "2026-11-28T12:00:00Z".to_owned(),
        seconds: WINDOW.seconds(),
        acknowledged,
        requests: 300,
        consumed: Some(flow(latency_ms * 2)),
        sent: 400,
        unsent: 1,
        refused: 2,
        refused_by_status: [(429, 1), (503, 1)].into(),
        refused_per_second: vec![0, 2],
        unanswered: 0,
        groups: vec![Group {
            name: "load".to_owned(),
            verdict: Verdict { received: 398, repeated: 3, ..Verdict::default() },
        }],
        problems: [("refused: 503".to_owned(), 2)].into(),
        client: Client { processes: 1, usage: Usage { cpu_s: 0.25, peak_mib: 20.0 } },
        server: Some(Server {
            pss_idle_mib: Some(20.0),
            pss_peak_mib: Some(64.0),
            cpu_s: Some(0.5),
            cpu_us_per_event: Some(1250.0),
            disk_bytes_per_event_byte: Some(1.75),
            flushes_per_s: Some(90.0),
            stalls: Some(Stalls { over_1_ms: 1, longest_ms: 1.5 }),
        }),
        targets: Vec::new(),
    }
}

fn flow(latency_ms: u64) -> Flow {
    let mut flow = Flow::new();
    for number in 0..300 {
        let intended_ns = number * 10_000_000;
        let latency_ns = latency_ms * 1_000_000 * if number % 100 == 50 { 10 } else { 1 };
        flow.note(WINDOW, 1, 1024, intended_ns, intended_ns + latency_ns);
    }
    flow.finish(WINDOW);
    flow
}
