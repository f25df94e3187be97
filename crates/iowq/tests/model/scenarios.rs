//! The scenarios, each run under many schedules.

use crate::machine::{boot, chance, machine};
use crate::{CancelOutcome, Class, Config, Interrupt, Ticket, Work, Wq};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::yield_now;
use std::sync::Arc;
use std::time::Duration;

const SCHEDULES: usize = 1000;
/// The random scheduler is fair enough that a timer's repetitions end well before this.
const STEPS_MAX: usize = 200_000;

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS_MAX);
    let scheduler = shuttle::scheduler::RandomScheduler::new(SCHEDULES);
    shuttle::Runner::new(scheduler, config).run(scenario);
}

/// In place of a work's number: all.
const ALL: u32 = u32::MAX;

#[derive(Default)]
struct Log {
    seen: Mutex<Seen>,
    ended: Condvar,
}

#[derive(Default)]
struct Seen {
    runs: Vec<u32>,
    cancels: Vec<u32>,
    fails: Vec<u32>,
    running: [u32; 2],
    running_max: [u32; 2],
    /// Works that were to be cancelled; the number of a shutdown stands for all.
    asked: Vec<u32>,
    hash_busy: bool,
    hash_order: Vec<u32>,
}

impl Log {
    fn ask(&self, id: u32) {
        self.seen.lock().unwrap().asked.push(id);
    }

    fn check_asked(&self, id: u32) {
        let asked = &self.seen.lock().unwrap().asked;
        assert!(asked.contains(&id) || asked.contains(&ALL), "work {id} was not to be cancelled");
    }

    fn count(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.runs.len() + seen.cancels.len() + seen.fails.len()
    }

    /// Waits for `n` callbacks; if they never come, shuttle reports the deadlock.
    fn wait(&self, n: usize) {
        let mut seen = self.seen.lock().unwrap();
        while seen.runs.len() + seen.cancels.len() + seen.fails.len() < n {
            seen = self.ended.wait(seen).unwrap();
        }
    }

    fn check_each_once(&self, n: u32) {
        let seen = self.seen.lock().unwrap();
        let mut all = [&seen.runs[..], &seen.cancels, &seen.fails].concat();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..n), "callbacks: {all:?}");
        assert!(seen.hash_order.is_sorted(), "order within the hash: {:?}", seen.hash_order);
    }
}

/// What a work does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Makes a call that does not block.
    Call,
    /// Makes a call that blocks until it is cancelled.
    Block,
    /// Ends when this other work has run.
    Await(u32),
    /// Makes no call, and does not ask whether it was cancelled.
    Nothing,
}
use Does::{Await, Block, Call, Nothing};

struct Job {
    id: u32,
    class: Class,
    hashed: bool,
    does: Does,
    log: Arc<Log>,
}

impl Work for Job {
    fn run(self: Box<Self>, interrupt: &Interrupt) {
        let class = self.class as usize;
        {
            let mut seen = self.log.seen.lock().unwrap();
            seen.running[class] += 1;
            seen.running_max[class] = seen.running_max[class].max(seen.running[class]);
            if self.hashed {
                assert!(!seen.hash_busy, "two works with one hash at once");
                seen.hash_busy = true;
                seen.hash_order.push(self.id);
            }
        }
        match self.does {
            Call => {
                let interrupted = machine().call_interrupted();
                let cancelled = interrupt.cancelled();
                assert!(!interrupted || cancelled, "a signal for an earlier work");
                if cancelled {
                    self.log.check_asked(self.id);
                }
            }
            Block => {
                machine().block_until_signal();
                assert!(interrupt.cancelled(), "a signal without a cancel");
            }
            Await(id) => {
                let mut seen = self.log.seen.lock().unwrap();
                while !seen.runs.contains(&id) {
                    seen = self.log.ended.wait(seen).unwrap();
                }
            }
            Nothing => {}
        }
        let mut seen = self.log.seen.lock().unwrap();
        seen.running[class] -= 1;
        if self.hashed {
            seen.hash_busy = false;
        }
        seen.runs.push(self.id);
        self.log.ended.notify_all();
    }

    fn cancelled(self: Box<Self>) {
        self.log.check_asked(self.id);
        self.log.seen.lock().unwrap().cancels.push(self.id);
        self.log.ended.notify_all();
    }

    fn failed(self: Box<Self>, _errno: i32) {
        self.log.seen.lock().unwrap().fails.push(self.id);
        self.log.ended.notify_all();
    }
}

