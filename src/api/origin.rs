//! Which web pages may make a browser send requests.
//!
//! A browser shows its user's certificate whichever page makes it send a request. So that a page of somebody else can neither read
//! a client's events over WebSocket nor do anything in the client's name, only pages of the broker itself may. Programs
//! that are no browsers send no `Origin`.

use crate::http::{Headers, Problem, Status};

/// Fails when the request comes from a page of another origin than that of the broker (RFC 6454, 7).
pub(super) fn check(headers: &Headers) -> Result<(), Problem> {
    let own = match (headers.get_once("origin"), headers.get("host")) {
        (Ok(None), _) => return Ok(()),
        (Ok(Some(origin)), Some(host)) => {
            origin.split_at_checked(SCHEME.len()).is_some_and(|(scheme, authority)| {
                scheme.eq_ignore_ascii_case(SCHEME)
                    && without_port(authority).eq_ignore_ascii_case(without_port(host))
            })
        }
        _ => false,
    };
    match own {
        true => Ok(()),
        false => Err(Problem::new(
            Status::UNAUTHORIZED,
            "the Origin header names a web page of another service, which may not use the client's certificate",
        )),
    }
}

const SCHEME: &[u8] = b"https://";

/// The authority without the port that goes without saying.
fn without_port(authority: &[u8]) -> &[u8] {
    authority.strip_suffix(b":443").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, origins: &[&str]) -> bool {
        let mut headers = Headers::new();
        headers.push("Host", host);
        origins.iter().for_each(|origin| headers.push("Origin", origin));
        check(&headers).is_ok()
    }

    #[test]
    fn programs_and_pages_of_the_broker_pass() {
        assert!(passes("localhost:8443", &[]));
        assert!(passes("localhost:8443", &["https://localhost:8443"]));
        assert!(passes("Events.example", &["https://events.EXAMPLE"]));
        assert!(passes("events.example:443", &["https://events.example"]));
        assert!(passes("[::1]:8443", &["https://[::1]:8443"]));
    }

    #[test]
    fn pages_of_others_do_not() {
        for origin in [
            "https://evil.example",
            "http://localhost:8443",
            "https://localhost",
            "https://localhost:84430",
            "https://localhost:8443.evil.example",
            "null",
            "",
            "https://",
        ] {
            assert!(!passes("localhost:8443", &[origin]), "{origin}");
        }
        assert!(!passes("localhost:8443", &["https://localhost:8443", "https://evil.example"]));
    }
}
