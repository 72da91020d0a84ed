//! `nistru consume`: events out as JSON lines.

use super::outcome::{EXIT_CODES, Outcome};
use super::progress;
use super::stop::{LOOK_INTERVAL, Stop};
use super::target::Target;
use crate::client::{Consumer, Delivery, Endpoint, Error, Subscription};
use clap::Args;
use indicatif::ProgressBar;
use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

/// Receives events and writes each as one line of JSON, as it was delivered.
///
/// An event is confirmed after its line was written and flushed, never before: what is not written comes again.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXIT_CODES)]
pub struct Consume {
    #[command(flatten)]
    pub target: Target,
    /// The consumer group; each group gets every event once [default: the broker's, ~default]
    #[arg(long, short, value_name = "NAME")]
    pub group: Option<String>,
    /// End after this many events
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End when no event came for so long, in seconds: reads what is there and exits
    #[arg(long, short, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Leave every event unconfirmed. The broker stops sending when its window of unconfirmed events is full
    #[arg(long)]
    pub no_confirm: bool,
    /// Confirm at least after every N events; when nothing more waits, what was written is confirmed at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub confirm_every: u64,
    /// Whether ordinary events come [default: true]
    #[arg(long, value_name = "BOOL")]
    pub events: Option<bool>,
    /// Whether test events come [default: true]
    #[arg(long, value_name = "BOOL")]
    pub test: Option<bool>,
    /// Whether dead events come [default: false]
    #[arg(long, value_name = "BOOL")]
    pub dead: Option<bool>,
    /// Connect again, up to N times in a row, when the connection breaks or the broker restarts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retry: u32,
}

/// Why a session ended without an error of the broker.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Count,
    Idle,
    Stopped,
}

/// What went wrong in a session.
#[derive(Debug)]
enum Failure {
    Output(io::Error),
    Broker(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Consume {
    /// Does it all: signals, standard output, messages on stderr.
    pub fn run(&self) -> Outcome {
        let stop = match Stop::on_signal() {
            Ok(stop) => stop,
            Err(error) => return fail(&format!("cannot handle signals: {error}"), Outcome::Local),
        };
        let endpoint = match self.target.endpoint() {
            Ok(endpoint) => endpoint,
            Err(error) => return fail(&error.to_string(), Outcome::from(&error)),
        };
        let progress = progress::counter(&io::stdout());
        let outcome = self.copy(&endpoint, BufWriter::new(io::stdout().lock()), &stop, &progress);
        progress.finish_and_clear();
        outcome
    }

    /// Copies events to `out` until an end is reached, connecting again as often as `--retry` allows.
    fn copy(&self, endpoint: &Endpoint, out: impl Write, stop: &Stop, progress: &ProgressBar) -> Outcome {
        let mut copier = Copier { options: self, out, stop, progress, written: 0 };
        let mut failures = 0;
        loop {
            let before = copier.written;
            let error = match copier.session(endpoint) {
                Ok(end) => return self.outcome(&end, copier.written),
                Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Outcome::Done;
                }
                Err(Failure::Output(error)) => {
                    return fail(&format!("cannot write: {error}"), Outcome::Local);
                }
                Err(Failure::Broker(error)) => error,
            };
            failures = if copier.written > before { 1 } else { failures + 1 };
            if !error.is_transient() || failures > self.retry || stop.is_wanted() {
                return fail(&error.to_string(), Outcome::from(&error));
            }
            std::thread::sleep(pause(failures));
        }
    }

    fn outcome(&self, end: &End, written: u64) -> Outcome {
        match end {
            End::Idle if self.count.is_some() => {
                fail(&format!("{written} events came, then none before --timeout"), Outcome::Partial)
            }
            End::Count | End::Idle | End::Stopped => Outcome::Done,
        }
    }

    fn subscription(&self) -> Subscription {
        Subscription { events: self.events, test: self.test, dead: self.dead, group: self.group.clone() }
    }
}

/// One run over any number of sessions.
struct Copier<'a, W> {
    options: &'a Consume,
    out: W,
    stop: &'a Stop,
    progress: &'a ProgressBar,
    written: u64,
}

/// What a session has written and not yet confirmed.
#[derive(Default)]
struct Unconfirmed {
    count: u64,
    last: Option<u64>,
}

