//! A long-polling instance: one task on its home core that answers what requests ask of it from its feed.

use crate::api::feed::{Feed, News};
use crate::broker::instances::{Asked, Listed, Reading, Told, What};
use crate::broker::places::Place;
use crate::broker::{Core, Slice};
use crate::delivery::readings::{Consumed, Readings, Room};
use crate::event::batch;
use crate::id::{ClientId, CoreId};
use crate::rt;
use futures_lite::FutureExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Largest body of an answer with several events.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long a client waits at most until it is known whether the answer before has reached it.
const SETTLE_WITHIN_MS: u64 = 300;
/// Rounds of work before other tasks of the core get their turn.
const ROUNDS_MAX: usize = 16;

/// The state of one instance.
pub(super) struct Instance {
    core: Rc<Core>,
    client: ClientId,
    feed: Feed,
    listed: Listed,
    /// What the instance takes up of its client's.
    _places: [Place; 2],
    readings: Readings<Slice>,
    /// Questions about what was read or comes next.
    questions: VecDeque<Asked>,
    /// The first of them, while it is not yet known whether the answers before have arrived.
    unsettled: Option<Unsettled>,
    /// Answers up to this one were waited for long enough.
    waited_for: u64,
    /// Which cores have the connections of answers that are not known to have arrived.
    senders: BTreeMap<u64, CoreId>,
    /// The poll that waits for events. There is never more than one.
    waiting: Option<Waiting>,
    /// Reports of dead events, of which the first is under way.
    reports: VecDeque<Asked>,
    /// When anybody last asked anything, by [`Core::uptime_ms`].
    heard_ms: u64,
    end: Option<End>,
}

struct Waiting {
    asked: Asked,
    reading: Reading,
    until_ms: u64,
    _counted: Counted,
}

struct Unsettled {
    asked: Asked,
    until_ms: u64,
    /// Answers that somebody finds out about.
    probing: BTreeSet<u64>,
}

/// A poll that counts as waiting.
struct Counted(Rc<Core>);

impl Counted {
    fn new(core: Rc<Core>) -> Self {
        core.metrics.numbers.polls_waiting.add(1);
        Self(core)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let number = &self.0.metrics.numbers.polls_waiting;
        number.set(number.get().saturating_sub(1));
    }
}

/// Why an instance ends.
enum End {
    /// Somebody asked for it.
    Deleted(Asked),
    /// Nobody polled for too long.
    Forgotten,
    /// The client may not go on, for this reason.
    Refused(String),
    /// The broker stops.
    Stopping,
}

/// Why a round of work ended.
enum Pause {
    /// Others should have their turn.
    Breathe,
    End(End),
}

impl Instance {
    pub fn new(core: Rc<Core>, client: ClientId, feed: Feed, listed: Listed, places: [Place; 2]) -> Self {
        Self {
            client,
            feed,
            listed,
            _places: places,
            readings: Readings::default(),
            questions: VecDeque::new(),
            unsettled: None,
            waited_for: 0,
            senders: BTreeMap::new(),
            waiting: None,
            reports: VecDeque::new(),
            heard_ms: core.uptime_ms(),
            end: None,
            core,
        }
    }

