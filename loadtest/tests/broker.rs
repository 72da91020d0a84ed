//! The load generator against the real broker, which it starts itself.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The broker's program: beside the load generator's, built if nobody has done so.
fn broker() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_nistru-loadtest")).with_file_name("nistru");
    if !program.exists() {
        let target = program.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "--package", "nistru", "--bin", "nistru", "--target-dir"])
            .arg(target);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the broker cannot be built");
    }
    program
}

#[test]
fn every_event_arrives_once_at_each_group_that_reads_its_type_while_connections_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/example.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"))
        .arg("run")
        .arg(scenario)
        .arg("--spawn")
        .arg(broker())
        .arg("--work-dir")
        .arg(dir.path())
        .args(["--json", "-", "--warm-up", "0.2", "--duration", "2", "--rate", "500"])
        .args(["--target", "acknowledged_per_s=1", "--target", "end_to_end_p99_ms=60000"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).expect(&errors);
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{errors}");
    let received = |name: &str| {
        let groups = report["groups"].as_array().unwrap();
        groups.iter().find(|group| group["name"] == name).unwrap()["received"].as_u64().unwrap()
    };
    let sent = report["sent"].as_u64().unwrap();
    assert_eq!((received("all"), received("all-1"), received("idle")), (sent, sent, 0));
    assert!(received("few") < sent / 10, "{report:#}");
    // All packages have the same version.
    assert_eq!(report["broker"]["version"], env!("CARGO_PKG_VERSION"));
    let server = &report["server"];
    for fact in ["pss_idle_mib", "pss_peak_mib", "cpu_us_per_event", "flushes_per_s"] {
        assert!(server[fact].as_f64().is_some_and(|value| value > 0.0), "{fact}: {server}");
    }
    assert!(server["stalls"]["over_1_ms"].is_u64(), "{server}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the broker's directory is still there");
}