impl<W: Write> Copier<'_, W> {
    fn session(&mut self, endpoint: &Endpoint) -> Result<End, Failure> {
        let mut consumer = Consumer::open(endpoint, &self.options.subscription())?;
        let end = self.deliver(&mut consumer)?;
        consumer.close();
        Ok(end)
    }

    fn deliver(&mut self, consumer: &mut Consumer) -> Result<End, Failure> {
        let mut unconfirmed = Unconfirmed::default();
        let mut last_event = Instant::now();
        loop {
            let end = self.end(last_event);
            if end.is_some() || unconfirmed.count >= self.options.confirm_every {
                self.settle(consumer, &mut unconfirmed)?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
            let wait = if unconfirmed.count > 0 { Duration::ZERO } else { self.wait(last_event) };
            match consumer.next(wait)? {
                Some(delivery) => {
                    self.write(&delivery, &mut unconfirmed)?;
                    last_event = Instant::now();
                }
                None => self.settle(consumer, &mut unconfirmed)?,
            }
        }
    }

    fn write(&mut self, delivery: &Delivery, unconfirmed: &mut Unconfirmed) -> io::Result<()> {
        self.out.write_all(one_line(delivery.text()).as_bytes())?;
        self.out.write_all(b"\n")?;
        self.written += 1;
        self.progress.set_position(self.written);
        unconfirmed.count += 1;
        unconfirmed.last = delivery.offset().or(unconfirmed.last);
        Ok(())
    }

    /// Flushes, then confirms: an event counts as consumed only when it left this process.
    fn settle(&mut self, consumer: &mut Consumer, unconfirmed: &mut Unconfirmed) -> Result<(), Failure> {
        self.out.flush()?;
        let Unconfirmed { last, .. } = std::mem::take(unconfirmed);
        match last {
            Some(offset) if !self.options.no_confirm => Ok(consumer.confirm(offset)?),
            _ => Ok(()),
        }
    }

    fn end(&self, last_event: Instant) -> Option<End> {
        if self.options.count.is_some_and(|count| self.written >= count) {
            Some(End::Count)
        } else if self.stop.is_wanted() {
            Some(End::Stopped)
        } else if self.options.timeout.is_some_and(|timeout| last_event.elapsed() >= timeout) {
            Some(End::Idle)
        } else {
            None
        }
    }

    /// How long to wait for an event before looking at the other reasons to end.
    fn wait(&self, last_event: Instant) -> Duration {
        let left = self.options.timeout.map(|timeout| timeout.saturating_sub(last_event.elapsed()));
        left.map_or(LOOK_INTERVAL, |left| left.min(LOOK_INTERVAL))
    }
}

/// The event without line breaks. In JSON they stand only between tokens, where a space means the same.
fn one_line(event: &str) -> Cow<'_, str> {
    if event.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        Cow::Owned(event.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(event)
    }
}

