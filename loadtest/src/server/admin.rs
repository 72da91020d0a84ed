//! The broker's admin listener, found among what its process listens on.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// State of a socket that listens (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// The address at which process `pid` answers `/healthz` over plain HTTP.
pub fn find(pid: u32) -> Option<SocketAddr> {
    let sockets = sockets(pid)?;
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let ours = table.lines().skip(1).filter_map(listener).filter(|(_, inode)| sockets.contains(inode));
    ours.map(|(address, _)| address)
        .find(|address| get(*address, "/healthz").is_some_and(|text| text.contains("alive")))
}

/// The metrics of the broker whose admin listener is `address`.
pub fn scrape(address: SocketAddr) -> Option<String> {
    get(address, "/metrics")
}

/// The inodes of the sockets that a process has open.
fn sockets(pid: u32) -> Option<Vec<String>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    Some(links.filter_map(inode).collect())
}

/// Address and inode of a line of `/proc/PID/net/tcp` that listens. An address is a number in the machine's byte order.
fn listener(line: &str) -> Option<(SocketAddr, String)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.to_owned();
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let address = if address.is_unspecified() { Ipv4Addr::LOCALHOST } else { address };
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then(|| ((address, port).into(), inode))
}

/// The answer to a request, head and all; `None` when nobody answers it with 200.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_kernels_table_is_read() {
        let line = "   0: 0100007F:24E3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
        assert_eq!(listener(line), Some(("127.0.0.1:9443".parse().unwrap(), "4711".to_owned())));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn the_listener_that_is_alive_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut request = [0; 1024];
                let _ = socket.read(&mut request);
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nalive\n");
            }
        });
        assert_eq!(find(std::process::id()), Some(address));
    }
}
