//! The course of a run: connect, warm up, measure, wait for what is under way.

use crate::Load;
use crate::broker::{Broker, Consumer, PARTITIONS, Producer};
use crate::event::{Events, intended_ns};
use crate::flow::{Flow, Summary, Window};
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

/// Longest wait for the last events after the load.
const DRAIN: Duration = Duration::from_secs(10);
/// How often waiting tasks look.
const TICK: Duration = Duration::from_micros(300);

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// From the moment a request was to be sent to the last of its acknowledgements.
    pub acknowledged: Summary,
    /// From the moment a request was to be sent to the arrival of each of its events.
    pub consumed: Option<Summary>,
    /// Acknowledged events that no consumer got.
    pub lost: u64,
}

/// What all tasks of a run share.
struct Run {
    load: Load,
    start: Instant,
    window: Window,
    end_ns: u64,
    /// Events given to the broker, acknowledged by it, and confirmed by consumers.
    sent: AtomicU64,
    acknowledged: AtomicU64,
    confirmed: AtomicU64,
}

impl Run {
    fn start(load: &Load) -> Self {
        let ns = |duration: Duration| duration.as_nanos() as u64;
        let window = Window { start_ns: ns(load.warm_up), end_ns: ns(load.warm_up + load.duration) };
        Self {
            load: load.clone(),
            start: Instant::now(),
            window,
            end_ns: window.end_ns + ns(load.tail),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Waits until request `index` of a producer is to be sent, and tells for when that was planned.
    async fn turn(&self, producer: usize, index: u64) -> u64 {
        if let Some(rate) = self.load.rate {
            // All producers take turns evenly.
            let turn = producer as u64 + index * self.load.producers as u64;
            let intended_ns = (turn as f64 * self.load.batch as f64 / rate * 1e9) as u64;
            sleep_until((self.start + Duration::from_nanos(intended_ns)).into()).await;
            return intended_ns;
        }
        while self.load.consumers > 0 && self.behind() > self.load.backlog && self.now_ns() < self.end_ns {
            sleep(TICK).await;
        }
        self.now_ns()
    }

    /// Events sent and not confirmed.
    fn behind(&self) -> u64 {
        // Confirmed first: it never overtakes what was sent, if read before.
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        self.sent.load(Ordering::Relaxed).saturating_sub(confirmed)
    }

    fn unconfirmed(&self) -> u64 {
        let confirmed = self.confirmed.load(Ordering::Relaxed);
        self.acknowledged.load(Ordering::Relaxed).saturating_sub(confirmed)
    }
}

/// Runs the whole load.
pub async fn run(broker: &dyn Broker, load: &Load) -> Result<Report> {
    broker.prepare().await.context("preparing the broker")?;
    let consumers =
        try_join_all((0..load.consumers).map(|number| open_consumer(broker, load, number))).await?;
    let producers =
        try_join_all((0..load.producers).map(|number| open_producer(broker, load, number))).await?;
    let run = Arc::new(Run::start(load));
    let (done, over) = watch::channel(false);
    let mut consuming = JoinSet::new();
    for consumer in consumers {
        consuming.spawn(consume(consumer, over.clone(), run.clone()));
    }
    let mut producing = JoinSet::new();
    for (number, (producer, events)) in producers.into_iter().enumerate() {
        producing.spawn(produce(producer, events, number, run.clone()));
    }
    let acknowledged = join(producing, run.window).await?;
    if load.consumers > 0 {
        drain(&run).await;
    }
    done.send_replace(true);
    let consumed = join(consuming, run.window).await?;
    Ok(Report {
        acknowledged: acknowledged.summary(),
        consumed: (load.consumers > 0).then(|| consumed.summary()),
        lost: if load.consumers > 0 { run.unconfirmed() } else { 0 },
    })
}

async fn open_consumer(broker: &dyn Broker, load: &Load, number: usize) -> Result<Box<dyn Consumer>> {
    let mine = (0..PARTITIONS).filter(|partition| *partition as usize % load.consumers == number);
    broker.consumer(mine.collect()).await.with_context(|| format!("consumer {number}"))
}

async fn open_producer(
    broker: &dyn Broker,
    load: &Load,
    number: usize,
) -> Result<(Box<dyn Producer>, Events)> {
    let producer = broker.producer().await.with_context(|| format!("producer {number}"))?;
    Ok((producer, Events::new(number, load.bytes)?))
}

async fn join(mut tasks: JoinSet<Result<Flow>>, window: Window) -> Result<Flow> {
    let mut all = Flow::new(window);
    while let Some(flow) = tasks.join_next().await {
        all.merge(&flow??);
    }
    Ok(all)
}

async fn produce(
    mut producer: Box<dyn Producer>,
    mut events: Events,
    number: usize,
    run: Arc<Run>,
) -> Result<Flow> {
    let mut flow = Flow::new(run.window);
    let count = run.load.batch as u64;
    for index in 0.. {
        let intended_ns = run.turn(number, index).await;
        if run.now_ns() >= run.end_ns {
            break;
        }
        let batch = (0..count).map(|_| events.next(intended_ns)).collect();
        // Producers begin at different partitions.
        let partition = (number as u64 * 7 + index) % u64::from(PARTITIONS);
        run.sent.fetch_add(count, Ordering::Relaxed);
        producer.send(partition as u32, batch).await.with_context(|| format!("producer {number}"))?;
        run.acknowledged.fetch_add(count, Ordering::Relaxed);
        flow.note(count, intended_ns, run.now_ns());
    }
    Ok(flow)
}

async fn consume(
    mut consumer: Box<dyn Consumer>,
    mut over: watch::Receiver<bool>,
    run: Arc<Run>,
) -> Result<Flow> {
    let mut flow = Flow::new(run.window);
    let mut events = Vec::new();
    loop {
        events.clear();
        // Broken off half way only when nobody counts any more.
        tokio::select! {
            received = consumer.receive(&mut events) => received.context("a consumer")?,
            _ = over.wait_for(|over| *over) => return Ok(flow),
        }
        let now_ns = run.now_ns();
        for event in &events {
            ensure!(event.len() == run.load.bytes, "an event came back with another size");
            let intended_ns = intended_ns(event).context("an event came back as another")?;
            flow.note(1, intended_ns, now_ns);
        }
        consumer.confirm().await.context("confirming")?;
        run.confirmed.fetch_add(events.len() as u64, Ordering::Relaxed);
    }
}

/// Waits until everything acknowledged is confirmed, but not for ever.
async fn drain(run: &Run) {
    let deadline = Instant::now() + DRAIN;
    while run.unconfirmed() > 0 && Instant::now() < deadline {
        sleep(TICK).await;
    }
}
