//! A bound on the bytes of requests that one core holds at the same time.
//!
//! Every request takes its bytes before its body is read and gives them back when it is answered. When they are used up the
//! next request waits, its socket is not read, and TCP slows the client down. One client can use up no more than its share, so
//! that bodies which it announces and does not send keep no other client waiting. Nor do they keep its own single events: a part
//! of the bytes is for small requests alone.

use crate::id::ClientId;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// The part of a budget that one client may use up.
const SHARE: usize = 2;
/// Requests of no more bytes than this are small: most single events.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// The part of all bytes that is for small requests.
const SMALL_PART: usize = 4;

/// Requests that may wait although a part of their bodies has come already. They do so over HTTP/2, where one connection
/// carries those that wait and those that do not; each has up to the window of its stream, 64 KiB, in memory.
const PLACES_MAX: usize = 512;

/// The budgets of a core.
pub struct Shares {
    small: Shared,
    large: Shared,
}

/// A budget, and within it one for each client that has asked.
struct Shared {
    whole: Rc<Budget>,
    by_client: RefCell<HashMap<ClientId, Rc<Budget>, ahash::RandomState>>,
}

/// Bytes taken from the whole budget and from a client's share, given back when dropped.
pub struct SharedPermit {
    _own: Option<Permit>,
    _whole: Permit,
}

/// The bytes that are left.
pub struct Budget {
    places: Cell<usize>,
    left: Cell<usize>,
    total: usize,
    waiting: RefCell<VecDeque<Waiting>>,
}

struct Waiting {
    bytes: usize,
    granted: futures_channel::oneshot::Sender<Permit>,
}

/// A place for a request that waits, given back when dropped.
pub struct Place(Rc<Budget>);

/// Bytes taken from a budget, given back when dropped.
pub struct Permit {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Shares {
    pub fn new(total: usize) -> Self {
        let small = total / SMALL_PART;
        Self { small: Shared::new(small), large: Shared::new(total - small) }
    }

    /// Takes `bytes` for a request of `client`, if it is known, waiting in line until they are there.
    pub async fn take(&self, client: Option<ClientId>, bytes: usize) -> SharedPermit {
        let shared = if bytes <= SMALL_BYTES_MAX { &self.small } else { &self.large };
        shared.take(client, bytes).await
    }

    /// A place to wait at while a part of the body has come already; `None` when all are taken.
    pub fn place(&self) -> Option<Place> {
        self.large.whole.place()
    }
}

impl Shared {
    fn new(total: usize) -> Self {
        Self { whole: Budget::new(total), by_client: RefCell::default() }
    }

    async fn take(&self, client: Option<ClientId>, bytes: usize) -> SharedPermit {
        let own = match client.map(|client| self.of(client)) {
            Some(share) => Some(share.take(bytes).await),
            None => None,
        };
        SharedPermit { _own: own, _whole: self.whole.take(bytes).await }
    }

    /// The share of a client. There are no more than the registry has had clients.
    fn of(&self, client: ClientId) -> Rc<Budget> {
        let mut by_client = self.by_client.borrow_mut();
        by_client.entry(client).or_insert_with(|| Budget::new(self.whole.total / SHARE)).clone()
    }
}

impl Budget {
    pub fn new(total: usize) -> Rc<Self> {
        Rc::new(Self {
            places: Cell::new(PLACES_MAX),
            left: Cell::new(total),
            total,
            waiting: RefCell::default(),
        })
    }

    fn place(self: &Rc<Self>) -> Option<Place> {
        let left = self.places.get().checked_sub(1)?;
        self.places.set(left);
        Some(Place(self.clone()))
    }

    /// Takes `bytes`, waiting in line until they are there. A request for more than the whole budget gets all of it.
    pub async fn take(self: &Rc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.total);
        if self.waiting.borrow().is_empty() && self.left.get() >= bytes {
            return self.grant(bytes);
        }
        self.forget_those_who_left();
        let (granted, permit) = futures_channel::oneshot::channel();
        self.waiting.borrow_mut().push_back(Waiting { bytes, granted });
        permit.await.expect("the budget keeps its line until everyone is served")
    }

    /// The line is looked through whenever it has doubled, so that it is not much longer than those who wait are many.
    fn forget_those_who_left(&self) {
        let mut line = self.waiting.borrow_mut();
        if line.len() >= 64 && line.len().is_power_of_two() {
            line.retain(|waiting| !waiting.granted.is_canceled());
        }
    }

