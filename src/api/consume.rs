//! A WebSocket consumer: one task that moves the client's messages and events between its transport and its feed.

use super::feed::{Feed, News};
use super::subscription::Subscription;
use super::upgrade::Upgrade;
use crate::auth::Peer;
use crate::broker::Core;
use crate::broker::places::Place;
use crate::broker::refusal::Refusal;
use crate::ingress::report::Report;
use crate::partition::RECENT_BYTES;
use crate::rt;
use crate::rt::deadline::DETENTION;
use crate::ws::{Close, Codec, Incoming, Transport, close, frame};
use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Largest message a client may send, unless events may be larger. Confirms are short; a reported event is about as long as an event.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes of events that are framed and encrypted before the transport is asked to take them and other tasks of the core get their turn.
const SEND_BYTES: usize = 64 << 10;
/// The same for old events, which are no longer kept in memory. A new event passes through some eight tasks, each of which waits for that of
/// a consumer that catches up: beside one that was given 64 KiB a turn it took 2.6 times as long as without (p99), and 1.8 times with this.
const SEND_OLD_BYTES: usize = 32 << 10;
/// Rounds of other work before other tasks of the core get their turn.
const ROUNDS_MAX: usize = 4;
/// How long a transport that is being closed may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The state of one consumer.
struct Consumer<T> {
    core: Rc<Core>,
    transport: T,
    subscription: Subscription,
    /// `None` once the consumer has left.
    place: Option<Place>,
    codec: Codec,
    /// `None` when the client may not consume after all.
    feed: Option<Feed>,
    /// Received and not read yet.
    input: Vec<u8>,
    /// When the client last sent anything, by [`Core::uptime_ms`].
    heard_ms: u64,
    /// When a ping was sent that nothing has answered.
    pinged_ms: Option<u64>,
    /// The client broke the protocol.
    detained: bool,
}

/// Why a round of work ended.
enum Pause {
    /// Others should have their turn.
    Breathe,
    /// The transport is over.
    End,
}

/// What came of sending.
#[derive(PartialEq, Eq)]
enum Sent {
    Nothing,
    /// As much as there was.
    Some,
    /// As much as is sent in one turn.
    Turn,
}

/// Serves the consumer until either side ends. `input` is what came behind the handshake.
pub async fn run(
    core: Rc<Core>,
    transport: impl Transport,
    peer: Rc<Peer>,
    upgrade: Upgrade,
    input: Vec<u8>,
) {
    let mut consumer = Consumer::new(core, transport, upgrade, input);
    consumer.start(peer);
    while let Pause::Breathe = poll_fn(|cx| consumer.poll(cx)).await {
        rt::breathe().await;
    }
    consumer.end().await;
}

impl<T: Transport> Consumer<T> {
    fn new(core: Rc<Core>, transport: T, upgrade: Upgrade, input: Vec<u8>) -> Self {
        let Upgrade { subscription, place } = upgrade;
        let heard_ms = core.uptime_ms();
        let codec = Codec::new(message_bytes_max(&core), heard_ms);
        Self {
            transport,
            subscription,
            place: Some(place),
            codec,
            feed: None,
            input,
            heard_ms,
            pinged_ms: None,
            detained: false,
            core,
        }
    }

    fn start(&mut self, peer: Rc<Peer>) {
        self.transport.lift();
        match Feed::open(&self.core, peer, &self.subscription) {
            Ok(feed) => self.feed = Some(feed),
            Err(reason) => self.close(&Close::new(close::POLICY_VIOLATION, reason)),
        }
        if !self.input.is_empty() {
            self.listen();
        }
    }

