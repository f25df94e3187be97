//! The kernel as far as the pool sees it: futexes, threads, signals.
#![allow(unsafe_code)]

use crate::prims::AtomicU32;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// One per execution of a scenario.
pub(crate) struct Machine {
    futexes: Mutex<()>,
    futex_changed: Condvar,
    threads: Mutex<HashMap<i32, Thread>>,
    signalled: Condvar,
    /// Whether thread creation may fail.
    pub(crate) short_of_threads: Cell<bool>,
    /// Whether timer creation may fail.
    pub(crate) short_of_timers: Cell<bool>,
}

#[derive(Default)]
struct Thread {
    pending: bool,
}

// SAFETY: shuttle runs every task of an execution on one OS thread; the cells are set before the
// second task exists.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

thread_local! {
    static MACHINE: Cell<Option<&'static Machine>> = const { Cell::new(None) };
}

shuttle::thread_local! {
    static TID: Cell<i32> = Cell::new(0);
}

pub(crate) fn machine() -> &'static Machine {
    MACHINE.get().expect("a scenario has begun")
}

/// Begins a scenario on a fresh machine.
pub(crate) fn boot() -> &'static Machine {
    let machine = Box::leak(Box::new(Machine {
        futexes: Mutex::new(()),
        futex_changed: Condvar::new(),
        threads: Mutex::default(),
        signalled: Condvar::new(),
        short_of_threads: Cell::new(false),
        short_of_timers: Cell::new(false),
    }));
    MACHINE.set(Some(machine));
    machine
}

pub(crate) fn chance(one_in: u32) -> bool {
    thread_rng().gen_range(0..one_in) == 0
}

pub(crate) fn current_tid() -> i32 {
    TID.with(Cell::get)
}

impl Machine {
    /// The calling task becomes thread `tid`.
    pub(crate) fn begin_thread(&self, tid: i32) {
        TID.with(|t| t.set(tid));
        self.threads.lock().unwrap().insert(tid, Thread::default());
    }

    pub(crate) fn end_thread(&self) {
        self.threads.lock().unwrap().remove(&current_tid());
    }

    /// Returns whether a timeout ended the sleep: it may do so at any time.
    pub(crate) fn futex_wait(&self, word: &AtomicU32, expected: u32) -> bool {
        let mut guard = self.futexes.lock().unwrap();
        let mut turns = chance(2).then(|| thread_rng().gen_range(0..8));
        while word.load(Relaxed) == expected {
            match &mut turns {
                None => guard = self.futex_changed.wait(guard).unwrap(),
                Some(0) => return true,
                Some(turns) => {
                    *turns -= 1;
                    drop(guard);
                    shuttle::thread::yield_now();
                    guard = self.futexes.lock().unwrap();
                }
            }
        }
        false
    }

    pub(crate) fn futex_wake(&self) {
        let _guard = self.futexes.lock().unwrap();
        self.futex_changed.notify_all();
    }

    /// A signal for thread `tid`; false when there is no such thread.
    pub(crate) fn signal(&self, tid: i32) -> bool {
        let mut threads = self.threads.lock().unwrap();
        let Some(thread) = threads.get_mut(&tid) else { return false };
        thread.pending = true;
        self.signalled.notify_all();
        true
    }

    /// Any system call: what is pending is delivered on the way back.
    pub(crate) fn deliver(&self) {
        if let Some(thread) = self.threads.lock().unwrap().get_mut(&current_tid()) {
            thread.pending = false;
        }
    }

    /// A call that blocks until a signal interrupts it. One that came a moment before may have been
    /// delivered already, to a handler that does nothing.
    pub(crate) fn block_until_signal(&self) {
        let mut threads = self.threads.lock().unwrap();
        let me = current_tid();
        if chance(2) {
            threads.get_mut(&me).expect("a running thread").pending = false;
        }
        while !threads[&me].pending {
            threads = self.signalled.wait(threads).unwrap();
        }
        threads.get_mut(&me).expect("a running thread").pending = false;
    }

    /// A call that need not block, and tells whether a signal interrupted it.
    pub(crate) fn call_interrupted(&self) -> bool {
        let mut threads = self.threads.lock().unwrap();
        let thread = threads.get_mut(&current_tid()).expect("a running thread");
        std::mem::take(&mut thread.pending)
    }
}
