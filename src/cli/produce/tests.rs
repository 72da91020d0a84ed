use super::*;
use crate::client::double::{Double, read_request};
use clap::Parser;
use std::io::Write;
use std::sync::mpsc;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    produce: Produce,
}

type Requests = mpsc::Receiver<(String, String)>;

/// A broker that answers the nth request with the nth answer, the last one for ever; an empty answer is none at all:
/// the connection ends.
fn broker(answers: &'static [&'static str]) -> (Double, Requests) {
    let (seen, requests) = mpsc::channel();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let double = Double::start(move |_, mut peer| {
        loop {
            let (head, body) = read_request(&mut peer);
            if head.is_empty() {
                return;
            }
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let _ = seen.send((path, String::from_utf8(body).unwrap()));
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed).min(answers.len() - 1);
            if answers[n].is_empty() {
                return;
            }
            peer.write_all(answers[n].as_bytes()).unwrap();
        }
    });
    (double, requests)
}

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\nid missing";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";

/// Runs the command on `input` and returns its result, the count and the requests that the broker got.
fn run(
    double: &Double,
    requests: &Requests,
    input: &str,
    args: &[&str],
) -> (Outcome, Tally, String, Vec<(String, String)>) {
    let file = double.dir.path().join("input");
    std::fs::write(&file, input).unwrap();
    let dir = double.dir.path().to_str().unwrap();
    let fixed = ["produce", "--url", &double.url, "--dir", dir, file.to_str().unwrap()];
    let produce = Command::try_parse_from(fixed.iter().chain(args)).unwrap().produce;
    let (result, tally) = produce.send_input(Stop::default());
    let outcome = outcome(&result, &tally);
    let message = result.err().map(|failure| failure.to_string()).unwrap_or_default();
    (outcome, tally, message, requests.try_iter().collect())
}

#[test]
fn lines_are_sent_one_by_one_as_they_are() {
    let (double, requests) = broker(&[ACCEPTED]);
    let (outcome, tally, _, requests) = run(&double, &requests, "{\"id\": \"1\"}\n\n {\"id\":\"2\"}\n", &[]);
    let sent = |body: &str| ("/ce/produce/event".to_owned(), body.to_owned());
    assert_eq!(requests, [sent("{\"id\": \"1\"}"), sent("{\"id\":\"2\"}")]);
    assert_eq!((outcome, tally.accepted), (Outcome::Done, 2));
}

#[test]
fn batches_are_bounded_by_number_and_bytes() {
    let (double, requests) = broker(&[ACCEPTED]);
    let args = ["--batch", "3", "--request-bytes", "12"];
    let (outcome, _, _, requests) = run(&double, &requests, "{}\n{}\n{}\n{}\n{\"a\":1234}\n{}\n", &args);
    let bodies: Vec<_> = requests.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(bodies, ["[{},{},{}]", "[{}]", "[{\"a\":1234}]", "[{}]"]);
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn the_first_refusal_ends_it_and_names_the_lines() {
    let (double, requests) = broker(&[ACCEPTED, REFUSED]);
    let (outcome, tally, message, requests) = run(&double, &requests, "{}\n{}\n{}\n{}\n{}\n", &["-b", "2"]);
    assert_eq!((outcome, tally.accepted, tally.refused, requests.len()), (Outcome::Partial, 2, 2, 2));
    assert_eq!(message, "lines 3 to 4: the broker answered 400: id missing");
}

#[test]
fn a_run_of_which_nothing_is_accepted_is_rejected() {
    let (double, requests) = broker(&[REFUSED]);
    let (outcome, tally, _, requests) = run(&double, &requests, "{}\n{}\n", &["--keep-going"]);
    assert_eq!((outcome, tally.refused, requests.len()), (Outcome::Rejected, 2, 2));
}

#[test]
fn a_line_that_is_no_event_is_not_sent_and_what_came_before_is() {
    let (double, requests) = broker(&[ACCEPTED]);
    let input = "{}\n{},{}\n{}\n";
    let (outcome, tally, message, sent) = run(&double, &requests, input, &["-b", "9"]);
    assert_eq!((outcome, tally.accepted, sent.len()), (Outcome::Partial, 1, 1));
    assert!(message.starts_with("line 2: not JSON"), "{message}");
    let (outcome, tally, _, sent) = run(&double, &requests, input, &["-b", "9", "--keep-going"]);
    assert_eq!((outcome, tally.accepted, tally.refused, sent.len()), (Outcome::Partial, 2, 1, 2));
}

#[test]
fn an_overloaded_broker_and_a_broken_connection_are_tried_again_when_asked_for() {
    let (double, requests) = broker(&[BUSY, "", ACCEPTED]);
    let (outcome, _, _, requests) = run(&double, &requests, "{}\n", &["--retry", "2"]);
    assert_eq!((outcome, requests.len()), (Outcome::Done, 3));
}

#[test]
fn a_broken_connection_leaves_its_lines_unknown() {
    let (double, requests) = broker(&[ACCEPTED, ""]);
    let (outcome, tally, _, _) = run(&double, &requests, "{}\n{}\n{}\n", &[]);
    assert_eq!((outcome, &tally.unknown), (Outcome::Connection, &Some(2..=2)));
    assert_eq!(
        tally.after_failure(),
        " (1 events accepted before; line 2 may or may not have been accepted)"
    );
}

#[test]
fn payloads_are_dressed_with_different_ids() {
    let (double, requests) = broker(&[ACCEPTED]);
    let args = ["--raw", "--type", "A.B.C.D", "--source", "urn:demo", "--partition-key", "k", "-b", "2"];
    let (outcome, _, _, requests) = run(&double, &requests, "1\n[2]\n", &args);
    let events: Vec<serde_json::Value> = serde_json::from_str(&requests[0].1).unwrap();
    assert_eq!((outcome, events.len()), (Outcome::Done, 2));
    assert_eq!((&events[0]["data"], &events[1]["data"]), (&serde_json::json!(1), &serde_json::json!([2])));
    assert_eq!(events[0]["partitionkey"], "k");
    assert_ne!(events[0]["id"], events[1]["id"]);
}

#[test]
fn the_whole_input_can_be_one_payload() {
    let (double, requests) = broker(&[ACCEPTED]);
    let args = ["--raw", "--whole", "--type", "A", "--source", "s", "--content-type", "text/plain"];
    let (_, _, _, requests) = run(&double, &requests, "a\n\nb\n", &args);
    let event: serde_json::Value = serde_json::from_str(&requests[0].1).unwrap();
    assert_eq!(event["data"], "a\n\nb\n");
}

#[test]
fn a_missing_input_file_is_a_local_error() {
    let (double, _) = broker(&[ACCEPTED]);
    let dir = double.dir.path().to_str().unwrap();
    let args = ["produce", "--url", &double.url, "--dir", dir, "/nonexistent"];
    let (result, tally) = Command::try_parse_from(args).unwrap().produce.send_input(Stop::default());
    assert_eq!(outcome(&result, &tally), Outcome::Local);
    assert!(result.unwrap_err().to_string().starts_with("/nonexistent: "));
}
