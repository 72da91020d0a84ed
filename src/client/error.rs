use super::Answer;
use std::fmt;
use std::io;

/// Why the client could not do what it was asked, by who is to blame.
#[derive(Debug)]
pub enum Error {
    /// Something on this side: a file that cannot be read, a URL that is not one.
    Setup(String),
    /// Nobody answers at the address.
    Unreachable { address: String, cause: io::Error },
    /// The TLS handshake failed, or the other side ended TLS with an alert.
    Tls(rustls::Error),
    /// The connection was there and broke.
    Lost(io::Error),
    /// The other side was silent for too long.
    Timeout,
    /// What came back is not HTTP or not WebSocket.
    Protocol(String),
    /// The broker answered a WebSocket handshake with something other than 101.
    Refused(Box<Answer>),
    /// The broker closed the session with a close frame, or without one (`code` 1005, RFC 6455 section 7.1.5).
    Closed { code: u16, reason: String },
}

impl Error {
    /// Whether the broker understood and said no; the other kinds may go away by themselves or with another set-up.
    pub fn is_rejection(&self) -> bool {
        matches!(self, Self::Refused(_)) || matches!(self, Self::Closed { code, .. } if !restart(*code))
    }

    /// Whether trying again later may help: the network, or a broker that is going away or overloaded.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost(_) | Self::Timeout => true,
            Self::Refused(answer) => answer.is_transient(),
            Self::Closed { code, .. } => restart(*code),
            Self::Setup(_) | Self::Tls(_) | Self::Protocol(_) => false,
        }
    }
}

/// Close codes that invite to come back: going away, service restart, try again later (RFC 6455 section 7.4.1 and
/// the IANA registry of close codes).
fn restart(code: u16) -> bool {
    matches!(code, 1001 | 1012 | 1013)
}

impl From<io::Error> for Error {
    /// `rustls` reports alerts and bad records through `io::Error`; an expired socket timeout is `WouldBlock`.
    fn from(error: io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::Tls(tls.clone());
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Lost(error),
        }
    }
}

impl From<tungstenite::Error> for Error {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::error::ProtocolError;
        match error {
            tungstenite::Error::Io(error) => error.into(),
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Lost(io::ErrorKind::UnexpectedEof.into())
            }
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed { code: 1005, reason: String::new() }
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(what) => f.write_str(what),
            Self::Unreachable { address, cause } => write!(f, "cannot connect to {address}: {cause}"),
            Self::Tls(cause) => write!(f, "TLS failed: {cause}"),
            Self::Lost(cause) => write!(f, "the connection to the broker broke: {cause}"),
            Self::Timeout => f.write_str("the broker did not answer in time"),
            Self::Protocol(what) => write!(f, "unexpected answer: {what}"),
            Self::Refused(answer) => write!(f, "the broker answered {answer}"),
            Self::Closed { code, reason } if reason.is_empty() => {
                write!(f, "the broker closed the session ({code})")
            }
            Self::Closed { code, reason } => write!(f, "the broker closed the session ({code}): {reason}"),
        }
    }
}

impl std::error::Error for Error {}
