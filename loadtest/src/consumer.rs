//! One consumer: receives, notes, confirms.

use crate::group::Group;
use crate::report::Flow;
use crate::run::Run;
use crate::scenario::Confirm;
use crate::stamp::{self, Stamp};
use crate::wire::{Buffers, Connection, Message, Session, write_close, write_confirm, write_pong};
use nistru::client::Error;
use rustix::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

/// Digits of the largest offset.
const OFFSET_DIGITS: usize = 20;

/// A session at work.
pub struct Consumer<'a> {
    pub group: &'a Group,
    connection: Connection,
    session: Session,
    state: State,
}

/// What the messages of a session change.
#[derive(Default)]
struct State {
    unconfirmed: usize,
    /// Digits of the last event's offset.
    offset: [u8; OFFSET_DIGITS],
    offset_digits: usize,
    /// Frames to send.
    out: Vec<u8>,
}

impl<'a> Consumer<'a> {
    pub fn new(group: &'a Group, connection: Connection, session: Session) -> Self {
        Self { group, connection, session, state: State::default() }
    }

    /// Takes what has come, notes it and confirms it. To be called once at the start: events may have come with the answer
    /// to the handshake.
    pub fn receive(&mut self, run: &Run, flow: &mut Flow, buffers: &mut Buffers) -> Result<(), Error> {
        let group = self.group;
        let Self { connection, session, state, .. } = self;
        session.take(&[], |message| state.take(message, group, run, flow, run.clock.now_ns()))?;
        loop {
            // One look at the clock for all that one read brings: it came together.
            let mut now_ns = None;
            let is_more = connection.receive(buffers, |bytes| {
                let now_ns = *now_ns.get_or_insert_with(|| run.clock.now_ns());
                session.take(bytes, |message| state.take(message, group, run, flow, now_ns))
            })?;
            if !is_more {
                break;
            }
        }
        if group.confirm == Confirm::Burst {
            state.confirm();
        }
        self.send(buffers)
    }

    fn send(&mut self, buffers: &mut Buffers) -> Result<(), Error> {
        if self.state.out.is_empty() {
            return Ok(());
        }
        self.connection.send(&self.state.out, buffers)?;
        self.state.out.clear();
        Ok(())
    }

    /// Goes on sending what the socket did not take.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.connection.flush()
    }

    /// Whether bytes wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Goes on over another session; what was not confirmed on the old one comes again.
    pub fn reconnect(&mut self, connection: Connection, session: Session, buffers: &mut Buffers) {
        self.close(buffers);
        *self = Self::new(self.group, connection, session);
    }

    /// Confirms the rest and says that the session ends. The connection ends when this is dropped.
    pub fn close(&mut self, buffers: &mut Buffers) {
        self.state.confirm();
        write_close(&mut self.state.out);
        // It is over either way.
        let _ = self.send(buffers);
    }
}

impl State {
    fn take(
        &mut self,
        message: Message<'_>,
        group: &Group,
        run: &Run,
        flow: &mut Flow,
        now_ns: u64,
    ) -> Result<(), Error> {
        match message {
            Message::Text(event) => self.note(event, group, run, flow, now_ns),
            Message::Ping(payload) => {
                write_pong(&mut self.out, payload);
                Ok(())
            }
            Message::Close { code, reason } => {
                let reason = String::from_utf8_lossy(reason).into_owned();
                Err(Error::Closed { code, reason })
            }
        }
    }

    fn note(
        &mut self,
        event: &[u8],
        group: &Group,
        run: &Run,
        flow: &mut Flow,
        now_ns: u64,
    ) -> Result<(), Error> {
        let offset = stamp::offset(event)
            .ok_or_else(|| Error::Protocol("an event that does not end with its offset".to_owned()))?;
        self.offset[..offset.len()].copy_from_slice(offset);
        self.offset_digits = offset.len();
        self.unconfirmed += 1;
        match Stamp::find(&run.mark, event) {
            None => {
                group.foreign.fetch_add(1, Ordering::Relaxed);
            }
            Some(stamp) => {
                if group.ledger.arrived(stamp.producer, stamp.sequence, &run.sent) {
                    flow.note(run.window(), 1, event.len() as u64, stamp.intended_ns, now_ns);
                }
            }
        }
        if self.unconfirmed >= group.confirm_every {
            self.confirm();
        }
        Ok(())
    }

    fn confirm(&mut self) {
        if self.unconfirmed > 0 {
            write_confirm(&mut self.out, &self.offset[..self.offset_digits]);
            self.unconfirmed = 0;
        }
    }
}

impl AsFd for Consumer<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
