//! Latencies of brokers that fall behind a rate: what waits in the end counts as late as it is.

use crate::fake::Fault;
use crate::run;
use serde_json::Value;

/// So many events are to be sent in the window of half a second, after a twentieth of a second of warming up.
const RATE: [&str; 2] = ["--rate", "1000"];
const IN_WINDOW: u64 = 500;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// Every event that was to be sent in the window has one latency at each of `groups`, whatever became of it.
fn assert_complete(report: &Value, groups: u64) {
    assert_eq!(number(&report["acknowledged"]["samples"]), IN_WINDOW, "{report}");
    assert_eq!(number(&report["consumed"]["samples"]), IN_WINDOW * groups, "{report}");
}

#[test]
fn a_broker_that_does_not_answer_is_as_late_as_what_waits_for_it() {
    let (_, report) = run(Fault::Stall, &[&RATE[..], &["--groups", "2"]].concat());
    assert_complete(&report, 2);
    for flow in ["acknowledged", "consumed"] {
        let flow = &report[flow];
        // Those that waited since the start of the window waited for all of it, and the others less, evenly.
        assert!(flow["p99_ms"].as_f64().unwrap() > 490.0, "{flow}");
        assert!(flow["p50_ms"].as_f64().unwrap() > 245.0, "{flow}");
    }
    // Each producer sent what was due first, and at most one request more after the answer to that.
    let sent = number(&report["sent"]);
    assert!(sent <= 8 && sent + number(&report["unsent"]) == 550, "{report}");
    assert!(number(&report["acknowledged"]["lower_bounds"]) + sent >= IN_WINDOW, "{report}");
}

#[test]
fn what_was_sent_over_a_connection_that_broke_waits_to_the_end() {
    for processes in ["1", "2"] {
        let (code, report) = run(Fault::HangUp, &[&RATE[..], &["--processes", processes]].concat());
        assert_eq!(code, 3, "{report}");
        assert_complete(&report, 1);
        let (unanswered, waiting) = (&report["unanswered"], &report["acknowledged"]["lower_bounds"]);
        assert!(number(unanswered) > 0 && number(waiting) >= number(unanswered), "{report}");
        // What the broker forgot reaches nobody either.
        assert_eq!(waiting, &report["consumed"]["lower_bounds"], "{report}");
    }
}

#[test]
fn without_a_rate_nothing_is_due_and_nothing_late() {
    let (code, report) = run(Fault::HangUp, &[]);
    assert!(code == 3 && number(&report["unanswered"]) > 0, "{report}");
    for flow in ["acknowledged", "consumed"] {
        assert_eq!(number(&report[flow]["lower_bounds"]), 0);
    }
}
