//! The addresses of long polling: `/{bridge}/ce/consumers/{group}/instances/{instance}`, and what can be asked there.

use crate::broker::instances::InstanceId;
use crate::http::{Method, Request};
use crate::id::Bridge;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stands for itself in a path (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A new instance.
    Open,
    /// The next event in binary mode.
    ReadRaw,
    /// The next event in structured mode.
    ReadEvent,
    /// The next events as a batch.
    ReadEvents,
    Confirm,
    ReportDead,
    Delete,
}

/// The address of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub group: String,
    pub instance: InstanceId,
}

impl Call {
    /// What a path is for, and the method it takes. Whether there is such an instance is not looked at.
    pub fn of(path: &str) -> Option<(Self, Method)> {
        if path == "/ce/consumers" {
            return Some((Self::Open, Method::Post));
        }
        Some(match parts(path)?.3 {
            None => (Self::Delete, Method::Delete),
            Some("raw") => (Self::ReadRaw, Method::Get),
            Some("event") => (Self::ReadEvent, Method::Get),
            Some("events") => (Self::ReadEvents, Method::Get),
            Some("confirm") => (Self::Confirm, Method::Post),
            Some("dead") => (Self::ReportDead, Method::Post),
            Some(_) => return None,
        })
    }
}

impl Address {
    /// The address that the path of a request names, if it is one of this process.
    pub fn of(path: &str, here: Bridge) -> Option<Self> {
        let (bridge, group, instance, _) = parts(path)?;
        if bridge != here.to_string() {
            return None;
        }
        let group = percent_decode_str(group).decode_utf8().ok()?.into_owned();
        Some(Self { group, instance: instance.parse().ok()? })
    }

    /// The whole address, for the client that sent `request`: it starts with the broker's public one, or else with the host that
    /// the client believes it talks to.
    pub fn location(&self, public_url: Option<&str>, request: &Request, here: Bridge) -> String {
        let host = request.headers.get_str("host").unwrap_or_default();
        let origin = public_url.map_or_else(|| format!("https://{host}"), str::to_owned);
        let group = utf8_percent_encode(&self.group, ENCODED);
        format!("{origin}/{here}/ce/consumers/{group}/instances/{}", self.instance)
    }
}

/// Bridge, group, instance, and what stands behind.
fn parts(path: &str) -> Option<(&str, &str, &str, Option<&str>)> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let bridge = parts.next()?;
    if (parts.next()?, parts.next()?) != ("ce", "consumers") {
        return None;
    }
    let group = parts.next()?;
    if parts.next()? != "instances" {
        return None;
    }
    let (instance, call) = (parts.next()?, parts.next());
    parts.next().is_none().then_some((bridge, group, instance, call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Headers, Version};

    const ID: &str = "0100000000000000000000000000000abc";

    fn request(host: &str) -> Request {
        let mut headers = Headers::new();
        headers.push("Host", host);
        let (path, query, body) = ("/ce/consumers".to_owned(), None, Vec::new());
        Request { method: Method::Post, path, query, headers, body, version: Version::Http11 }
    }

    #[test]
    fn a_location_is_an_address_again_whatever_the_group_is_called() {
        let here = Bridge::of_this_process();
        for group in ["~default", "a/b c", "Ștefan%20", "..", "?&=#", "+"] {
            let address = Address { group: group.into(), instance: ID.parse().unwrap() };
            let location = address.location(None, &request("events.example:8443"), here);
            let path = location.strip_prefix("https://events.example:8443").unwrap();
            assert_eq!(Address::of(path, here), Some(address.clone()), "{path}");
            assert_eq!(Call::of(path), Some((Call::Delete, Method::Delete)));
            let public = address.location(Some("https://public.example"), &request("x"), here);
            assert_eq!(public, format!("https://public.example{path}"));
        }
        let address = Address { group: "~default".into(), instance: ID.parse().unwrap() };
        let location = address.location(None, &request("h"), here);
        assert_eq!(location, format!("https://h/{here}/ce/consumers/~default/instances/{ID}"));
    }

    #[test]
    fn each_call_has_its_path_and_method() {
        let base = format!("/0a1b2c3d/ce/consumers/g/instances/{ID}");
        for (behind, expected) in [
            ("", Some((Call::Delete, Method::Delete))),
            ("/raw", Some((Call::ReadRaw, Method::Get))),
            ("/event", Some((Call::ReadEvent, Method::Get))),
            ("/events", Some((Call::ReadEvents, Method::Get))),
            ("/confirm", Some((Call::Confirm, Method::Post))),
            ("/dead", Some((Call::ReportDead, Method::Post))),
            ("/", None),
            ("/raw/", None),
            ("/Raw", None),
        ] {
            assert_eq!(Call::of(&format!("{base}{behind}")), expected, "{behind}");
        }
        assert_eq!(Call::of("/ce/consumers"), Some((Call::Open, Method::Post)));
        for path in ["/ce/consumers/", "/x/ce/consumers/g", "/x/ce/consumers/g/instances", "/", "*"] {
            assert_eq!(Call::of(path), None, "{path}");
        }
    }

    #[test]
    fn an_address_of_another_process_or_of_nothing_is_none() {
        let here = Bridge::of_this_process();
        let path =
            |bridge: &str, group: &str, id: &str| format!("/{bridge}/ce/consumers/{group}/instances/{id}");
        let own = here.to_string();
        assert!(Address::of(&path(&own, "g", ID), here).is_some());
        let other =
            if own.starts_with('0') { own.replacen('0', "1", 1) } else { own.replacen(&own[..1], "0", 1) };
        for wrong in [path(&other, "g", ID), path(&own, "%ff", ID), path(&own, "g", "abc"), path("", "g", ID)]
        {
            assert_eq!(Address::of(&wrong, here), None, "{wrong}");
        }
    }
}
