//! What a locking scheme has to offer so that the scenarios can be played with it.

use crate::task::Task;
use crate::trace::{Kind, violate};
use loom::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The flags of `io_uring_setup` that matter here.
#[derive(Clone, Copy, Default)]
pub struct Setup {
    pub single_issuer: bool,
    pub sqpoll: bool,
    pub r_disabled: bool,
}

/// On whose behalf the ring is entered. Some schemes treat `io_uring_register` as a case of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Submit,
    Register,
    Other,
}

/// What the code inside the ring can do.
pub trait Inside {
    /// Uses the ring state.
    fn touch(&mut self);
    /// Makes `task` the submitter (set-up's end, or ENABLE_RINGS).
    fn record_submitter(&mut self, task: &Arc<Task>);
}

/// A ring with this scheme's locking.
pub trait Scheme: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    /// Foreign lockers wait until the submitter has run a piece of work for them.
    const PARKS: bool = false;
    /// Not a model, but the lock's own source.
    const REAL: bool = false;
    /// The ring exists; no submitter is recorded yet, unless the scheme does so here.
    fn create(setup: Setup, creator: &Arc<Task>) -> Self;
    /// Enters the ring state, runs `body` there, leaves.
    fn enter(&self, me: &Arc<Task>, entry: Entry, body: &mut dyn FnMut(&mut dyn Inside));
    /// Two rings at once, for CLONE_BUFFERS. `false`: refused with -EEXIST.
    fn enter_two(
        a: &Self,
        b: &Self,
        me: &Arc<Task>,
        body: &mut dyn FnMut(&mut dyn Inside, &mut dyn Inside),
    ) -> bool;
    /// The last close: the ring's own reference to the submitter goes, at the time the scheme chose.
    fn last_close(&self) {}
    /// Nobody will enter any more.
    fn after_last_locker(&self) {}
}

/// The ring state of a model: knows who is inside, and that is what must never be two.
pub struct Site {
    occupant: Mutex<Option<&'static str>>,
    /// A step of the interleaving while inside.
    step: AtomicUsize,
}

impl Default for Site {
    fn default() -> Self {
        Self { occupant: Mutex::new(None), step: AtomicUsize::new(0) }
    }
}

impl Site {
    /// A place where another thread may run, for code that takes no lock.
    pub fn step(&self) {
        self.step.fetch_add(1, Ordering::Relaxed);
    }

    /// `who` uses the state.
    pub fn touch(&self, who: &'static str) {
        let before = self.occupant.lock().unwrap().replace(who);
        if let Some(other) = before {
            violate(Kind::TwoInside, format!("{who} is inside the ring state while {other} is"));
        }
        crate::trace::say(who, "is inside the ring state");
        self.step();
        crate::trace::say(who, "leaves the ring state");
        *self.occupant.lock().unwrap() = None;
    }
}
