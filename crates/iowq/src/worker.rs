//! The worker thread: its loop, and how it comes into being.

use crate::interrupt::Interrupt;
use crate::park::Parker;
use crate::prims::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::state::{Call, State};
use crate::work::Work;
use crate::{affinity, sys, thread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// One worker as others see it.
pub(crate) struct Worker {
    pub(crate) parker: Parker,
    pub(crate) interrupt: Arc<Interrupt>,
}

/// One pool as its workers hold it.
///
/// Lock order: `state` or `roster`, never both, then a worker's `Interrupt`. None is held while a
/// work or one of its callbacks runs.
pub(crate) struct Pool {
    pub(crate) state: Mutex<State<Worker>>,
    pub(crate) roster: Mutex<Roster>,
    /// A copy of the limits that can be read without the mutex.
    pub(crate) limits: [AtomicU32; 2],
    pub(crate) idle_timeout: Duration,
    /// The process that created this pool. In a forked child none of the workers exist.
    pub(crate) pid: i32,
    pub(crate) totals: Totals,
}

/// Every living worker, and the CPUs that they are bound to: together under one mutex, so that no
/// worker misses a change.
#[derive(Default)]
pub(crate) struct Roster {
    workers: Vec<Arc<Worker>>,
    /// None: a worker keeps what it inherits from the thread that creates it.
    cpus: Option<Vec<u8>>,
}

/// Counters that only grow; Relaxed, nothing is ordered by them.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) workers_created: AtomicU64,
    pub(crate) workers_failed: AtomicU64,
    pub(crate) interrupts: AtomicU64,
    pub(crate) panics: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Pool {
    pub(crate) fn new(limit: [u32; 2], idle_timeout: Duration) -> Self {
        Self {
            state: Mutex::new(State::new(limit)),
            roster: Mutex::default(),
            limits: limit.map(AtomicU32::new),
            idle_timeout,
            pid: sys::getpid(),
            totals: Totals::default(),
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds workers to the CPUs of `mask`: the present ones now, future ones if `future`, else
    /// those will run where the threads run that create them.
    pub(crate) fn bind(&self, mask: &[u8], future: bool) {
        let mut roster = self.roster();
        roster.cpus = future.then(|| mask.to_vec());
        for worker in &roster.workers {
            worker.interrupt.with_tid(|tid| affinity::bind(tid, mask));
        }
    }

    fn enroll(&self, me: &Arc<Worker>) {
        let mut roster = self.roster();
        if let Some(mask) = &roster.cpus {
            affinity::bind(0, mask);
        }
        roster.workers.push(Arc::clone(me));
    }

    fn strike_off(&self, me: &Arc<Worker>) {
        let mut roster = self.roster();
        if let Some(i) = roster.workers.iter().position(|w| Arc::ptr_eq(w, me)) {
            roster.workers.swap_remove(i);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<Worker>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what `State::call` said. The pool's mutex must not be held.
    pub(crate) fn carry_out(self: &Arc<Self>, call: Call<Worker>) {
        match call {
            Call::Nobody => {}
            Call::Wake(worker) => worker.parker.unpark(),
            Call::Create => self.create(),
        }
    }

    #[cold]
    fn create(self: &Arc<Self>) {
        let pool = Arc::clone(self);
        match thread::spawn(move || pool.work()) {
            Ok(()) => add(&self.totals.workers_created),
            Err(errno) => {
                add(&self.totals.workers_failed);
                let (stranded, call) = self.lock().create_failed();
                self.carry_out(call);
                for work in stranded {
                    work.failed(errno);
                }
            }
        }
    }

    /// The life of a worker.
    fn work(self: Arc<Self>) {
        let me =
            Arc::new(Worker { parker: Parker::default(), interrupt: Arc::new(Interrupt::new()) });
        let mut signo = me.interrupt.attach();
        self.enroll(&me);

        let mut state = self.lock();
        state.arrived();
        loop {
            if let Some((index, work)) = state.take(&me) {
                // What is left may need another worker, and this one may block for ever.
                let call = state.call();
                drop(state);
                self.carry_out(call);
                me.interrupt.refresh(&mut signo);
                self.run(&me, work);
                state = self.lock();
                state.finish(index);
                if me.interrupt.is_raised() {
                    drop(state);
                    me.interrupt.settle();
                    state = self.lock();
                }
                continue;
            }
            if state.is_closed() {
                break;
            }
            me.parker.reset();
            state.sleep(&me);
            drop(state);
            let timed_out = me.parker.park(self.idle_timeout);
            state = self.lock();
            if !state.stop_sleeping(&me) {
                state.arrived();
            } else if timed_out {
                break;
            }
        }
        state.leave();
        drop(state);
        self.strike_off(&me);
        me.interrupt.detach();
    }

    fn run(&self, me: &Worker, work: Box<dyn Work>) {
        // A cancel between the work's leaving the queue and here.
        let body = || {
            if me.interrupt.cancelled() { work.cancelled() } else { work.run(&me.interrupt) }
        };
        // The panic has been reported by its hook; the work's destructors have run; the worker goes
        // on for the others.
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            add(&self.totals.panics);
        }
    }
}
