//! What operators see: health, metrics, logs, the service manager, the unit.

use crate::harness::{
    Broker, NISTRU, PATIENCE, expect, keyed, next_ids, post_batch, post_event, record, wait_for,
};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

#[test]
fn health_and_readiness_are_answered_on_the_admin_listener() {
    let broker = Broker::start();
    assert_eq!(broker.admin("/healthz").0, 200);
    assert_eq!(broker.admin("/readyz").0, 200);
    assert_eq!(broker.admin("/").0, 404);
}

#[test]
fn metrics_count_what_happened_and_show_how_far_groups_are_behind() {
    let broker = Broker::start();
    let batch: Vec<_> = (0..10).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut consumer = broker.consume("demo", "g");
    next_ids(&mut consumer, 10);
    consumer.confirm(4).unwrap();
    wait_for("the confirm", || (broker.metric("events_confirmed_total") == 4.0).then_some(()));
    assert_eq!(broker.metric("events_produced_total"), 10.0);
    assert_eq!(broker.metric("events_delivered_total"), 10.0);
    assert_eq!(broker.metric("group_lag_events"), 6.0);
    assert_eq!(broker.metric("group_members"), 1.0);
    assert_eq!(broker.metric("partition_end_offset"), 10.0);
    assert!(broker.metric("journal_rounds_total") > 0.0);
    assert!(broker.metric("core_stall_longest_seconds") > 0.0);
    assert!(broker.metric("executor_stall_seconds_count") > 0.0);
}

#[test]
fn logs_are_json_lines_without_payload() {
    let broker = Broker::start();
    expect(&post_event(&mut broker.connect("demo"), &record("secret-id", 424_242)), 202);
    let odd = record("secret-id", 1).replace("\"number\":1", "\"number\":\"secret-data\"");
    expect(&post_event(&mut broker.connect("demo"), &odd), 422);
    let log = broker.log();
    assert!(!log.contains("secret") && !log.contains("424242"), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(line["level"].is_string() && line["message"].is_string() && line["timestamp"].is_string());
    }
}

#[test]
fn the_service_manager_is_told_of_readiness_life_and_the_end() {
    let broker = Broker::prepare(&[]);
    let socket_path = broker.dir().join("notify");
    let socket = UnixDatagram::bind(&socket_path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = Command::new(NISTRU)
        .args(["serve", "--config"])
        .arg(broker.config_file())
        .env("NOTIFY_SOCKET", &socket_path)
        .env("WATCHDOG_USEC", "400000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wait = |wanted: &str| {
        wait_for(wanted, || {
            let mut message = [0; 512];
            let received = socket.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..received]).contains(wanted).then_some(())
        });
    };
    wait("READY=1");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    wait("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_unit_is_clean() {
    let Ok(unit) = std::fs::read_to_string("systemd/nistru.service") else {
        panic!("the unit is in the repository")
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nistru.service");
    std::fs::write(&path, unit.replace("/usr/bin/nistru", NISTRU)).unwrap();
    let output =
        Command::new("systemd-analyze").arg("verify").arg(&path).output().expect("systemd-analyze runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_the_unit: Vec<_> = text.lines().filter(|line| line.contains("nistru.service")).collect();
    assert!(output.status.success() && about_the_unit.is_empty(), "{text}");
}

#[test]
fn a_plain_user_with_little_locked_memory_can_run_the_broker() {
    let broker = Broker::prepare(&[]);
    let config = broker.config_file();
    let as_nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all";
    // SAFETY: geteuid has no preconditions.
    let run_as = if unsafe { libc::geteuid() } == 0 { as_nobody } else { "exec" };
    Command::new("chown").args(["-R", "65534:65534"]).arg(broker.dir()).status().unwrap();
    let binary = broker.dir().join("nistru");
    std::fs::copy(NISTRU, &binary).unwrap();
    let script =
        format!("ulimit -l 8192 && {run_as} {} serve --config {}", binary.display(), config.display());
    let mut child = Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while let Ok(bytes @ 1..) = stderr.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
            let _ = said.send(text.clone());
        }
    });
    let mut last = String::new();
    let serving = std::iter::from_fn(|| heard.recv_timeout(PATIENCE).ok()).any(|text| {
        last = text;
        last.contains("\"serving\"")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(serving, "{last}");
}

/// System calls that the broker makes and that a unit's usual groups leave out.
#[test]
fn the_unit_allows_the_system_calls_that_are_not_in_its_groups() {
    let unit = std::fs::read_to_string("systemd/nistru.service").unwrap();
    let allowed = |call: &str| {
        unit.lines().filter(|line| line.starts_with("SystemCallFilter=")).any(|line| line.contains(call))
    };
    for call in ["io_uring_enter", "mincore", "sched_setaffinity", "sched_setattr", "setpriority"] {
        assert!(allowed(call), "{call}");
    }
}
