//! Reports as files, compared and judged.

use crate::fake::{Fake, Fault};
use std::path::Path;
use std::process::Command;

/// Runs at a rate against a fresh broker and writes the report to `file`.
fn report(file: &Path, args: &[&str]) -> i32 {
    let fake = Fake::start(Fault::Nothing);
    let run = crate::command(&fake).arg("--json").arg(file).args(args).output().unwrap();
    run.status.code().unwrap()
}

fn compare(before: &Path, after: &Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"))
        .arg("compare")
        .args([before, after])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn reports_of_two_runs_are_compared_as_text_and_as_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    assert_eq!(report(&file("a.json"), &["--rate", "500"]), 0);
    assert_eq!(report(&file("b.json"), &["--rate", "100"]), 0);
    let page = file("page.html");
    let (code, text) = compare(&file("a.json"), &file("b.json"), &["--html", page.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("load differs") && text.contains("WORSE"), "{text}");
    assert!(std::fs::read_to_string(page).unwrap().contains("<svg"));
    let (code, text) = compare(&file("a.json"), &file("b.json"), &["--tolerance", "100"]);
    assert_eq!(code, 5, "{text}");
    let (code, text) = compare(&file("a.json"), &file("a.json"), &["--tolerance", "0"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn what_is_no_report_is_told_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.json");
    std::fs::write(&file, "{}").unwrap();
    let (code, text) = compare(&file, &file, &[]);
    assert_eq!(code, 1);
    assert!(text.contains("a.json: not a report"), "{text}");
}

#[test]
fn a_missed_target_is_told_by_report_and_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.json");
    assert_eq!(report(&file, &["--target", "lost=0", "--target", "acknowledged_per_s=1e9"]), 4);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let met: Vec<_> = report["targets"].as_array().unwrap().iter().map(|target| &target["met"]).collect();
    assert_eq!(met, [false, true]);
}
