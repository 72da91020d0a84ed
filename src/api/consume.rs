//! A WebSocket consumer: one task that moves notices, the client's messages and events between its transport and its
//! session.

use super::Upgrade;
use crate::auth::Peer;
use crate::broker::message::{Fetch, HEAD, Message};
use crate::broker::sessions::{Membership, Notice};
use crate::broker::{Core, Slice};
use crate::delivery::session::{Effect, Limits, Session};
use crate::partition::TypeFilter;
use crate::rt;
use crate::ws::{Close, Codec, Incoming, Transport, close, frame};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Largest message a client may send. Confirms are short; a reported event is as long as an event.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes of events that are framed and encrypted before the transport is asked to take them.
const SEND_BYTES: usize = 64 << 10;
/// Bytes asked for in one fetch.
const FETCH_BYTES: usize = 64 << 10;
/// Rounds of work before other tasks of the core get their turn.
const ROUNDS_MAX: usize = 16;
/// How long a transport that is being closed may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The state of one consumer.
struct Consumer<T> {
    core: Rc<Core>,
    transport: T,
    peer: Rc<Peer>,
    wanted: Upgrade,
    codec: Codec,
    session: Session<Slice>,
    /// `None` once the session has left its group.
    membership: Option<Membership>,
    types: TypeFilter,
    /// Received and not read yet.
    input: Vec<u8>,
    /// When the client last sent anything, by [`Core::uptime_ms`].
    heard_ms: u64,
    /// When a ping was sent that nothing has answered.
    pinged_ms: Option<u64>,
}

/// Why a round of work ended.
enum Pause {
    /// Others should have their turn.
    Breathe,
    /// The transport is over.
    End,
}

/// Serves the consumer until either side ends. `input` is what came behind the handshake.
pub async fn run(core: Rc<Core>, transport: impl Transport, peer: Rc<Peer>, wanted: Upgrade, input: Vec<u8>) {
    let mut consumer = Consumer::new(core, transport, peer, wanted, input);
    consumer.start();
    while let Pause::Breathe = poll_fn(|cx| consumer.poll(cx)).await {
        rt::breathe().await;
    }
    consumer.end().await;
}

impl<T: Transport> Consumer<T> {
    fn new(core: Rc<Core>, transport: T, peer: Rc<Peer>, wanted: Upgrade, input: Vec<u8>) -> Self {
        let settings = &core.config.delivery;
        let limits = Limits {
            window_events: settings.window_events,
            window_bytes: settings.window_bytes,
            fetch_bytes: FETCH_BYTES,
            grace_ms: settings.revoke_grace.as_millis() as u64,
        };
        let now_ms = core.uptime_ms();
        let codec = Codec::new(MESSAGE_BYTES_MAX, now_ms);
        Self {
            transport,
            peer,
            wanted,
            codec,
            session: Session::new(limits),
            membership: None,
            types: TypeFilter::default(),
            input,
            heard_ms: now_ms,
            pinged_ms: None,
            core,
        }
    }

    fn start(&mut self) {
        self.transport.lift();
        self.membership =
            Some(self.core.join(self.wanted.client, self.wanted.events.then_some(&self.wanted.group)));
        if let Err(close) = self.look_up_rights() {
            self.close(&close);
        }
        if !self.input.is_empty() {
            self.listen();
        }
    }

