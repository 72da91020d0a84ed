//! Long-polling instances of this core, and how a request on any core asks something of one.
//!
//! An instance lives on the core that made it, its home. Its name says which, so whoever has a request for it posts an
//! [`Asked`] there and waits for what is [`Told`].

use super::awaited::Awaited;
use super::message::{Message, Ticket};
use super::refusal::Refusal;
use super::{Core, Slice};
use crate::id::{ClientId, CoreId};
use crate::ingress::report::Report;
use crate::rt;
use crate::rt::deadline::Handle;
use crate::rt::notify::Notify;
use futures_channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

/// Answers of one connection that are remembered although the client's machine has them. More would only keep what they hold in
/// memory.
const RECEIPTS_MAX: usize = 16;
/// Instances of a core that have ended and still tell whoever asks why.
const ENDED_MAX: usize = 1000;

/// Milliseconds between looks at whether an answer was acknowledged.
const LOOKS_MS: [u64; 7] = [2, 4, 8, 16, 32, 64, 128];

/// Names an instance while the process lives. Nobody can guess it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InstanceId {
    pub home: CoreId,
    secret: u128,
}

/// The text is no name of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotInstance;

/// A question to an instance, or word of what became of an answer.
pub struct Asked {
    pub instance: InstanceId,
    pub client: ClientId,
    /// The group that the request names, if it names one.
    pub group: Option<String>,
    /// Who waits for the answer, and under which ticket.
    pub from: CoreId,
    pub ticket: Ticket,
    pub what: What,
}

pub enum What {
    /// Events, when there are any.
    Read { reading: Reading, confirm: bool },
    /// Everything up to this offset is consumed, or all that was read.
    Confirm { upto: Option<u64> },
    /// A dead event.
    Report(Box<Report>),
    /// The end of the instance.
    Delete,
    /// Nobody waits for the answer of this ticket any more. Has no answer, like all that follow.
    Withdraw,
    /// The client's machine has acknowledged an answer of this number, and its connection stands.
    Sent(u64),
    /// It is not known whether it did.
    Unsure(u64),
    /// It has certainly arrived.
    Arrived(u64),
    /// It has not arrived: the events are to be handed out again.
    Failed(u64),
}

/// How many events are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    One,
    Batch,
}

/// What an instance answers.
pub enum Told {
    /// The client has no such instance here.
    NotFound,
    /// The instance has ended, for this reason.
    Ended(String),
    /// Events with their offsets, in an answer of this number.
    Events { answer: u64, events: Vec<(u64, Slice)> },
    /// No events within the time there was.
    Nothing,
    /// What was asked for is done.
    Done,
    /// The offset is of no event that was handed out.
    UnknownOffset(u64),
    /// The dead event was not stored.
    NotStored(Refusal),
    /// The broker stops.
    Stopping,
}

/// Instances of this core, and questions of this core to any.
#[derive(Default)]
pub struct Instances {
    homes: RefCell<HashMap<InstanceId, Entry, ahash::RandomState>>,
    /// Those of them that have ended.
    ended: Cell<usize>,
    asking: Awaited<Told>,
    /// Answers of which it is not certain that they have arrived, once they were sent with where.
    receipts: RefCell<HashMap<(InstanceId, u64), Option<Sent>, ahash::RandomState>>,
}

struct Entry {
    client: ClientId,
    group: String,
    mailbox: Rc<Mailbox>,
}

/// Where an answer was sent: its last byte is the last of so many on the connection.
#[derive(Clone)]
struct Sent {
    connection: Handle,
    upto: u64,
}

/// Questions to one instance, in order.
#[derive(Default)]
pub struct Mailbox {
    asked: RefCell<VecDeque<Asked>>,
    filled: Notify,
}

/// An instance that can be asked. Dropping it makes it unknown.
pub struct Listed {
    core: Rc<Core>,
    pub id: InstanceId,
    pub mailbox: Rc<Mailbox>,
    has_ended: Cell<bool>,
}

/// A question that waits for its answer. Dropping it withdraws it, and events that nobody took are not lost.
pub struct Question {
    core: Rc<Core>,
    instance: InstanceId,
    client: ClientId,
    ticket: Ticket,
    answered: oneshot::Receiver<Told>,
    is_open: bool,
}

/// What becomes of an answer with events. Dropped before it has arrived, it brings the events back.
pub struct Receipt {
    core: Rc<Core>,
    instance: InstanceId,
    client: ClientId,
    answer: u64,
    arrived: bool,
}

