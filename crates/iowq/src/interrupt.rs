//! Interrupting the system call that a worker is blocked in.
//!
//! A signal that arrives just before the call starts is spent for nothing. So a raised interrupt
//! goes on: one signal at once, then a kernel timer aimed at the thread repeats it until the work
//! asks [`Interrupt::cancelled`] (which answers true) or ends. The canceller never waits. Where the
//! kernel gives no timer, a short-lived thread repeats it.
//!
//! When the next work of the same worker starts, the timer is gone and no signal is pending:
//! deleting the timer is a system call of the worker itself, and pending signals are delivered on
//! its way back.

use crate::prims::{AtomicU32, Mutex, MutexGuard, Ordering};
use crate::{signal, sys, thread};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Nearly always the first signal does it. Long enough that arming the timer does not make it the
/// processor's next event: reprogramming the clock costs several microseconds in a virtual machine.
const REPEAT_INTERVAL: Duration = Duration::from_millis(5);
/// Of the thread that stands in for the timer; doubled up to `REPEAT_INTERVAL`.
const REPEAT_FIRST: Duration = Duration::from_micros(100);

const CALM: u32 = 0;
const RAISED: u32 = 1;
const ACKNOWLEDGED: u32 = 2;

/// Tells a running work whether a cancel has hit it. One per worker, used for one work after the
/// other.
///
/// `state`: CALM -> RAISED by a canceller under the pool's mutex while the worker runs the work in
/// question; RAISED -> ACKNOWLEDGED and back to CALM by the worker only.
pub struct Interrupt {
    state: AtomicU32,
    target: Mutex<Target>,
}

struct Target {
    /// 0 before the thread runs and from its exit on: nobody signals a thread number that may be
    /// somebody else's.
    tid: i32,
    /// The one signal that the thread has open.
    signo: i32,
    timer: Option<sys::ThreadTimer>,
}

impl Interrupt {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(CALM),
            target: Mutex::new(Target { tid: 0, signo: 0, timer: None }),
        }
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this work was cancelled. True also ends the interruption: calls made from now on are
    /// left alone.
    pub fn cancelled(&self) -> bool {
        // Acquire: pairs with the Release in `raise`, so that what the canceller wrote before is
        // seen.
        match self.state.load(Ordering::Acquire) {
            CALM => false,
            RAISED => {
                self.acknowledge();
                true
            }
            _ => true,
        }
    }

    #[cold]
    fn acknowledge(&self) {
        // The mutex waits for a canceller that is about to signal.
        let mut target = self.target();
        self.state.store(ACKNOWLEDGED, Ordering::Relaxed);
        target.calm();
    }

    /// The cancelling side. The caller holds the pool's mutex, and the worker runs the work that is
    /// meant; until the `Raise` is spent the worker cannot end it and go on to another. `None` when
    /// that has been done for this work already.
    pub(crate) fn raise(self: &Arc<Self>) -> Option<Raise<'_>> {
        // Not CALM while it runs: raised for this very work, since the worker calms it between two.
        if self.state.load(Ordering::Relaxed) != CALM {
            return None;
        }
        let target = self.target();
        // Release: pairs with the Acquire in `cancelled`.
        self.state.store(RAISED, Ordering::Release);
        Some(Raise { of: self, target })
    }

    /// Repeats the signal without a kernel timer (RLIMIT_SIGPENDING used up, or timer_create
    /// refused by a sandbox).
    #[cold]
    fn repeat_from_thread(self: &Arc<Self>) {
        let this = Arc::clone(self);
        // When this fails too, the one signal of `raise` has to do; nothing else is left to try.
        let _ = thread::spawn(move || {
            let mut pause = REPEAT_FIRST;
            loop {
                thread::sleep(pause);
                pause = (pause * 2).min(REPEAT_INTERVAL);
                let target = this.target();
                // CALM and RAISED again for the next work is possible meanwhile; that one wants the
                // signal as well.
                if target.tid == 0 || this.state.load(Ordering::Relaxed) != RAISED {
                    return;
                }
                if signal::reserve() == Some(target.signo) {
                    let _ = sys::tgkill(target.tid, target.signo);
                }
            }
        });
    }

    /// Calls `f` with the worker's thread number while that cannot become somebody else's; not at
    /// all when the thread is gone.
    pub(crate) fn with_tid(&self, f: impl FnOnce(i32)) {
        let target = self.target();
        if target.tid != 0 {
            f(target.tid);
        }
    }

    /// The worker, first thing on its thread.
    pub(crate) fn attach(&self) -> i32 {
        let signo = signal::reserve().unwrap_or(0);
        sys::set_sigmask(signal::worker_mask(signo));
        let mut target = self.target();
        target.tid = sys::gettid();
        target.signo = signo;
        signo
    }

    /// The worker, before a work: follows a change of the reserved signal.
    pub(crate) fn refresh(&self, signo_seen: &mut i32) {
        let signo = signal::current();
        if signo != *signo_seen {
            *signo_seen = signo;
            sys::set_sigmask(signal::worker_mask(signo));
            self.target().signo = signo;
        }
    }

    /// Whether the worker has to `settle`. The worker, when its work has ended, so that nobody can
    /// raise for that work any more.
    pub(crate) fn is_raised(&self) -> bool {
        self.state.load(Ordering::Relaxed) != CALM
    }

    /// The worker, before its next work. Waits for a canceller that is about to signal.
    #[cold]
    pub(crate) fn settle(&self) {
        let mut target = self.target();
        self.state.store(CALM, Ordering::Relaxed);
        target.calm();
    }

    /// The worker, last thing on its thread.
    pub(crate) fn detach(&self) {
        let mut target = self.target();
        target.calm();
        target.tid = 0;
    }
}

/// A cancel on its way: marked, and about to be signalled. Needs the pool's mutex no longer.
#[must_use]
pub(crate) struct Raise<'a> {
    of: &'a Arc<Interrupt>,
    target: MutexGuard<'a, Target>,
}

impl Raise<'_> {
    /// Sees to the signals. Returns whether one was sent now.
    pub(crate) fn send(mut self) -> bool {
        let Target { tid, signo, .. } = *self.target;
        if tid == 0 || signal::reserve() != Some(signo) {
            return false;
        }
        match sys::ThreadTimer::start(tid, signo, REPEAT_INTERVAL, REPEAT_INTERVAL) {
            Ok(timer) => self.target.timer = Some(timer),
            Err(_) => self.of.repeat_from_thread(),
        }
        // Last: the worker may run at once, in the place of this thread.
        sys::tgkill(tid, signo).is_ok()
    }
}

impl Target {
    /// On the worker's own thread: no more signals, and none pending when it returns.
    fn calm(&mut self) {
        self.timer = None;
        // Any system call delivers what is pending; without a timer the line above made none.
        sys::getpid();
    }
}