    /// One turn: as much as can be done now, up to a bound.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        for _ in 0..ROUNDS_MAX {
            let noticed = self.take_notices();
            let Ok(heard) = self.receive(cx) else { return Poll::Ready(Pause::End) };
            self.pass_on_effects();
            let Ok(sent) = self.send(cx) else { return Poll::Ready(Pause::End) };
            if self.codec.is_closed() && !self.transport.has_queued() {
                return Poll::Ready(Pause::End);
            }
            if !(noticed || heard || sent) && self.mailbox_is_empty(cx) {
                self.set_alarm();
                return Poll::Pending;
            }
        }
        Poll::Ready(Pause::Breathe)
    }

    fn mailbox_is_empty(&self, cx: &mut Context<'_>) -> bool {
        self.membership.as_ref().is_none_or(|membership| membership.mailbox.poll(cx).is_pending())
    }

    fn take_notices(&mut self) -> bool {
        let mut any = false;
        while let Some(notice) = self.membership.as_ref().and_then(|membership| membership.mailbox.take()) {
            self.notice(notice);
            any = true;
        }
        any
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Assign { partition, epoch, from } => self.session.assigned(partition, epoch, from),
            Notice::Revoke { partition, epoch } => {
                self.session.revoke(partition, epoch, self.core.uptime_ms())
            }
            Notice::Fetched { fetch, next, events } => self.session.fetched(fetch, next, events),
            Notice::RegistryChanged => match self.look_up_rights() {
                Ok(()) => self.session.reread(),
                Err(close) => self.close(&close),
            },
            Notice::Tick => self.tick(),
            Notice::Dismiss { reason } => self.close(&Close::new(close::POLICY_VIOLATION, reason)),
            Notice::Stop => {
                self.close(&Close::new(close::SERVICE_RESTART, "the broker is stopping; connect again"))
            }
        }
    }

    /// Which types the client may consume now, or why it may no longer be here.
    fn look_up_rights(&mut self) -> Result<(), Close> {
        let refuse = |text: String| Close::new(close::POLICY_VIOLATION, text);
        let live = self.core.live();
        let client = live.client_of(&self.peer).map_err(|problem| refuse(problem.to_string()))?;
        let consumer = client.consumer.as_ref().filter(|_| client.id == self.wanted.client);
        let consumer = consumer.ok_or_else(|| refuse("the client is not registered as a consumer".into()))?;
        self.types = live.registry.type_ids(consumer).into_iter().collect();
        Ok(())
    }

    fn tick(&mut self) {
        let now_ms = self.core.uptime_ms();
        self.session.tick(now_ms);
        if !self.codec.can_send() || now_ms < self.ping_or_give_up_at() {
            return;
        }
        if self.pinged_ms.is_some() {
            tracing::info!(client = %self.wanted.client, "a consumer does not answer pings");
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

    /// Asks for the next tick.
    fn set_alarm(&self) {
        if let Some(membership) = &self.membership {
            let at_ms = self.session.wake_at().unwrap_or(u64::MAX).min(self.ping_or_give_up_at());
            membership.mailbox.tick_at(at_ms);
        }
    }

    /// Reads from the transport once. An error means that it is over.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
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

    /// Reads the messages in `input`.
    fn listen(&mut self) {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        let was_open = self.codec.can_send();
        let core = self.core.clone();
        let mut out = core.scratch.borrow_mut();
        out.clear();
        loop {
            match self.codec.next(&mut rest, core.uptime_ms(), &mut out) {
                Ok(Some(Incoming::Text(text))) => {
                    if let Err(close) = self.obey(&text) {
                        self.codec.close(&close, &mut out);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(close) => {
                    tracing::info!(client = %self.wanted.client, %close, "a consumer broke the protocol");
                    break;
                }
            }
        }
        self.queue(&out);
        if was_open && !self.codec.can_send() {
            self.transport.limit(FAREWELL);
        }
    }

    /// Does what a message says.
    fn obey(&mut self, text: &str) -> Result<(), Close> {
        let refuse = |text: String| Close::new(close::POLICY_VIOLATION, text);
        let Some(offset) = text.strip_prefix("confirm:") else {
            return Err(refuse("unknown message: expected confirm:OFFSET".into()));
        };
        let number = Some(offset).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number.and_then(|digits| digits.parse().ok()) else {
            return Err(refuse("confirm: expected the offset of an event, a whole number".into()));
        };
        let before = self.session.unconfirmed();
        self.session.confirm(number).map_err(|bad| refuse(format!("confirm: {bad}")))?;
        self.core.metrics.numbers.events_confirmed.add((before - self.session.unconfirmed()) as u64);
        Ok(())
    }

    /// Passes on what the session wants of others.
    fn pass_on_effects(&mut self) {
        let Some(session) = self.membership.as_ref().map(|membership| membership.session) else { return };
        while let Some(effect) = self.session.poll() {
            match effect {
                Effect::Confirm(confirms) => self.core.post(HEAD, Message::Confirm { session, confirms }),
                Effect::Revoked { partition, epoch } => {
                    self.core.post(HEAD, Message::Revoked { session, partition, epoch });
                }
                Effect::Cancel { partition, fetch } => self.core.cancel_fetch(session, partition, fetch),
                Effect::Fetch { partition, fetch, from, bytes_max } => {
                    let types = self.types.clone();
                    self.core.fetch(Fetch { session, fetch, partition, from, bytes_max, types });
                }
            }
        }
    }

    /// Sends what is queued, then as many events as it takes at once. An error means that the transport is over.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Poll::Ready(()) = self.transport.poll_flush(cx)? else { return Ok(false) };
        if !self.codec.can_send() {
            return Ok(false);
        }
        let core = self.core.clone();
        let mut out = core.scratch.borrow_mut();
        out.clear();
        let mut events = 0;
        while out.len() < SEND_BYTES
            && let Some((offset, event)) = self.session.next_event()
        {
            frame::write_event(&mut out, &event, offset);
            events += 1;
        }
        if events == 0 {
            return Ok(false);
        }
        core.metrics.numbers.events_delivered.add(events);
        core.metrics.numbers.bytes_delivered.add(out.len() as u64);
        self.transport.queue(&out)?;
        Ok(true)
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
        if let Some(membership) = &self.membership {
            for (partition, fetch) in self.session.outstanding() {
                self.core.cancel_fetch(membership.session, partition, fetch);
            }
        }
        // The group gets the partitions at once; the farewell can take its time.
        self.membership = None;
        self.transport.close(FAREWELL).await;
    }
}