struct Rig {
    wq: Arc<Wq>,
    log: Arc<Log>,
}

impl Rig {
    fn new(limit: [u32; 2]) -> Self {
        boot();
        let config = Config { limit, idle_timeout: Duration::from_secs(5) };
        Self { wq: Wq::new(config), log: Arc::default() }
    }

    fn queue(&self, id: u32, class: Class, hash: Option<u64>, does: Does) -> Ticket {
        let log = Arc::clone(&self.log);
        let job = Box::new(Job { id, class, hashed: hash.is_some(), does, log });
        if chance(2) {
            return self.wq.queue(job, class, hash);
        }
        let ticket = self.wq.enqueue(job, class, hash);
        self.wq.kick();
        ticket
    }

    fn cancel(&self, id: u32, ticket: Ticket) -> CancelOutcome {
        self.log.ask(id);
        self.wq.cancel(ticket)
    }

    /// All works have ended: nothing was lost, nobody panicked, and every worker leaves.
    fn finish(self, n: u32, limit: [u32; 2]) {
        self.log.wait(n as usize);
        self.log.check_each_once(n);
        let most = self.log.seen.lock().unwrap().running_max;
        assert!(most[0] <= limit[0] && most[1] <= limit[1], "{most:?} ran at once");
        assert_eq!(self.wq.stats().panics, 0);
        self.wq.shutdown(false);
        // A worker that stayed asleep would be shuttle's deadlock.
        while self.wq.stats().workers > 0 {
            yield_now();
        }
    }
}

#[test]
fn nothing_is_lost_between_queueing_idling_and_leaving() {
    explore(|| {
        let limit = [2, 1];
        let rig = Rig::new(limit);
        for id in 0..4 {
            let class = if id % 2 == 0 { Class::Bounded } else { Class::Unbounded };
            rig.queue(id, class, None, Call);
            if chance(2) {
                rig.log.wait(id as usize + 1);
            }
        }
        rig.finish(4, limit);
    });
}

#[test]
fn one_hash_runs_in_order_while_two_threads_queue() {
    explore(|| {
        let limit = [3, 1];
        let rig = Arc::new(Rig::new(limit));
        let other = Arc::clone(&rig);
        let side = shuttle::thread::spawn(move || {
            other.queue(3, Class::Bounded, None, Call);
            other.queue(4, Class::Bounded, None, Call);
        });
        let tickets = [0, 1, 2].map(|id| rig.queue(id, Class::Bounded, Some(7), Call));
        if chance(2) {
            let id = u32::from(chance(2));
            rig.cancel(id, tickets[id as usize]);
        }
        side.join().unwrap();
        Arc::into_inner(rig).unwrap().finish(5, limit);
    });
}

#[test]
fn a_cancel_reaches_a_blocked_work_wherever_it_falls() {
    explore(|| {
        let limit = [1, 1];
        let rig = Rig::new(limit);
        let blocked = rig.queue(0, Class::Unbounded, None, Block);
        let _next = rig.queue(1, Class::Unbounded, None, Call);
        if chance(2) {
            yield_now();
        }
        let first = rig.cancel(0, blocked);
        if chance(2) {
            let second = rig.cancel(0, blocked);
            assert!(first != CancelOutcome::Removed || second == CancelOutcome::NotFound);
        }
        rig.finish(2, limit);
    });
}

#[test]
fn without_timers_a_thread_repeats_the_signal() {
    explore(|| {
        let limit = [1, 1];
        let rig = Rig::new(limit);
        machine().short_of_timers.set(true);
        let blocked = rig.queue(0, Class::Unbounded, None, Block);
        let again = rig.queue(1, Class::Unbounded, None, Block);
        rig.cancel(0, blocked);
        rig.queue(2, Class::Unbounded, None, Call);
        rig.cancel(1, again);
        rig.finish(3, limit);
    });
}

#[test]
fn shutdown_ends_everything_once() {
    explore(|| {
        let limit = [1, 2];
        let rig = Rig::new(limit);
        let wq = Arc::clone(&rig.wq);
        rig.log.ask(ALL);
        let side = shuttle::thread::spawn(move || wq.shutdown(true));
        rig.queue(0, Class::Unbounded, None, Block);
        rig.queue(1, Class::Unbounded, None, Block);
        rig.queue(2, Class::Unbounded, None, Block);
        rig.queue(3, Class::Bounded, Some(1), Call);
        rig.queue(4, Class::Bounded, Some(1), Call);
        side.join().unwrap();
        rig.finish(5, limit);
    });
}

