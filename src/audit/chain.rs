//! The hash chain: each line carries a SHA-256 of itself and of everything before it, so a line that was changed, removed or
//! moved shows at the next one.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Hash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// What stands between the members of a line and its link.
const BEFORE: &[u8] = b",\"chain\":\"";
const AFTER: &[u8] = b"\"}";
const DIGITS: usize = 64;

/// A place in the chain: the hash of the line before it and of that line's own place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link([u8; 32]);

impl Link {
    /// The place before the first line of all.
    pub const FIRST: Self = Self([0; 32]);

    /// The place after a line whose members are `members`: the text from its `{` to before `,"chain":`.
    pub fn after(self, members: &[u8]) -> Self {
        let mut hash = sha256().start();
        hash.update(&self.0);
        hash.update(members);
        Self(hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }

    /// Ends the line that starts at `start` of `out` with the link after it, which is returned.
    pub fn seal(self, out: &mut Vec<u8>, start: usize) -> Self {
        let link = self.after(&out[start..]);
        out.extend_from_slice(BEFORE);
        out.extend_from_slice(link.to_string().as_bytes());
        out.extend_from_slice(AFTER);
        out.push(b'\n');
        link
    }

    /// The link after a line without its line feed, if the line carries that link.
    pub fn follow(self, line: &[u8]) -> Option<Self> {
        let (members, link) = split(line)?;
        (self.after(members) == link).then_some(link)
    }

    fn of_hex(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| (byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        let mut bytes = [0; 32];
        if text.len() != DIGITS {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(bytes))
    }
}

/// The members of a line and the link that it carries.
fn split(line: &[u8]) -> Option<(&[u8], Link)> {
    let rest = line.strip_suffix(AFTER)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    Some((rest.strip_suffix(BEFORE)?, Link::of_hex(digits)?))
}

/// SHA-256 of the library that TLS uses, which is there anyway.
fn sha256() -> &'static dyn Hash {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::of_hex(text.as_bytes()).ok_or_else(|| de::Error::custom("expected 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(printf "\0%.0s" {1..32}; printf %s "{\"a\":1") | sha256sum`
    const AFTER_A: &str =
        "{\"a\":1,\"chain\":\"607ca6addc015e6bd181f4700e76996f0a2361ee7a2e4b2dbe5d7dd2f948d448\"}";

    fn lines() -> Vec<u8> {
        let (mut out, mut link) = (Vec::new(), Link::FIRST);
        for members in ["{\"a\":1", "{\"b\":2", "{\"c\":3"] {
            let start = out.len();
            out.extend_from_slice(members.as_bytes());
            link = link.seal(&mut out, start);
        }
        out
    }

    fn is_whole(text: &[u8]) -> bool {
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.into_iter().try_fold(Link::FIRST, Link::follow).is_some()
    }

    #[test]
    fn a_sealed_line_is_json_and_its_link_is_a_plain_sha_256() {
        let first = lines().split(|&byte| byte == b'\n').next().unwrap().to_vec();
        assert_eq!(String::from_utf8(first).unwrap(), AFTER_A);
    }

    #[test]
    fn any_change_removal_or_exchange_shows() {
        let text = lines();
        assert!(is_whole(&text));
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(!is_whole(&changed), "byte {at}");
        }
        let lines: Vec<_> = text.split_inclusive(|&byte| byte == b'\n').collect();
        assert!(!is_whole(&[lines[0], lines[2]].concat()));
        assert!(!is_whole(&[lines[1], lines[2]].concat()));
        assert!(!is_whole(&[lines[1], lines[0], lines[2]].concat()));
    }
}