    fn grant(self: &Rc<Self>, bytes: usize) -> Permit {
        self.left.set(self.left.get() - bytes);
        Permit { budget: self.clone(), bytes }
    }

    fn give_back(self: &Rc<Self>, bytes: usize) {
        self.left.set(self.left.get() + bytes);
        loop {
            let next = match self.waiting.borrow_mut() {
                mut line if line.front().is_some_and(|first| first.bytes <= self.left.get()) => {
                    line.pop_front()
                }
                _ => None,
            };
            let Some(Waiting { bytes, granted }) = next else { return };
            // Whoever stopped waiting would drop the permit at once, which comes back here: however many did, this goes no deeper.
            if !granted.is_canceled() {
                drop(granted.send(self.grant(bytes)));
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.set(self.0.places.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn requests_wait_in_line_and_small_ones_do_not_overtake() {
        block_on(async {
            let budget = Budget::new(10);
            let first = budget.take(6).await;
            let mut large = Box::pin(budget.take(8));
            let mut small = Box::pin(budget.take(1));
            assert!(poll_once(&mut large).await.is_none());
            assert!(poll_once(&mut small).await.is_none());
            drop(first);
            let held = poll_once(&mut large).await;
            assert!(held.is_some() && poll_once(&mut small).await.is_some());
        });
    }

    #[test]
    fn whoever_stops_waiting_does_not_hold_up_the_line() {
        block_on(async {
            let budget = Budget::new(10);
            let first = budget.take(10).await;
            let mut gone = Box::pin(budget.take(10));
            assert!(poll_once(&mut gone).await.is_none());
            let mut next = Box::pin(budget.take(10));
            assert!(poll_once(&mut next).await.is_none());
            drop(gone);
            drop(first);
            assert!(poll_once(&mut next).await.is_some());
        });
    }

    #[test]
    fn any_number_may_stop_waiting_at_the_same_time() {
        block_on(async {
            let budget = Budget::new(10);
            let all = budget.take(10).await;
            let mut gone: Vec<_> = (0..100_000).map(|_| Box::pin(budget.take(1))).collect();
            for waiting in &mut gone {
                assert!(poll_once(waiting).await.is_none());
            }
            drop(gone);
            drop(all);
            assert_eq!(budget.left.get(), 10);
        });
    }

    #[test]
    fn those_who_left_do_not_make_the_line_grow() {
        block_on(async {
            let budget = Budget::new(10);
            let _all = budget.take(10).await;
            for _ in 0..1000 {
                assert!(poll_once(&mut Box::pin(budget.take(1))).await.is_none());
            }
            assert!(budget.waiting.borrow().len() <= 64);
        });
    }

    #[test]
    fn a_request_larger_than_the_budget_gets_all_of_it() {
        block_on(async {
            let budget = Budget::new(10);
            drop(budget.take(1000).await);
            assert_eq!(budget.left.get(), 10);
        });
    }

    #[test]
    fn a_client_can_use_up_its_share_and_no_more() {
        block_on(async {
            let shares = Shared::new(10);
            let (greedy, modest) = (Some(ClientId([1; 16])), Some(ClientId([2; 16])));
            let held = shares.take(greedy, 5).await;
            let mut more = Box::pin(shares.take(greedy, 1));
            assert!(poll_once(&mut more).await.is_none());
            let other = shares.take(modest, 4).await;
            let nobody = shares.take(None, 1).await;
            let mut last = Box::pin(shares.take(modest, 1));
            assert!(poll_once(&mut last).await.is_none(), "the whole is used up");
            drop((held, other, nobody));
            assert!(poll_once(&mut more).await.is_some() && poll_once(&mut last).await.is_some());
        });
    }

    #[test]
    fn large_requests_do_not_keep_small_ones_waiting() {
        block_on(async {
            let shares = Shares::new(8 * SMALL_BYTES_MAX);
            let client = Some(ClientId([1; 16]));
            let _announced = shares.take(client, 4 * SMALL_BYTES_MAX).await;
            assert!(poll_once(&mut Box::pin(shares.take(client, SMALL_BYTES_MAX + 1))).await.is_none());
            assert!(poll_once(&mut Box::pin(shares.take(client, SMALL_BYTES_MAX))).await.is_some());
        });
    }

    #[test]
    fn places_to_wait_at_are_limited() {
        let budget = Budget::new(10);
        let mut places: Vec<_> = (0..PLACES_MAX).map(|_| budget.place()).collect();
        assert!(places.iter().all(Option::is_some) && budget.place().is_none());
        places.pop();
        assert!(budget.place().is_some());
    }
}
