//! The admin listener: health, readiness and metrics over plain HTTP, on loopback unless configured otherwise.

use crate::broker::Core;
use crate::http::h1::{Exchange, Parser, Step};
use crate::http::{Method, Request, Response, Status};
use crate::metrics;
use crate::rt;
use crate::rt::deadline::Deadline;
use crate::rt::socket::{Accepted, Listener, Stream};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

/// A request and its answer may take this long; a kept connection may be idle for as long.
const LIMIT: Duration = Duration::from_secs(30);
/// Connections at a time: scrapers and probes are few, and one that is stuck must not take descriptors from clients.
const CONNECTIONS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Listens on every address, on the head's core.
pub fn start(core: &Rc<Core>, addresses: &[SocketAddr]) -> io::Result<()> {
    let open = Rc::new(Cell::new(0));
    for &address in addresses {
        let listener = Listener::bind(address)?;
        let (core, open) = (core.clone(), open.clone());
        rt::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(accepted) if open.get() >= CONNECTIONS_MAX => drop(accepted.open()),
                    Ok(accepted) => rt::spawn(count(open.clone(), serve(core.clone(), accepted))),
                    Err(_) => rt::sleep(Duration::from_millis(100)).await,
                }
            }
        });
    }
    Ok(())
}

async fn count(open: Rc<Cell<usize>>, serve: impl Future<Output = io::Result<()>>) {
    open.set(open.get() + 1);
    // A scraper that goes away is nobody's concern.
    drop(serve.await);
    open.set(open.get() - 1);
}

async fn serve(core: Rc<Core>, accepted: Accepted) -> io::Result<()> {
    let mut stream = accepted.open();
    let deadline = core.deadlines.watch(stream.as_raw_fd());
    let served = requests(&core, &mut stream, &deadline).await;
    // The deadline must go before its socket is closed.
    drop(deadline);
    served
}

async fn requests(core: &Rc<Core>, stream: &mut Stream, deadline: &Deadline) -> io::Result<()> {
    let mut parser = Parser::new(HEAD_BYTES_MAX);
    let (mut input, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        let mut rest = &input[..];
        let step = parser.advance(&mut rest);
        let used = input.len() - rest.len();
        input.drain(..used);
        let (response, exchange) = match step {
            Ok(Step::NeedMore) => {
                deadline.limit_idle(LIMIT);
                match poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await? {
                    0 => return Ok(()),
                    received => input.extend_from_slice(&buffer[..received]),
                }
                continue;
            }
            Ok(Step::Head) => match parser.drop_body(0) {
                Ok(()) => continue,
                Err(error) => (Response::text(error.status(), error.to_string()), Exchange::refused()),
            },
            Ok(Step::Complete(request, exchange)) => (answer(core, &request).await, exchange),
            Err(error) => (Response::text(error.status(), error.to_string()), Exchange::refused()),
        };
        deadline.limit(LIMIT);
        let mut out = Vec::new();
        exchange.encode(&response, &mut core.date.borrow_mut(), core.now_ms() / 1000, &mut out);
        send(stream, &out).await?;
        if !exchange.keeps_alive(&response) {
            return Ok(());
        }
    }
}

async fn send(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

async fn answer(core: &Rc<Core>, request: &Request) -> Response {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Response::text(Status::METHOD_NOT_ALLOWED, "GET only").with_header("Allow", "GET, HEAD");
    }
    match request.path.as_str() {
        // That this core answers is all there is to say: the watchdog looks at the others.
        "/healthz" => Response::text(Status::OK, "alive\n"),
        "/readyz" => ready(core),
        "/metrics" => scrape(core).await,
        _ => Response::text(Status::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
    }
}

fn ready(core: &Core) -> Response {
    let refusing = core.head().and_then(|head| head.refusing());
    match refusing {
        _ if core.is_stopping() => Response::text(Status::SERVICE_UNAVAILABLE, "stopping\n"),
        Some(refusal) => Response::text(Status::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
        None => Response::text(Status::OK, "ready\n"),
    }
}

async fn scrape(core: &Rc<Core>) -> Response {
    let head = core.head().expect("the admin listener is on the head's core");
    let gathered = head.gather(core).await;
    let shared = core.recording.progress().numbers.list();
    match metrics::expose(gathered.cores, gathered.groups, shared) {
        Ok(text) => Response::new(Status::OK)
            .with_body("application/openmetrics-text; version=1.0.0; charset=utf-8", text.into_bytes()),
        Err(error) => {
            Response::text(Status::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n"))
        }
    }
}