#[test]
fn when_threads_are_short_works_run_or_fail_but_are_not_lost() {
    explore(|| {
        let limit = [2, 2];
        let rig = Rig::new(limit);
        machine().short_of_threads.set(true);
        rig.queue(0, Class::Bounded, Some(1), Call);
        rig.queue(1, Class::Bounded, Some(1), Call);
        rig.queue(2, Class::Unbounded, None, Call);
        rig.queue(3, Class::Bounded, None, Call);
        rig.finish(4, limit);
    });
}

#[test]
fn a_raised_limit_is_used_and_a_lowered_one_kept() {
    explore(|| {
        let rig = Rig::new([2, 1]);
        let wq = Arc::clone(&rig.wq);
        let side = shuttle::thread::spawn(move || wq.max_workers([1, 2]));
        let blocked = [0, 1].map(|id| rig.queue(id, Class::Unbounded, None, Block));
        rig.queue(2, Class::Bounded, None, Call);
        rig.queue(3, Class::Bounded, None, Call);
        assert_eq!(side.join().unwrap(), [2, 1]);
        assert_eq!(rig.wq.max_workers([0, 0]), [1, 2]);
        for (id, ticket) in (0..).zip(blocked) {
            rig.cancel(id, ticket);
        }
        rig.finish(4, [2, 2]);
    });
}

/// The second is queued while the worker for the first is still being called.
#[test]
fn a_work_that_waits_for_the_next_one_gets_company() {
    explore(|| {
        let limit = [2, 1];
        let rig = Rig::new(limit);
        rig.queue(0, Class::Bounded, None, Await(1));
        rig.queue(1, Class::Bounded, None, Call);
        rig.finish(2, limit);
    });
}

#[test]
fn a_raised_limit_calls_a_worker() {
    explore(|| {
        let rig = Rig::new([1, 1]);
        rig.queue(0, Class::Unbounded, None, Await(1));
        rig.queue(1, Class::Unbounded, None, Call);
        rig.wq.max_workers([0, 2]);
        rig.finish(2, [1, 2]);
    });
}

/// Cancelling the one that holds the hash makes the next one ready, in a class that has room.
#[test]
fn a_cancel_that_frees_a_hash_calls_a_worker() {
    explore(|| {
        let limit = [1, 1];
        let rig = Rig::new(limit);
        rig.queue(0, Class::Bounded, None, Await(2));
        let holder = rig.queue(1, Class::Bounded, Some(7), Nothing);
        rig.queue(2, Class::Unbounded, Some(7), Call);
        assert_eq!(rig.cancel(1, holder), CancelOutcome::Removed);
        rig.finish(3, limit);
    });
}

#[test]
fn a_signal_that_a_work_never_noticed_does_not_reach_the_next() {
    explore(|| {
        let limit = [1, 1];
        let rig = Rig::new(limit);
        machine().short_of_timers.set(chance(2));
        let deaf = rig.queue(0, Class::Unbounded, None, Nothing);
        rig.queue(1, Class::Unbounded, None, Call);
        rig.cancel(0, deaf);
        rig.finish(2, limit);
    });
}

/// While one thread tries in vain to create a worker, another queues for a worker that has gone to
/// sleep meanwhile.
#[test]
fn a_failed_creation_wakes_who_sleeps() {
    explore(|| {
        let limit = [2, 1];
        let rig = Arc::new(Rig::new(limit));
        rig.queue(0, Class::Bounded, None, Call);
        machine().short_of_threads.set(true);
        let other = Arc::clone(&rig);
        let side = shuttle::thread::spawn(move || {
            other.log.wait(2);
            other.queue(2, Class::Bounded, None, Call)
        });
        while rig.wq.stats().started == 0 {
            yield_now();
        }
        rig.queue(1, Class::Bounded, None, Call);
        side.join().unwrap();
        Arc::into_inner(rig).unwrap().finish(3, limit);
    });
}

#[test]
fn one_kick_serves_many() {
    explore(|| {
        let limit = [2, 2];
        let rig = Rig::new(limit);
        for id in 0..4 {
            let class = if id < 2 { Class::Bounded } else { Class::Unbounded };
            // The earlier ones wait for the later ones.
            let does = if id % 2 == 0 { Await(id + 1) } else { Call };
            let log = Arc::clone(&rig.log);
            rig.wq.enqueue(Box::new(Job { id, class, hashed: false, does, log }), class, None);
        }
        rig.wq.kick();
        rig.finish(4, limit);
    });
}
