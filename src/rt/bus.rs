//! Message queues between cores: one bounded single-producer single-consumer channel per ordered pair of cores.
//!
//! [`Bus::post`] never waits, so that a core that handles a message can answer it without a deadlock. What does not fit
//! into a channel waits in the sender's own outbox. Outboxes are bounded by the protocol: every message belongs to a
//! request, session, partition or connection, each of which has a bounded number of messages under way.

use super::notify::Notify;
use futures_lite::future::zip;
use glommio::channels::shared_channel::{
    self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
};
use glommio::{GlommioError, ResourceType};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

/// Messages that a channel holds before the sender's outbox fills.
const CHANNEL_MESSAGES: usize = 4096;

/// The ends of one core's channels, made for all cores at once before they start.
pub struct Ends<M: Send> {
    core: usize,
    /// By destination; `None` for the core itself.
    senders: Vec<Option<SharedSender<M>>>,
    /// By origin; `None` for the core itself.
    receivers: Vec<Option<SharedReceiver<M>>>,
}

/// Makes the channels between `cores` cores.
pub fn mesh<M: Send + 'static>(cores: usize) -> Vec<Ends<M>> {
    let mut ends: Vec<Ends<M>> = (0..cores)
        .map(|core| Ends { core, senders: Vec::new(), receivers: (0..cores).map(|_| None).collect() })
        .collect();
    for from in 0..cores {
        for to in 0..cores {
            if from == to {
                ends[from].senders.push(None);
                continue;
            }
            let (sender, receiver) = shared_channel::new_bounded(CHANNEL_MESSAGES);
            ends[from].senders.push(Some(sender));
            ends[to].receivers[from] = Some(receiver);
        }
    }
    ends
}

/// The sending side of one core.
pub struct Bus<M: Send + 'static> {
    core: usize,
    routes: Vec<Rc<Route<M>>>,
}

struct Route<M: Send> {
    /// `None` for the core itself, whose messages only pass through the outbox.
    channel: Option<ConnectedSender<M>>,
    outbox: RefCell<VecDeque<M>>,
    /// A message has left the outbox and waits for room in the channel: later ones must not overtake it.
    sending: Cell<bool>,
    filled: Notify,
}

/// The receiving side of one core, to be given to [`Bus::serve`].
pub struct Inbox<M: Send> {
    receivers: Vec<ConnectedReceiver<M>>,
}

impl<M: Send + 'static> Ends<M> {
    /// Connects to all other cores; every core of the mesh must do so.
    pub async fn connect(self) -> (Bus<M>, Inbox<M>) {
        let senders = self.senders.into_iter().map(async |sender| match sender {
            Some(sender) => Some(sender.connect().await),
            None => None,
        });
        let receivers = self.receivers.into_iter().flatten().map(SharedReceiver::connect);
        // Each connection waits for its peer, so all of them are made at the same time.
        let (channels, receivers) = zip(all(senders), all(receivers)).await;
        let routes = channels.into_iter().map(|channel| Rc::new(Route::new(channel))).collect();
        (Bus { core: self.core, routes }, Inbox { receivers })
    }
}

/// Waits for every one of `futures` and gives their results in order.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        for (future, result) in waiting.iter_mut().filter(|(_, result)| result.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                *result = Some(value);
            }
        }
        if waiting.iter().all(|(_, result)| result.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, result)| result).collect()
}

impl<M: Send> Route<M> {
    fn new(channel: Option<ConnectedSender<M>>) -> Self {
        Self { channel, outbox: RefCell::default(), sending: Cell::new(false), filled: Notify::default() }
    }

    /// Whether a new message may go into the channel at once.
    fn is_clear(&self) -> bool {
        self.outbox.borrow().is_empty() && !self.sending.get()
    }

    fn pop(&self) -> Option<M> {
        self.outbox.borrow_mut().pop_front()
    }

    /// Empties the outbox: into the channel as it gets room, or to `handle` when this is the core itself.
    async fn drain(&self, handle: &dyn Fn(M)) {
        while let Some(message) = self.pop() {
            match &self.channel {
                None => handle(message),
                Some(channel) => {
                    self.sending.set(true);
                    channel.send(message).await.unwrap_or_else(|error| gone(&error));
                    self.sending.set(false);
                }
            }
        }
    }
}

impl<M: Send + 'static> Bus<M> {
    /// The core this is the bus of.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Number of cores.
    pub fn cores(&self) -> usize {
        self.routes.len()
    }

    /// Sends `message` to core `to`, this core included. Messages from one core to another arrive in order, and never
    /// before the current task waits.
    pub fn post(&self, to: usize, message: M) {
        let route = &self.routes[to];
        let message = match &route.channel {
            Some(channel) if route.is_clear() => match channel.try_send(message) {
                Ok(()) => return,
                Err(GlommioError::WouldBlock(ResourceType::Channel(message))) => message,
                Err(error) => gone(&error),
            },
            _ => message,
        };
        route.outbox.borrow_mut().push_back(message);
        route.filled.notify();
    }

    /// Messages that wait on this core because a channel is full or the core itself has not come to them.
    pub fn waiting(&self) -> usize {
        self.routes.iter().map(|route| route.outbox.borrow().len()).sum()
    }

    /// Starts the tasks that hand incoming messages to `handle` and empty the outboxes.
    pub fn serve(&self, inbox: Inbox<M>, handle: impl Fn(M) + 'static) {
        let handle = Rc::new(handle);
        for receiver in inbox.receivers {
            let handle = handle.clone();
            super::spawn(async move {
                while let Some(message) = receiver.recv().await {
                    handle(message);
                }
            });
        }
        for route in &self.routes {
            let (route, handle) = (route.clone(), handle.clone());
            super::spawn(async move {
                loop {
                    route.filled.notified().await;
                    route.drain(&*handle).await;
                }
            });
        }
    }
}

fn gone(error: &dyn std::fmt::Display) -> ! {
    panic!("a core's queue ended before the process: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{cpus, executor};
    use std::sync::mpsc;

    #[test]
    fn messages_between_cores_arrive_once_and_in_order_even_when_channels_overflow() {
        const COUNT: usize = CHANNEL_MESSAGES * 5;
        let (report, reports) = mpsc::channel();
        for (core, ends) in mesh::<(usize, usize)>(2).into_iter().enumerate() {
            let report = report.clone();
            executor::start(core, core % cpus::allowed().unwrap().len(), move || async move {
                let (bus, inbox) = ends.connect().await;
                let seen = RefCell::new([0usize; 2]);
                bus.serve(inbox, move |(from, number)| {
                    let mut seen = seen.borrow_mut();
                    assert_eq!(seen[from], number);
                    seen[from] += 1;
                    if *seen == [COUNT; 2] {
                        report.send(core).unwrap();
                    }
                });
                for number in 0..COUNT {
                    bus.post(0, (core, number));
                    bus.post(1, (core, number));
                }
                assert!(bus.waiting() > 0);
                std::future::pending::<()>().await;
            })
            .unwrap();
        }
        let mut done: Vec<_> = reports.iter().take(2).collect();
        done.sort();
        assert_eq!(done, [0, 1]);
    }
}
