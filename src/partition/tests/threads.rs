//! The jobs on helper threads, as the broker runs them, while appends and reads go on.

use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

type Outcome = Result<Done<<RealDisk as MapDisk>::Map>, JobError>;

/// Three threads that run jobs. They end when the sender is dropped.
fn helpers() -> (Sender<Job<RealDisk>>, Receiver<Outcome>) {
    let (jobs, queue) = channel::<Job<RealDisk>>();
    let (outcomes, done) = channel();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..3 {
        let (queue, outcomes) = (queue.clone(), outcomes.clone());
        thread::spawn(move || {
            loop {
                let next = queue.lock().unwrap().recv();
                let Ok(job) = next else { return };
                if outcomes.send(job.run()).is_err() {
                    return;
                }
            }
        });
    }
    (jobs, done)
}

struct Owner {
    partition: Partition<RealDisk>,
    jobs: Sender<Job<RealDisk>>,
    done: Receiver<Outcome>,
    appended: u64,
    /// Per reader: where it reads on, and what it waits for.
    readers: [(Offset, Option<ColdId>, Vec<u64>); 2],
    slices: Sender<Slice<<RealDisk as MapDisk>::Map>>,
}

impl Owner {
    fn submit(&mut self) {
        while let Some(job) = self.partition.job() {
            self.jobs.send(job).unwrap();
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let finished = self.partition.finish(outcome.unwrap());
        if let Finished::Warm(cold) = finished {
            self.readers
                .iter_mut()
                .filter(|(_, wait, _)| *wait == Some(cold))
                .for_each(|(_, wait, _)| *wait = None);
        }
    }

    fn append(&mut self) {
        let record = record_of(self.appended, (self.appended % 4) as u32, 1, 150);
        while self.partition.append(&Record::read(&record).unwrap()).is_err() {
            self.submit();
            let outcome = self.done.recv().unwrap();
            self.finish(outcome);
        }
        self.appended += 1;
    }

    fn read(&mut self, reader: usize, filter: &TypeFilter) {
        let (at, wait, seen) = &mut self.readers[reader];
        if wait.is_some() {
            return;
        }
        let read = self.partition.read(*at, filter, Budget { events: 40, bytes: 8000 });
        *at = read.next;
        for slice in read.slices {
            seen.push(number_of(&slice));
            self.slices.send(slice).unwrap();
        }
        if let Status::Cold { wait: cold, job } = read.status {
            *wait = Some(cold);
            job.into_iter().for_each(|job| self.jobs.send(job).unwrap());
        }
    }
}

#[test]
fn jobs_on_other_threads_do_not_disturb_appends_and_reads() {
    const EVENTS: u64 = 4000;
    let dir = tempfile::tempdir().unwrap();
    let (jobs, done) = helpers();
    let (slices, received) = channel();
    // Another core: touches the slices while the owner seals, cuts and removes their segments.
    let consumer =
        thread::spawn(move || received.iter().map(|slice: Slice<_>| number_of(&slice)).sum::<u64>());
    let readers = [(Offset(0), None, Vec::new()), (Offset(0), None, Vec::new())];
    let mut owner = Owner { partition: open(dir.path(), None), jobs, done, appended: 0, readers, slices };
    let filters = [filter(&[0, 1, 2, 3]), filter(&[3])];
    while owner.readers.iter().any(|(at, ..)| *at < Offset(EVENTS)) {
        for _ in 0..7.min(EVENTS - owner.appended) {
            owner.append();
        }
        owner.read(0, &filters[0]);
        owner.read(1, &filters[1]);
        if owner.appended % 500 < 7 {
            owner.partition.tick(0);
            owner.jobs.send(owner.partition.flush_job()).unwrap();
            let slowest = owner.readers.iter().map(|(at, ..)| *at).min().unwrap();
            owner.partition.expire(Offset(slowest.0.saturating_sub(600)));
        }
        owner.submit();
        while let Ok(outcome) = owner.done.try_recv() {
            owner.finish(outcome);
        }
    }
    let [(_, _, all), (_, _, rare)] = &owner.readers;
    assert_eq!(*all, (0..EVENTS).collect::<Vec<_>>());
    assert_eq!(*rare, (0..EVENTS).filter(|n| n % 4 == 3).collect::<Vec<_>>());
    let sum: u64 = all.iter().chain(rare).sum();
    drop(owner);
    assert_eq!(consumer.join().unwrap(), sum);
}