/// The pause before the `n`th try in a row, doubling up to ten seconds.
pub(super) fn pause(n: u32) -> Duration {
    Duration::from_millis(100 << n.min(10)).min(Duration::from_secs(10))
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.parse().map_err(|_| "expected a number of seconds, such as 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn fail(message: &str, outcome: Outcome) -> Outcome {
    eprintln!("nistru consume: {message}");
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::double::{Double, Peer};
    use clap::Parser;
    use std::sync::mpsc;
    use tungstenite::handshake::server::{Request, Response};
    use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
    use tungstenite::{Message, WebSocket};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        consume: Consume,
    }

    /// A broker that gives each session to `serve` and passes on what the consumer then says, a close at its end.
    fn broker(
        serve: impl Fn(usize, &mut WebSocket<Peer>) + Send + Sync + 'static,
    ) -> (Double, mpsc::Receiver<Message>) {
        let (seen, messages) = mpsc::channel();
        let double = Double::start(move |number, peer| {
            // The callback's error type is the crate's own.
            #[allow(clippy::result_large_err)]
            let upgrade = |_: &Request, mut response: Response| {
                response.headers_mut().insert("Sec-WebSocket-Protocol", "cloudevents.json".parse().unwrap());
                Ok(response)
            };
            let mut socket = tungstenite::accept_hdr(peer, upgrade).unwrap();
            serve(number, &mut socket);
            while let Ok(message) = socket.read() {
                let _ = seen.send(message);
            }
            let _ = seen.send(Message::Close(None));
        });
        (double, messages)
    }

    fn send_events(socket: &mut WebSocket<Peer>, offsets: std::ops::RangeInclusive<u64>) {
        for offset in offsets {
            socket.send(Message::text(format!("{{\"id\":\"{offset}\",\"offset\":\"{offset}\"}}"))).unwrap();
        }
    }

    fn restart(socket: &mut WebSocket<Peer>) {
        socket.close(Some(CloseFrame { code: CloseCode::Restart, reason: "restarting".into() })).unwrap();
    }

    fn run(double: &Double, out: impl Write, args: &[&str]) -> Outcome {
        let fixed = ["consume", "--url", &double.url, "--dir", double.dir.path().to_str().unwrap()];
        let consume = Command::try_parse_from(fixed.iter().chain(args)).unwrap().consume;
        let endpoint = consume.target.endpoint().unwrap();
        consume.copy(&endpoint, out, &Stop::default(), &ProgressBar::hidden())
    }

    fn confirms(messages: &mpsc::Receiver<Message>) -> Vec<String> {
        let texts = |message: Message| message.is_text().then(|| message.to_string());
        messages.iter().take_while(|message| !message.is_close()).filter_map(texts).collect()
    }

    #[test]
    fn events_become_lines_and_the_last_one_is_confirmed() {
        let (double, messages) = broker(|_, socket| send_events(socket, 1..=3));
        let mut out = Vec::new();
        assert_eq!(run(&double, &mut out, &["--count", "2"]), Outcome::Done);
        let lines = "{\"id\":\"1\",\"offset\":\"1\"}\n{\"id\":\"2\",\"offset\":\"2\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), lines);
        assert_eq!(confirms(&messages).last().unwrap(), "confirm:2");
    }

    #[test]
    fn confirms_come_at_least_as_often_as_asked_for() {
        let (double, messages) = broker(|_, socket| send_events(socket, 1..=4));
        assert_eq!(run(&double, Vec::new(), &["--count", "4", "--confirm-every", "1"]), Outcome::Done);
        assert_eq!(confirms(&messages), ["confirm:1", "confirm:2", "confirm:3", "confirm:4"]);
    }

    #[test]
    fn nothing_is_confirmed_when_nothing_shall_be() {
        let (double, messages) = broker(|_, socket| send_events(socket, 1..=2));
        assert_eq!(run(&double, Vec::new(), &["--count", "2", "--no-confirm"]), Outcome::Done);
        assert_eq!(confirms(&messages), [""; 0]);
    }

    #[test]
    fn a_quiet_broker_ends_it_and_a_count_not_reached_is_told() {
        let (double, _messages) = broker(|_, socket| send_events(socket, 1..=1));
        assert_eq!(run(&double, Vec::new(), &["--timeout", "0.05"]), Outcome::Done);
        assert_eq!(run(&double, Vec::new(), &["--timeout", "0.05", "--count", "2"]), Outcome::Partial);
    }

    /// Takes some lines, then fails at every flush.
    struct Closed(Vec<u8>);

    impl Write for Closed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn what_nobody_reads_is_not_confirmed() {
        let (double, messages) = broker(|_, socket| send_events(socket, 1..=1));
        assert_eq!(run(&double, Closed(Vec::new()), &[]), Outcome::Done);
        assert_eq!(confirms(&messages), [""; 0]);
    }

    #[test]
    fn a_restarting_broker_is_a_lost_connection_or_is_joined_again() {
        let (double, _messages) = broker(|number, socket| match number {
            0 | 1 => restart(socket),
            _ => send_events(socket, 1..=1),
        });
        assert_eq!(run(&double, Vec::new(), &[]), Outcome::Connection);
        assert_eq!(run(&double, Vec::new(), &["--count", "1", "--retry", "1"]), Outcome::Done);
    }

    #[test]
    fn an_event_with_line_breaks_between_its_tokens_is_still_one_line() {
        assert_eq!(one_line("{\"a\":\r\n1}"), "{\"a\":  1}");
        assert!(matches!(one_line("{\"a\":\"\\n\"}"), Cow::Borrowed(_)));
    }

    #[test]
    fn pauses_grow_to_ten_seconds() {
        let lengths: Vec<_> = [1, 2, 3, 40].map(|n| pause(n).as_millis()).into();
        assert_eq!(lengths, [200, 400, 800, 10_000]);
    }
}
