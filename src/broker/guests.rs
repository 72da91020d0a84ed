//! The open connections of this core and who is at the other end of each, to end those whose client may no longer be here.
//!
//! A request is judged when it comes. What this module adds is an end for connections on which nothing comes: a certificate
//! expires or is revoked, a client is removed or disabled, and its idle connections and sessions are gone within seconds.

use super::Core;
use super::sessions::Notice;
use crate::auth::Peer;
use crate::rt;
use crate::rt::deadline::{Deadline, Handle};
use rustls::pki_types::UnixTime;
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Between two looks at all connections.
const INTERVAL: Duration = Duration::from_secs(2);
/// Connections looked at before other tasks of the core get their turn.
const STEP: usize = 256;

/// All connections of a core.
#[derive(Default)]
pub struct Guests {
    open: RefCell<Vec<Weak<Guest>>>,
}

/// A connection, for as long as it is open.
pub struct Guest {
    peer: Rc<Peer>,
    deadline: Handle,
}

impl Guests {
    /// Keeps an eye on a connection until the result is dropped.
    pub fn welcome(&self, peer: Rc<Peer>, deadline: &Deadline) -> Rc<Guest> {
        let guest = Rc::new(Guest { peer, deadline: deadline.handle() });
        self.open.borrow_mut().push(Rc::downgrade(&guest));
        guest
    }

    /// Those that are open now.
    fn present(&self) -> Vec<Rc<Guest>> {
        let mut open = self.open.borrow_mut();
        open.retain(|guest| guest.strong_count() > 0);
        open.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Core {
    /// Looks at all connections again and again, for as long as the process lives.
    pub async fn look_after_guests(self: Rc<Self>) {
        loop {
            rt::sleep(INTERVAL).await;
            if self.look_at_guests().await {
                self.sessions.tell_all(|| Notice::RegistryChanged);
            }
        }
    }

    /// Ends idle connections of clients that may no longer be here, and has busy ones end with their next answer; tells whether sessions must look at their rights.
    async fn look_at_guests(&self) -> bool {
        let mut lost = false;
        for (number, guest) in self.guests.present().into_iter().enumerate() {
            let live = self.live();
            let checked = guest.peer.check_again(&live.tls.verifier, UnixTime::now());
            if guest.peer.was_let_in() {
                let may_stay = live.client_of(&guest.peer).is_ok();
                let known = guest.peer.dismiss(!may_stay);
                if !may_stay {
                    guest.deadline.end_if_idle();
                    lost |= !known;
                }
            }
            drop(live);
            if checked || number % STEP == STEP - 1 {
                rt::breathe().await;
            }
        }
        lost
    }
}