    /// One turn: as much as can be done now, up to a bound.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        for _ in 0..ROUNDS_MAX {
            let noticed = self.take_news();
            let Ok(heard) = self.receive(cx) else { return Poll::Ready(Pause::End) };
            if let Some(feed) = &mut self.feed {
                feed.keep_in_memory([]);
                feed.pass_on_effects();
            }
            let Ok(sent) = self.send(cx) else { return Poll::Ready(Pause::End) };
            if self.codec.is_closed() && !self.transport.has_queued() {
                return Poll::Ready(Pause::End);
            }
            if sent == Sent::Turn {
                break;
            }
            if !(noticed || heard || sent == Sent::Some || self.has_news(cx)) {
                self.feed.iter().for_each(|feed| feed.wake_at(self.ping_or_give_up_at()));
                return Poll::Pending;
            }
        }
        Poll::Ready(Pause::Breathe)
    }

    fn has_news(&self, cx: &mut Context<'_>) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.poll_news(cx).is_ready())
    }

    fn take_news(&mut self) -> bool {
        let mut any = false;
        while let Some(news) = self.feed.as_mut().and_then(Feed::take_news) {
            self.heed(news);
            any = true;
        }
        any
    }

    fn heed(&mut self, news: News) {
        match news {
            News::Progress | News::Revoked => {}
            News::Tick => self.tick(),
            News::Ended(reason) => self.close(&Close::new(close::POLICY_VIOLATION, reason)),
            News::Stopping => self.close(&stopping()),
            // What the client said behind its report waits to be read.
            News::Reported(_) => self.listen(),
            News::NotReported(refusal) => self.close(&not_reported(refusal)),
        }
    }

    fn tick(&mut self) {
        let now_ms = self.core.uptime_ms();
        if !self.codec.can_send() || now_ms < self.ping_or_give_up_at() {
            return;
        }
        if self.pinged_ms.is_some() {
            tracing::info!(client = %self.subscription.client, "a consumer does not answer pings");
            self.close(&Close::new(close::POLICY_VIOLATION, "no answer to a ping"));
        } else {
            self.pinged_ms = Some(now_ms);
            self.write(|out| frame::write_ping(out, b""));
        }
    }

    /// When the client has been silent for too long, or has left a ping unanswered for too long.
    fn ping_or_give_up_at(&self) -> u64 {
        let settings = &self.core.config.delivery;
        match self.pinged_ms {
            Some(at) => at + settings.pong_timeout.as_millis() as u64,
            None => self.heard_ms + settings.ping_interval.as_millis() as u64,
        }
    }

    /// Reads from the transport once, unless a report is under way. An error means that the transport is over.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.is_reporting() {
            return Ok(false);
        }
        match self.transport.poll_receive(cx, &mut self.input) {
            Poll::Pending => Ok(false),
            Poll::Ready(received) => {
                if received? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.heard_ms = self.core.uptime_ms();
                self.pinged_ms = None;
                self.listen();
                Ok(true)
            }
        }
    }

    fn is_reporting(&self) -> bool {
        self.feed.as_ref().is_some_and(Feed::is_reporting)
    }

    /// Reads the messages in `input`, up to a report: what follows it must not count before the report is durable.
    fn listen(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        let was_open = self.codec.can_send();
        let core = self.core.clone();
        let mut out = core.scratch.borrow_mut();
        out.clear();
        while !self.is_reporting() {
            match self.codec.next(&mut rest, core.uptime_ms(), &mut out) {
                Ok(Some(Incoming::Text(text))) => {
                    if let Err(close) = self.obey(&text) {
                        self.codec.close(&close, &mut out);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(close) => {
                    tracing::info!(client = %self.subscription.client, %close, "a consumer broke the protocol");
                    self.detained = true;
                    break;
                }
            }
        }
        let read = input.len() - rest.len();
        input.drain(..read);
        if !input.is_empty() {
            self.input = input;
        }
        self.queue(&out);
        if was_open && !self.codec.can_send() {
            self.transport.limit(FAREWELL);
        }
    }

    /// Does what a message says. What comes after a goodbye changes nothing.
    fn obey(&mut self, text: &str) -> Result<(), Close> {
        let Some(feed) = self.feed.as_mut().filter(|_| self.codec.can_send()) else { return Ok(()) };
        if let Some(offset) = text.strip_prefix("confirm:") {
            return confirm(feed, offset);
        }
        if let Some(event) = text.strip_prefix("dead:") {
            return report(&self.core, &self.subscription, feed, event);
        }
        Err(refuse("unknown message: expected confirm:OFFSET or dead:EVENT"))
    }

    /// Sends what is queued, then as many events as it takes at once. An error means that the transport is over.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<Sent> {
        let Poll::Ready(()) = self.transport.poll_flush(cx)? else { return Ok(Sent::Nothing) };
        let Some(feed) = self.feed.as_mut().filter(|_| self.codec.can_send()) else {
            return Ok(Sent::Nothing);
        };
        let core = self.core.clone();
        let mut out = core.scratch.borrow_mut();
        out.clear();
        let (mut events, mut bytes_max) = (0, SEND_BYTES);
        while out.len() < bytes_max
            && let Some((offset, event)) = feed.next_event()
        {
            if event.bytes_behind() >= RECENT_BYTES {
                bytes_max = SEND_OLD_BYTES;
            }
            frame::write_event(&mut out, &event, offset);
            events += 1;
        }
        if events == 0 {
            return Ok(Sent::Nothing);
        }
        feed.sent(events, out.len() as u64);
        self.transport.queue(&out)?;
        Ok(if out.len() < bytes_max { Sent::Some } else { Sent::Turn })
    }

    /// Says goodbye, once; the client has a moment to answer.
    fn close(&mut self, close: &Close) {
        if !self.codec.can_send() {
            return;
        }
        let mut bye = Vec::new();
        self.codec.close(close, &mut bye);
        self.queue(&bye);
        self.transport.limit(FAREWELL);
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.queue(&bytes);
    }

    /// Queues frames for the client. A transport that takes no more has failed, which the next poll finds out.
    fn queue(&mut self, frames: &[u8]) {
        if !frames.is_empty() {
            drop(self.transport.queue(frames));
        }
    }

    async fn end(mut self) {
        // The group gets the partitions at once; the farewell can take its time.
        (self.feed, self.place) = (None, None);
        if self.detained {
            rt::sleep(DETENTION).await;
        }
        self.transport.close(FAREWELL).await;
    }
}

