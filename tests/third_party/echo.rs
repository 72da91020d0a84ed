//! A WebSocket echo server of the broker's own codec, handshake, TLS and sockets, for test suites of the protocol. It is an example
//! of Cargo's, so that no release ever contains it.
//!
//! `websocket-echo DIR` serves on a free port with the certificates of the development directory DIR, says `ready PORT`, and gives
//! back every text and binary message of at most 16 MiB until it is killed. Clients offer the sub-protocol `echo`.

use nistru::auth::ServerTls;
use nistru::dev;
use nistru::http::date::HttpDate;
use nistru::http::h1::{HEAD_BYTES_MAX, Parser, Step};
use nistru::http::{Request, Response};
use nistru::net::connection::Connection;
use nistru::rt::buffers::Buffers;
use nistru::rt::deadline::{self, Deadlines};
use nistru::rt::pulse::{self, Heart};
use nistru::rt::socket::{Accepted, Listener};
use nistru::rt::{self, executor};
use nistru::ws::{Codec, Incoming, Transport, frame, handshake};
use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SUB_PROTOCOL: &str = "echo";
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const HANDSHAKE: Duration = Duration::from_secs(30);
const FAREWELL: Duration = Duration::from_secs(2);

fn main() {
    let dir = std::env::args_os().nth(1).expect("usage: websocket-echo DIR");
    let config = dev::config(Path::new(&dir), Some(0), Some(1)).expect("a development directory");
    let tls = ServerTls::load(&config.tls, &[b"http/1.1"], UnixTime::now())
        .expect("the certificates of the directory");
    let heart = Arc::new(Heart::default());
    pulse::start(vec![heart.clone()], |_| {}).expect("a thread");
    executor::run_here(async move {
        rt::spawn(heart.react(|_| {}));
        serve(tls.config).await.expect("a listener");
    });
}

async fn serve(tls: Arc<ServerConfig>) -> io::Result<()> {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"))?;
    println!("ready {}", listener.local_addr()?.port());
    let (buffers, deadlines) = (Rc::new(Buffers::default()), Rc::new(Deadlines::default()));
    let watched = deadlines.clone();
    rt::spawn(async move {
        loop {
            rt::sleep(deadline::RESOLUTION).await;
            watched.expire(Instant::now());
        }
    });
    loop {
        let accepted = listener.accept().await?;
        let (tls, buffers, deadlines) = (tls.clone(), buffers.clone(), deadlines.clone());
        rt::spawn(async move {
            if let Err(error) = converse(accepted, tls, buffers, &deadlines).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn converse(
    accepted: Accepted,
    tls: Arc<ServerConfig>,
    buffers: Rc<Buffers>,
    deadlines: &Deadlines,
) -> io::Result<()> {
    let mut connection = Connection::open(accepted, tls, buffers, deadlines, HANDSHAKE).await?;
    let mut input = Vec::new();
    shake_hands(&mut connection, &mut input).await?;
    let began = Instant::now();
    let mut codec = Codec::new(MESSAGE_BYTES_MAX, 0).taking_binary();
    while !codec.is_closed() {
        let mut out = Vec::new();
        echo(&mut codec, &input, began.elapsed().as_millis() as u64, &mut out);
        input.clear();
        connection.queue(&out)?;
        connection.flush().await?;
        if !codec.is_closed() && poll_fn(|cx| connection.poll_receive(cx, &mut input)).await? == 0 {
            break;
        }
    }
    connection.close(FAREWELL).await;
    Ok(())
}

/// Reads the opening request and switches protocols. What came behind the request stays in `input`.
async fn shake_hands(connection: &mut Connection, input: &mut Vec<u8>) -> io::Result<()> {
    let mut parser = Parser::new(HEAD_BYTES_MAX);
    loop {
        let mut rest = &input[..];
        let step = parser.advance(&mut rest).map_err(io::Error::other)?;
        let used = input.len() - rest.len();
        input.drain(..used);
        match step {
            Step::Head => parser.drop_body(0).map_err(io::Error::other)?,
            Step::Complete(request, exchange) => {
                let mut out = Vec::new();
                exchange.encode(
                    &answer(&request),
                    &mut HttpDate::default(),
                    UnixTime::now().as_secs(),
                    &mut out,
                );
                connection.queue(&out)?;
                return connection.flush().await;
            }
            Step::NeedMore => {
                if poll_fn(|cx| connection.poll_receive(cx, input)).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

fn answer(request: &Request) -> Response {
    handshake::accept(request, SUB_PROTOCOL)
        .unwrap_or_else(|refusal| Response::text(refusal.status(), refusal.to_string()).closing())
}

/// Writes back every message of `input`, until the codec has said why no more comes.
fn echo(codec: &mut Codec, mut input: &[u8], now_ms: u64, out: &mut Vec<u8>) {
    while let Ok(Some(incoming)) = codec.next(&mut input, now_ms, out) {
        match incoming {
            Incoming::Text(text) => frame::write_text(out, &[text.as_bytes()]),
            Incoming::Binary(bytes) => frame::write_binary(out, &bytes),
            Incoming::Pong | Incoming::Close(_) => {}
        }
    }
}