    /// Answers until the instance ends.
    pub async fn run(mut self) {
        let end = loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Pause::Breathe => rt::breathe().await,
                Pause::End(end) => break end,
            }
        };
        self.finish(end).await;
    }

    /// One turn: as much as can be done now, up to a bound.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        for _ in 0..ROUNDS_MAX {
            let asked = self.take_questions();
            let noticed = self.take_news();
            self.feed.keep_in_memory(self.readings.ready());
            self.feed.pass_on_effects();
            let served = self.settle() | self.serve();
            if let Some(end) = self.end.take() {
                return Poll::Ready(Pause::End(end));
            }
            let (questions, news) = (self.listed.mailbox.poll(cx), self.feed.poll_news(cx));
            if !(asked || noticed || served) && questions.is_pending() && news.is_pending() {
                self.feed.wake_at(self.wake_at());
                return Poll::Pending;
            }
        }
        Poll::Ready(Pause::Breathe)
    }

    fn wake_at(&self) -> u64 {
        let settled_ms = self.unsettled.as_ref().map_or(u64::MAX, |unsettled| unsettled.until_ms);
        let served_ms = self.waiting.as_ref().map_or_else(|| self.forgotten_at(), |waiting| waiting.until_ms);
        settled_ms.min(served_ms)
    }

    fn forgotten_at(&self) -> u64 {
        self.heard_ms + self.core.config.polling.instance_timeout.as_millis() as u64
    }

    fn take_questions(&mut self) -> bool {
        let mut any = false;
        while self.end.is_none()
            && let Some(asked) = self.listed.mailbox.take()
        {
            self.heed(asked);
            any = true;
        }
        any
    }

    fn heed(&mut self, asked: Asked) {
        match asked.what {
            What::Sent(answer) => {
                self.readings.sent(answer);
                return self.probed(answer);
            }
            What::Unsure(answer) => {
                self.waited_for = self.waited_for.max(answer);
                return self.probed(answer);
            }
            What::Arrived(answer) => {
                self.readings.arrived(answer);
                return self.probed(answer);
            }
            What::Failed(answer) => {
                self.core.metrics.numbers.answers_taken_back.add(1);
                self.readings.failed(answer);
                return self.probed(answer);
            }
            _ => self.heard_ms = self.core.uptime_ms(),
        }
        match asked.what {
            What::Read { .. } | What::Confirm { upto: None } => {
                if let What::Read { .. } = asked.what {
                    self.answer_nothing();
                }
                self.questions.push_back(asked);
            }
            What::Confirm { upto: Some(offset) } => {
                let told = self.consume(offset);
                self.core.tell_asker(&asked, told);
            }
            What::Report(_) => {
                self.reports.push_back(asked);
                self.report_next();
            }
            What::Delete => self.end = Some(End::Deleted(asked)),
            What::Withdraw => {
                let is_it = |other: &Asked| (other.from, other.ticket) == (asked.from, asked.ticket);
                self.waiting.take_if(|waiting| is_it(&waiting.asked));
                self.unsettled.take_if(|unsettled| is_it(&unsettled.asked));
                self.questions.retain(|question| !is_it(question));
            }
            What::Sent(_) | What::Unsure(_) | What::Arrived(_) | What::Failed(_) => {}
        }
    }

    /// Goes on with a question once it is known whether the answers before have arrived, or that was waited for long enough. The
    /// client may have read the last answer on one connection and go on with another, before the first is known to have
    /// brought it; or the first has just broken, and its events come before all others.
    fn settle(&mut self) -> bool {
        let now_ms = self.core.uptime_ms();
        let is_due = |unsettled: &mut Unsettled| unsettled.probing.is_empty() || unsettled.until_ms <= now_ms;
        let mut any = false;
        loop {
            if self.unsettled.is_none() {
                let Some(asked) = self.questions.pop_front() else { return any };
                let (until_ms, probing) = (now_ms + SETTLE_WITHIN_MS, self.start_probing());
                self.unsettled = Some(Unsettled { asked, until_ms, probing });
            }
            let Some(Unsettled { asked, .. }) = self.unsettled.take_if(is_due) else { return any };
            self.go_on(asked);
            any = true;
        }
    }

    /// Asks about every answer that is not known to have arrived, each time anew: a connection that stood may have broken.
    fn start_probing(&mut self) -> BTreeSet<u64> {
        let doubtful: BTreeSet<_> = self.readings.doubt().into_iter().collect();
        self.senders.retain(|answer, _| doubtful.contains(answer));
        for (&answer, &sender) in &self.senders {
            let patient = answer > self.waited_for;
            self.core.ask_for_receipt(sender, self.listed.id, self.client, answer, patient);
        }
        doubtful
    }

    fn probed(&mut self, answer: u64) {
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.probing.remove(&answer);
        }
    }

    fn go_on(&mut self, asked: Asked) {
        if !matches!(asked.what, What::Read { confirm: false, .. }) {
            self.consume_read();
        }
        match asked.what {
            What::Read { reading, .. } => self.wait(asked, reading),
            _ => self.core.tell_asker(&asked, Told::Done),
        }
    }

    /// Lets a poll wait. One that waited before hears that there is nothing: the client has moved on.
    fn wait(&mut self, asked: Asked, reading: Reading) {
        let until_ms = self.core.uptime_ms() + self.core.config.polling.timeout.as_millis() as u64;
        let waiting = Waiting { asked, reading, until_ms, _counted: Counted::new(self.core.clone()) };
        if let Some(before) = self.waiting.replace(waiting) {
            self.core.tell_asker(&before.asked, Told::Nothing);
        }
    }

    fn consume_read(&mut self) {
        let Consumed { upto, also } = self.readings.consume_read();
        let confirmed = upto.map_or(Ok(()), |offset| self.feed.confirm(offset));
        let all = also.into_iter().try_fold((), |(), offset| self.feed.confirm_one(offset));
        debug_assert!(confirmed.and(all).is_ok(), "what was handed out is of this session");
    }

    fn consume(&mut self, offset: u64) -> Told {
        match self.readings.consume(offset) {
            Ok(()) if self.feed.confirm(offset).is_ok() => Told::Done,
            _ => Told::UnknownOffset(offset),
        }
    }

    fn report_next(&mut self) {
        if self.feed.is_reporting() {
            return;
        }
        // The place of the question stays at the front until its report is durable.
        if let Some(first) = self.reports.front_mut()
            && let What::Report(report) = std::mem::replace(&mut first.what, What::Withdraw)
        {
            self.feed.report(*report);
        }
    }

    fn reported(&mut self, told: Told) {
        if let Some(asked) = self.reports.pop_front() {
            self.core.tell_asker(&asked, told);
        }
        self.report_next();
    }

    fn take_news(&mut self) -> bool {
        let mut any = false;
        while self.end.is_none()
            && let Some(news) = self.feed.take_news()
        {
            any = true;
            match news {
                News::Progress => {}
                News::Revoked => self.answer_nothing(),
                News::Tick => self.tick(),
                News::Ended(reason) => self.end = Some(End::Refused(reason)),
                News::Stopping => self.end = Some(End::Stopping),
                News::Reported(offset) => {
                    offset.into_iter().for_each(|offset| self.readings.consume_one(offset));
                    self.reported(Told::Done);
                }
                News::NotReported(refusal) => self.reported(Told::NotStored(refusal)),
            }
        }
        any
    }

    fn tick(&mut self) {
        let now_ms = self.core.uptime_ms();
        if self.waiting.as_ref().is_some_and(|waiting| waiting.until_ms <= now_ms) && !self.serve() {
            self.answer_nothing();
        }
        if self.waiting.is_none()
            && self.unsettled.is_none()
            && self.reports.is_empty()
            && self.forgotten_at() <= now_ms
        {
            self.end = Some(End::Forgotten);
        }
    }

    fn answer_nothing(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            // The client has been there until now.
            self.heard_ms = self.core.uptime_ms();
            self.core.tell_asker(&waiting.asked, Told::Nothing);
        }
    }

    /// Answers the poll that waits, if there are events.
    fn serve(&mut self) -> bool {
        let Some(waiting) = self.waiting.take() else { return false };
        let room = match waiting.reading {
            Reading::One => Room::new(1, usize::MAX),
            Reading::Batch => Room::new(self.core.config.polling.batch_events, BATCH_BYTES_MAX - 1),
        };
        let events = self.gather(room);
        if events.is_empty() {
            self.waiting = Some(waiting);
            return false;
        }
        let bytes: usize = events.iter().map(|(_, event)| event.len()).sum();
        self.feed.sent(events.len() as u64, bytes as u64);
        self.heard_ms = self.core.uptime_ms();
        let answer = self.readings.hand_out(&events);
        self.senders.insert(answer, waiting.asked.from);
        self.core.tell_asker(&waiting.asked, Told::Events { answer, events });
        true
    }

    fn gather(&mut self, mut room: Room) -> Vec<(u64, Slice)> {
        let mut events = Vec::new();
        while !room.is_full() {
            let again = self.take_ready();
            let was_read = again.is_some();
            let Some(event) = again.or_else(|| self.feed.next_event()) else { break };
            if room.take(batch::bytes_in_batch(&event.1)) {
                events.push(event);
                continue;
            }
            match was_read {
                true => self.readings.keep(event),
                // Until it goes, rights and rules may change.
                false => self.feed.put_back(event),
            }
            break;
        }
        events
    }

    /// The next event that came back. What the client may not see any more counts as consumed.
    fn take_ready(&mut self) -> Option<(u64, Slice)> {
        if self.feed.is_bringing() {
            return None;
        }
        loop {
            let (offset, event) = self.readings.take_ready()?;
            if self.feed.may_see(&event) {
                return Some((offset, event));
            }
            let consumed = self.feed.confirm_one(offset);
            debug_assert!(consumed.is_ok(), "what was kept is of this session");
        }
    }

    async fn finish(self, end: End) {
        let Self { core, feed, listed, _places, questions, unsettled, waiting, reports, .. } = self;
        // The group gets the partitions at once.
        drop((feed, _places));
        let polls = waiting.map(|waiting| waiting.asked).into_iter();
        let asked = polls.chain(unsettled.map(|unsettled| unsettled.asked)).chain(questions).chain(reports);
        match end {
            End::Deleted(by) => {
                asked.for_each(|asked| core.tell_asker(&asked, Told::NotFound));
                drop(listed);
                core.tell_asker(&by, Told::Done);
            }
            End::Forgotten => asked.for_each(|asked| core.tell_asker(&asked, Told::NotFound)),
            End::Stopping => asked.for_each(|asked| core.tell_asker(&asked, Told::Stopping)),
            End::Refused(reason) => {
                asked.for_each(|asked| core.tell_asker(&asked, Told::Ended(reason.clone())));
                if listed.outlive() {
                    remember(&core, &listed, &reason).await;
                }
            }
        }
    }
}

/// Tells whoever asks why the instance has ended, for as long as it would have been remembered anyway.
async fn remember(core: &Core, listed: &Listed, reason: &str) {
    let answer = async {
        loop {
            listed.mailbox.filled().await;
            while let Some(asked) = listed.mailbox.take() {
                if asked.what.has_answer() {
                    core.tell_asker(&asked, Told::Ended(reason.to_owned()));
                }
            }
        }
    };
    answer.or(rt::sleep(core.config.polling.instance_timeout)).await;
}