/// Receipts of the answers that were sent on one connection. When it breaks, dropping them brings the events back.
#[derive(Default)]
pub struct Receipts(VecDeque<Receipt>);

impl Mailbox {
    /// The next question.
    pub fn take(&self) -> Option<Asked> {
        self.asked.borrow_mut().pop_front()
    }

    /// Ready when there may be a question.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked.borrow().is_empty() { self.filled.poll(cx) } else { Poll::Ready(()) }
    }

    /// Waits until there may be a question.
    pub async fn filled(&self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn put(&self, asked: Asked) {
        self.asked.borrow_mut().push_back(asked);
        self.filled.notify();
    }
}

impl Instances {
    /// Instances at home on this core that have not ended.
    pub fn count(&self) -> usize {
        self.homes.borrow().len() - self.ended.get()
    }

    /// Whether the client's machine has an answer, as far as is known.
    fn has_delivered(&self, receipt: &Receipt) -> bool {
        let receipts = self.receipts.borrow();
        let sent = receipts.get(&(receipt.instance, receipt.answer)).and_then(Option::as_ref);
        sent.is_some_and(|sent| sent.connection.has_delivered(sent.upto))
    }

    fn mailbox(&self, asked: &Asked) -> Option<Rc<Mailbox>> {
        let homes = self.homes.borrow();
        let entry = homes.get(&asked.instance).filter(|entry| entry.client == asked.client)?;
        let is_of_group = asked.group.as_ref().is_none_or(|group| *group == entry.group);
        is_of_group.then(|| entry.mailbox.clone())
    }
}

impl Core {
    /// Long-polling instances of this core.
    pub fn instances_at_home(&self) -> usize {
        self.instances.count()
    }

    /// A new instance of `client` that is at home here.
    pub fn list_instance(self: &Rc<Self>, client: ClientId, group: String) -> Listed {
        let id = InstanceId { home: self.id, secret: uuid::Uuid::new_v4().as_u128() };
        let mailbox = Rc::new(Mailbox::default());
        let entry = Entry { client, group, mailbox: mailbox.clone() };
        self.instances.homes.borrow_mut().insert(id, entry);
        self.count_consumers();
        Listed { core: self.clone(), id, mailbox, has_ended: Cell::default() }
    }

    /// Asks an instance something that has an answer.
    pub fn ask(
        self: &Rc<Self>,
        instance: InstanceId,
        client: ClientId,
        group: String,
        what: What,
    ) -> Question {
        let (ticket, answered) = self.instances.asking.open();
        let asked = Asked { instance, client, group: Some(group), from: self.id, ticket, what };
        self.post(instance.home, Message::Ask(Box::new(asked)));
        Question { core: self.clone(), instance, client, ticket, answered, is_open: true }
    }

    /// Answers a question.
    pub fn tell_asker(&self, asked: &Asked, told: Told) {
        let (instance, client, ticket) = (asked.instance, asked.client, asked.ticket);
        self.post(asked.from, Message::Told { instance, client, ticket, told });
    }

    pub(super) fn asked(&self, asked: Asked) {
        match self.instances.mailbox(&asked) {
            Some(mailbox) => mailbox.put(asked),
            None if asked.what.has_answer() => self.tell_asker(&asked, Told::NotFound),
            None => {}
        }
    }

    pub(super) fn told(&self, instance: InstanceId, client: ClientId, ticket: Ticket, told: Told) {
        if let Err(told) = self.instances.asking.answer(ticket, told) {
            self.give_back(instance, client, told);
        }
    }

    /// Finds out for an instance whether an answer has reached its client. With patience it takes a while before that is unsure.
    pub(super) fn probe(self: &Rc<Self>, instance: InstanceId, client: ClientId, answer: u64, patient: bool) {
        let core = self.clone();
        rt::spawn(async move {
            let looks: &[u64] = if patient { &LOOKS_MS } else { &[] };
            let mut looks = looks.iter();
            let what = loop {
                let known = core.instances.receipts.borrow().get(&(instance, answer)).cloned();
                match (known, looks.next()) {
                    (Some(Some(sent)), _) if sent.connection.has_delivered(sent.upto) => {
                        break What::Sent(answer);
                    }
                    (Some(_), Some(pause_ms)) => rt::sleep(Duration::from_millis(*pause_ms)).await,
                    (None, _) | (_, None) => break What::Unsure(answer),
                }
            };
            core.inform(instance, client, Ticket(0), what);
        });
    }

