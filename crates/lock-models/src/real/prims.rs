//! The shim under loom: modelled atomics, cells that check access, and futexes made of a condition
//! variable. Loom knows no membarrier: both fences are `fence(SeqCst)` there, and each can be left out.

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::Ordering;

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
    /// Neither, and none is needed: a foreign locker that gets no answer from the owner waits until
    /// the owner has gone for good ([`owner_gone`]).
    OnlyAnswers,
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

/// An atomic word, with a gate before it. Loom remembers only the last access to a word when it looks
/// for other orders to try, so a thread that reads a word and then writes it hides from loom that another
/// thread read it before. All passages through a gate depend on each other, which nothing can
/// hide; and being relaxed they order nothing else.
#[derive(Debug)]
pub(crate) struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    gate: loom::sync::atomic::AtomicUsize,
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self {
            word: loom::sync::atomic::AtomicU64::new(value),
            gate: loom::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn pass(&self) -> &loom::sync::atomic::AtomicU64 {
        signal_point();
        self.pass_in_kernel()
    }

    /// No signal's handler runs while the kernel looks.
    fn pass_in_kernel(&self) -> &loom::sync::atomic::AtomicU64 {
        if GATES.get() {
            self.gate.fetch_add(1, Ordering::Relaxed);
        }
        &self.word
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.pass().load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.pass().store(value, order);
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.pass().swap(value, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.pass().compare_exchange(current, new, success, failure)
    }
}

thread_local! {
    static GATES: Cell<bool> = const { Cell::new(false) };
    static FENCES: Cell<Fences> = const { Cell::new(Fences::Both) };
    static TUNED: Cell<Tuned> = const { Cell::new(Tuned::Steady) };
    static CLOCK: Cell<u64> = const { Cell::new(0) };
    static SIGNAL_AT: Cell<usize> = const { Cell::new(0) };
    static SIGNAL_CAME: Cell<bool> = const { Cell::new(false) };
}

/// For the check that runs on this thread of the machine: gates before the words, or not. With them loom
/// tries every order. Without them it misses some, but a fence beside a gate orders what it
/// would not order on a machine: some mistakes only show without.
pub fn set_gates(gates: bool) {
    GATES.set(gates);
}

/// For the check that runs on this thread of the machine.
pub fn set_fences(fences: Fences) {
    FENCES.set(fences);
}

/// For the check that runs on this thread of the machine.
pub fn set_tuning(tuned: Tuned) {
    TUNED.set(tuned);
}

loom::lazy_static! {
    static ref OWNER_GONE: (loom::sync::Mutex<bool>, loom::sync::Condvar) =
        (loom::sync::Mutex::new(false), loom::sync::Condvar::new());
}

/// In a model with [`Fences::OnlyAnswers`]: the owner will not come any more.
pub fn owner_gone() {
    *OWNER_GONE.0.lock().unwrap() = true;
    OWNER_GONE.1.notify_all();
}

loom::thread_local! {
    static THREAD: Cell<(u64, &'static str)> = Cell::new((0, "nobody"));
    /// What a signal's handler does on this thread, and how many of its steps come first.
    static SIGNAL: Cell<Option<(usize, Handler)>> = Cell::new(None);
}

type Handler = Box<dyn FnOnce()>;

/// For the check that runs on this thread of the machine: before which step, from [`expect_signal`]
/// on, the signal comes.
pub fn set_signal_at(step: usize) {
    SIGNAL_AT.set(step);
}

/// The calling thread of the model gets a signal before that one of its steps (accesses to words of the
/// lock, and light fences) that was set, wherever this is.
pub fn expect_signal(handler: impl FnOnce() + 'static) {
    SIGNAL.with(|signal| signal.set(Some((SIGNAL_AT.get(), Box::new(handler)))));
}

/// The calling thread gets no signal any more.
pub fn end_of_signals() {
    SIGNAL_CAME.set(SIGNAL.with(Cell::take).is_none());
}

/// Whether the signal of the execution that has just ended had come in time.
pub fn signal_came() -> bool {
    SIGNAL_CAME.get()
}

fn signal_point() {
    match SIGNAL.with(Cell::take) {
        None => {}
        Some((0, handler)) => {
            say(me(), "is interrupted by a signal");
            handler();
            say(me(), "goes on where it was interrupted");
        }
        Some((steps, handler)) => SIGNAL.with(|signal| signal.set(Some((steps - 1, handler)))),
    }
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
    signal_point();
    if matches!(FENCES.get(), Fences::Both | Fences::WithoutHeavy) {
        // SeqCst: loom knows no membarrier, so both halves are full fences here. Its partner is the one in
        // `heavy_fence`.
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

pub(crate) fn heavy_fence() -> bool {
    match FENCES.get() {
        Fences::Both | Fences::WithoutLight => {
            say(me(), "has closed the owner's path, issues the heavy fence");
            // SeqCst: its partner is the one in `light_fence`.
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
        Fences::WithoutHeavy => say(me(), "has closed the owner's path, issues no heavy fence"),
        Fences::OnlyAnswers => {
            say(me(), "has closed the owner's path, waits until the owner has gone");
            let mut gone = OWNER_GONE.0.lock().unwrap();
            while !*gone {
                gone = OWNER_GONE.1.wait(gone).unwrap();
            }
        }
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
        // SeqCst pairs with whatever changed the word: the kernel looks under its bucket lock, which the
        // waker takes after its change.
        if self.word.pass_in_kernel().load(Ordering::SeqCst) as u32 == expected as u32 {
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
