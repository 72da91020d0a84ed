//! Certificates that the head looks up for this core: only the request that needs to know waits.

use super::Core;
use super::awaited::Awaited;
use super::message::{HEAD, Message, Ticket};
use crate::auth::{AuthProblem, Peer};
use crate::registry::model::CertificateKey;
use crate::registry::mpass::Verdict;
use std::fmt;

/// Look-ups of this core under way.
#[derive(Default)]
pub struct LookUps(Awaited<Verdict>);

/// Whose a certificate is cannot be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// The client registry does not answer.
    Unreachable,
    /// It answers something that cannot be used.
    Unusable,
}

impl LookUps {
    pub(super) fn answered(&self, ticket: Ticket, verdict: Verdict) {
        // Whoever waited may have gone.
        let _ = self.0.answer(ticket, verdict);
    }
}

impl Core {
    /// Has a certificate looked up that no client of the registry holds, if there is somewhere to look. Afterwards the
    /// registry of this core knows its client, if there is one.
    pub async fn look_up(&self, peer: &Peer) -> Result<(), Unsaid> {
        if self.config.registry.mpass().is_none() {
            return Ok(());
        }
        let Err(AuthProblem::UnknownCertificate(key)) = self.live().client_of(peer) else { return Ok(()) };
        match self.ask_for(key).await {
            Verdict::Known | Verdict::Unknown => Ok(()),
            Verdict::Unreachable => Err(Unsaid::Unreachable),
            Verdict::Unusable => Err(Unsaid::Unusable),
        }
    }

    async fn ask_for(&self, key: CertificateKey) -> Verdict {
        let (ticket, answered) = self.look_ups.0.open();
        self.post(HEAD, Message::LookUp { core: self.id, ticket, key });
        answered.await.expect("the head answers every look-up")
    }
}

impl Unsaid {
    /// When to try again.
    pub fn retry_after_s(self) -> u32 {
        match self {
            Self::Unreachable => 5,
            Self::Unusable => 60,
        }
    }
}

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => {
                "the client registry cannot be reached, and the client is not known from before"
            }
            Self::Unusable => "what the client registry says of this client cannot be used",
        })
    }
}
