//! Why a connection ends: a code and a text (RFC 6455, 7.4).

use std::borrow::Cow;
use std::fmt;

/// Most bytes of a reason: a control frame carries 125, of which the code takes two (RFC 6455, 5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// The work is done.
pub const NORMAL: u16 = 1000;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A kind of message that is not understood, such as a binary one.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// Stands for a close frame without a code; never sent (RFC 6455, 7.1.5).
pub const NO_CODE: u16 = 1005;
/// A text message that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// A message whose meaning breaks a rule, or a client that is no longer allowed in.
pub const POLICY_VIOLATION: u16 = 1008;
/// A message over the limit.
pub const MESSAGE_TOO_BIG: u16 = 1009;
/// A fault of the broker.
pub const INTERNAL_ERROR: u16 = 1011;
/// The broker restarts; connecting again makes sense.
pub const SERVICE_RESTART: u16 = 1012;
/// The broker is overloaded; connecting again later makes sense.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// A code and a reason, fit for a close frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    /// The reason is cut to 123 bytes, between two characters.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = match reason.into() {
            long if long.len() > REASON_BYTES_MAX => Cow::Owned(cut(&long).to_owned()),
            short => short,
        };
        Self { code, reason }
    }

    /// One of the codes of this module, or whatever the peer sent.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// At most 123 bytes.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

impl std::error::Error for Close {}

/// The longest beginning of `text` that fits into a close frame.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ă".repeat(100);
        let close = Close::new(POLICY_VIOLATION, reason);
        assert_eq!(close.reason(), "ă".repeat(61));
    }

    #[test]
    fn a_reason_that_fits_is_kept() {
        let reason = "x".repeat(REASON_BYTES_MAX);
        assert_eq!(Close::new(NORMAL, reason.clone()).reason(), reason);
        assert_eq!(Close::new(NORMAL, "bye").to_string(), "1000 bye");
    }
}
