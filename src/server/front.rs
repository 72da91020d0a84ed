//! The front of one core: listeners, and what happens to a connection before its first request.

use crate::api;
use crate::auth::Peer;
use crate::broker::message::{HEAD, Message};
use crate::broker::places::Kind;
use crate::broker::{Core, Edge};
use crate::net::connection::Connection;
use crate::net::{http1, http2};
use crate::rt;
use crate::rt::socket::{Accepted, Listener};
use rustls::pki_types::UnixTime;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Pause after an accept that failed, mostly because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The name of HTTP/2 in ALPN; a client that names nothing speaks HTTP/1.1.
const HTTP2: &[u8] = b"h2";

/// Where a core listens.
pub struct Front {
    addresses: Vec<SocketAddr>,
    /// Told once, when the core listens or cannot.
    opened: RefCell<Option<Sender<io::Result<()>>>>,
}

impl Front {
    pub fn new(addresses: Vec<SocketAddr>, opened: Sender<io::Result<()>>) -> Self {
        Self { addresses, opened: RefCell::new(Some(opened)) }
    }

    fn listen(&self, core: &Rc<Core>) -> io::Result<()> {
        for &address in &self.addresses {
            let listener = Listener::bind(address)?;
            rt::spawn(accept(core.clone(), listener));
        }
        Ok(())
    }
}

impl Edge for Front {
    fn serve(&self, core: &Rc<Core>, accepted: Accepted) {
        rt::spawn(serve(core.clone(), accepted));
    }

    fn open(&self, core: &Rc<Core>) {
        let listening = self.listen(core);
        if let Some(opened) = self.opened.take() {
            // The starting thread waits for every core.
            drop(opened.send(listening));
        }
    }
}

/// Accepts connections and sends them to the head, which decides who serves them.
async fn accept(core: Rc<Core>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(accepted) if core.is_stopping() => drop(accepted.open()),
            Ok(accepted) => {
                core.metrics.numbers.connections_accepted.add(1);
                core.post(HEAD, Message::Accepted { accepted, on: core.id });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection from its handshake to its end.
async fn serve(core: Rc<Core>, accepted: Accepted) {
    let address = accepted.peer.ip();
    let open = core.count_connection();
    converse(&core, accepted).await;
    drop(open);
    core.post(HEAD, Message::Gone { address, core: core.id });
}

async fn converse(core: &Rc<Core>, accepted: Accepted) {
    let address = accepted.peer.ip();
    let live = core.live();
    let config = live.tls.config.clone();
    let limit = core.config.server.handshake_timeout;
    let connection = Connection::open(accepted, config, core.buffers.clone(), &core.deadlines, limit).await;
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => {
            core.metrics.numbers.handshakes_failed.add(1);
            tracing::debug!(%address, %error, "a TLS handshake failed");
            return;
        }
    };
    let chain = connection.peer_certificates().to_vec();
    let place = core.place(Kind::Connection);
    let peer = Rc::new(Peer::new(place.number(), address, chain, &live.tls.verifier, UnixTime::now()));
    drop(live);
    let guest = core.guests.welcome(peer.clone(), connection.deadline());
    api::greet(core, &peer).await;
    match connection.protocol() {
        Some(HTTP2) => http2::serve(core.clone(), connection, peer).await,
        _ => http1::serve(core.clone(), connection, peer).await,
    }
    drop(guest);
}