/// Twice the largest event, since a consumer may have written a reported one anew.
fn message_bytes_max(core: &Core) -> usize {
    let live = core.live();
    let largest = core.config.server.event_bytes_max.max(live.registry.event_bytes_max.unwrap_or(0));
    largest.saturating_mul(2).max(MESSAGE_BYTES_MAX)
}

fn confirm(feed: &mut Feed, offset: &str) -> Result<(), Close> {
    let number = Some(offset).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(number) = number.and_then(|digits| digits.parse().ok()) else {
        return Err(refuse("confirm: expected the offset of an event, a whole number"));
    };
    feed.confirm(number).map_err(|bad| refuse(format!("confirm: {bad}")))
}

fn report(core: &Core, of: &Subscription, feed: &mut Feed, event: &str) -> Result<(), Close> {
    let report = Report::of_text(event, of.client, uuid::Uuid::new_v4(), core.now_ms());
    let (bytes, bytes_max) = (report.event.delivered_bytes(), core.config.storage.event_bytes_bound());
    if bytes as u64 > bytes_max {
        let text = format!("dead: the event takes {bytes} bytes as stored, the limit is {bytes_max}");
        return Err(Close::new(close::MESSAGE_TOO_BIG, text));
    }
    feed.report(report);
    Ok(())
}

fn refuse(text: impl Into<Cow<'static, str>>) -> Close {
    Close::new(close::POLICY_VIOLATION, text)
}

fn stopping() -> Close {
    Close::new(close::SERVICE_RESTART, "the broker is stopping; connect again")
}

/// The client hears that its report was not taken; what it reported was not confirmed and comes again.
fn not_reported(refusal: Refusal) -> Close {
    match refusal {
        Refusal::Stopping => stopping(),
        other => Close::new(close::TRY_AGAIN_LATER, other.to_string()),
    }
}