    /// Asks the core that has the connection of an answer whether it has reached its client.
    pub fn ask_for_receipt(
        &self,
        of: CoreId,
        instance: InstanceId,
        client: ClientId,
        answer: u64,
        patient: bool,
    ) {
        self.post(of, Message::Probe { instance, client, answer, patient });
    }

    /// Nobody took what was told.
    fn give_back(&self, instance: InstanceId, client: ClientId, told: Told) {
        if let Told::Events { answer, .. } = told {
            self.inform(instance, client, Ticket(0), What::Failed(answer));
        }
    }

    /// Tells an instance something that has no answer.
    fn inform(&self, instance: InstanceId, client: ClientId, ticket: Ticket, what: What) {
        let asked = Asked { instance, client, group: None, from: self.id, ticket, what };
        self.post(instance.home, Message::Ask(Box::new(asked)));
    }
}

impl What {
    /// Whether somebody waits for an answer.
    pub fn has_answer(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Confirm { .. } | Self::Report(_) | Self::Delete)
    }
}

impl Question {
    /// Waits for the answer.
    pub async fn answer(mut self) -> Told {
        let told = (&mut self.answered).await.expect("every question is answered by its home core");
        self.is_open = false;
        told
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        self.core.instances.asking.forget(self.ticket);
        match self.answered.try_recv() {
            Ok(Some(told)) => self.core.give_back(self.instance, self.client, told),
            _ => self.core.inform(self.instance, self.client, self.ticket, What::Withdraw),
        }
    }
}

impl Receipt {
    /// For the answer of that number.
    pub fn new(core: &Rc<Core>, instance: InstanceId, client: ClientId, answer: u64) -> Self {
        core.instances.receipts.borrow_mut().insert((instance, answer), None);
        Self { core: core.clone(), instance, client, answer, arrived: false }
    }

    /// The client went on after the answer, so it has it.
    pub fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Receipts {
    /// Keeps the receipt of an answer that was just sent on `connection`.
    pub fn keep(&mut self, receipt: Receipt, connection: Handle) {
        let key = (receipt.instance, receipt.answer);
        // Other streams of the connection may go on sending, so that there is always something to acknowledge.
        let sent = connection.sent().map(|upto| Sent { connection, upto });
        receipt.core.instances.receipts.borrow_mut().insert(key, sent);
        self.0.push_back(receipt);
        // What the client's machine does not have is in the kernel's buffer, which bounds how many there are.
        while self.0.len() > RECEIPTS_MAX
            && let Some(oldest) = self.0.pop_front_if(|oldest| oldest.core.instances.has_delivered(oldest))
        {
            oldest.arrived();
        }
    }

    /// The client has gone on, or has ended the connection in good order.
    pub fn arrived(&mut self) {
        self.0.drain(..).for_each(Receipt::arrived);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.core.instances.receipts.borrow_mut().remove(&(self.instance, self.answer));
        let what = if self.arrived { What::Arrived(self.answer) } else { What::Failed(self.answer) };
        self.core.inform(self.instance, self.client, Ticket(0), what);
    }
}

impl Listed {
    /// The instance has ended and stays listed only to say why, which takes nothing of the room for others. `false` when there
    /// are too many of those.
    pub fn outlive(&self) -> bool {
        let ended = &self.core.instances.ended;
        let stays = !self.has_ended.get() && ended.get() < ENDED_MAX;
        if stays {
            ended.set(ended.get() + 1);
            self.has_ended.set(true);
            self.core.count_consumers();
        }
        stays
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let instances = &self.core.instances;
        instances.homes.borrow_mut().remove(&self.id);
        instances.ended.set(instances.ended.get() - usize::from(self.has_ended.get()));
        self.core.count_consumers();
        while let Some(asked) = self.mailbox.take() {
            if asked.what.has_answer() {
                self.core.tell_asker(&asked, Told::NotFound);
            }
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:032x}", self.home.0, self.secret)
    }
}

impl FromStr for InstanceId {
    type Err = NotInstance;

    fn from_str(text: &str) -> Result<Self, NotInstance> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 34 || !text.bytes().all(is_digit) {
            return Err(NotInstance);
        }
        let home = u8::from_str_radix(&text[..2], 16).map_err(|_| NotInstance)?;
        let secret = u128::from_str_radix(&text[2..], 16).map_err(|_| NotInstance)?;
        Ok(Self { home: CoreId(home), secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_a_name() {
        let id = InstanceId { home: CoreId(63), secret: 7 << 120 };
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace("3f", "+f")] {
            assert_eq!(wrong.parse::<InstanceId>(), Err(NotInstance), "{wrong}");
        }
    }
}
