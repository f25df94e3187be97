//! The shim under loom: modelled atomics, cells that check access, and futexes made of a condition
//! variable. Loom knows no membarrier: both fences are `fence(SeqCst)` there, and each can be left out.

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

use super::token::ThreadToken;
use super::tuning::Tuning;
use crate::trace::say;
use std::cell::Cell;
use std::ops::Deref;

/// Which fences the model has. The complete lock has both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fences {
    Both,
    WithoutLight,
    WithoutHeavy,
}

/// How the bias policy is tuned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tuned {
    /// The bias is never given up: scenarios that are about something else.
    Steady,
    /// Given up at a foreign acquisition that finds fewer than two new ones of the owner, and
    /// taken back at the owner's next one.
    Jumpy,
}

thread_local! {
    static FENCES: Cell<Fences> = const { Cell::new(Fences::Both) };
    static TUNED: Cell<Tuned> = const { Cell::new(Tuned::Steady) };
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

/// For the check that runs on this thread of the machine.
pub fn set_fences(fences: Fences) {
    FENCES.set(fences);
}

/// For the check that runs on this thread of the machine.
pub fn set_tuning(tuned: Tuned) {
    TUNED.set(tuned);
}

loom::thread_local! {
    static THREAD: Cell<(u64, &'static str)> = Cell::new((0, "nobody"));
}

/// To be called first by each thread of a model.
pub fn set_thread(id: u64, name: &'static str) {
    THREAD.with(|thread| thread.set((id, name)));
}

fn me() -> &'static str {
    THREAD.with(|thread| thread.get().1)
}

/// Every thread of a model has its token from the start.
pub(crate) fn token_bits() -> u64 {
    current_thread().bits()
}

pub(crate) fn current_thread() -> ThreadToken {
    let id = THREAD.with(|thread| thread.get().0);
    ThreadToken::from_number(id).expect("set_thread was called")
}

/// No spinning: a sleep is the interesting case.
pub(crate) const SPINS_MAX: u32 = 0;

/// One look: both answers of the owner's are interesting.
pub(crate) fn handshake_looks() -> u32 {
    1
}

pub(crate) fn tuning() -> Tuning {
    let foreign_window = match TUNED.get() {
        Tuned::Steady => u64::MAX,
        Tuned::Jumpy => 1,
    };
    Tuning { foreign_window, saved_ns: 1, owner_window: 1, back_factor: 0, losses_max: 1 }
}

pub(crate) fn light_fence() {
    if FENCES.get() != Fences::WithoutLight {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

pub(crate) fn heavy_fence() -> bool {
    if FENCES.get() != Fences::WithoutHeavy {
        say(me(), "closes the owner's path, issues the heavy fence");
        loom::sync::atomic::fence(Ordering::SeqCst);
    } else {
        say(me(), "closes the owner's path, issues no heavy fence");
    }
    true
}

pub(crate) fn heavy_available() -> bool {
    true
}

pub(crate) fn mutex_forced() -> bool {
    false
}

pub(crate) fn prepare() {}

pub(crate) fn note_held(_delta: isize) {}

/// Every look at the clock takes a nanosecond.
pub(crate) fn now_ns() -> u64 {
    CLOCK.set(CLOCK.get() + 1);
    CLOCK.get()
}

/// A word to sleep on. The kernel's bucket lock is `queue`.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU64,
    queue: loom::sync::Mutex<()>,
    woken: loom::sync::Condvar,
}

impl Futex {
    pub(crate) fn new(value: u64) -> Self {
        Self {
            word: AtomicU64::new(value),
            queue: loom::sync::Mutex::new(()),
            woken: loom::sync::Condvar::new(),
        }
    }

    pub(crate) fn wait(&self, expected: u64) {
        let queue = self.queue.lock().unwrap();
        if self.word.load(Ordering::SeqCst) as u32 == expected as u32 {
            say(me(), "sleeps");
            drop(self.woken.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake_one(&self) {
        let _queue = self.queue.lock().unwrap();
        say(me(), "wakes a sleeper");
        self.woken.notify_one();
    }
}

impl Deref for Futex {
    type Target = AtomicU64;
    fn deref(&self) -> &AtomicU64 {
        &self.word
    }
}

#[derive(Debug)]
pub(crate) struct ValueCell<T>(loom::cell::UnsafeCell<T>);

impl<T> ValueCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }
    /// From now until the access is dropped, loom fails the execution if another access exists or is
    /// not ordered before or after this one.
    pub(crate) fn access(&self) -> ValueAccess<T> {
        ValueAccess(self.0.get_mut())
    }
    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

#[derive(Debug)]
pub(crate) struct ValueAccess<T>(loom::cell::MutPtr<T>);

impl<T> ValueAccess<T> {
    pub(crate) fn as_ptr(&self, _: &ValueCell<T>) -> *mut T {
        self.0.with(|ptr| ptr)
    }
}
