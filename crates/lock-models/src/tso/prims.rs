//! The shim over a simulated x86: each thread's stores wait in a buffer of its own, in order, and reach
//! memory at random moments. The heavy fence drains the buffers of *all* threads, as membarrier does;
//! the light fence does nothing, as on the machine. (It forbids the compiler to reorder; the simulator
//! executes in program order anyway.)

pub use std::sync::atomic::Ordering;

use super::token::ThreadToken;
use super::tuning::Tuning;
use crate::trace::{Kind, report, say};
use shuttle::rand::{Rng, thread_rng};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// What the foreign locker's fence does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fences {
    /// membarrier: every thread of the process passes a full barrier.
    Membarrier,
    /// Spoiled: an ordinary full fence, which only drains the caller's own buffer.
    OwnBufferOnly,
}

/// How often the simulator looks at the buffers between two steps of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steps {
    /// A buffered store reaches memory soon.
    Prompt,
    /// A buffered store may wait for many steps of the other threads.
    Lazy,
}

const THREADS_MAX: usize = 8;

type Memory = Arc<Cell64>;

/// A word of memory. One thread of the machine runs all threads of the model.
#[derive(Debug)]
struct Cell64(std::sync::atomic::AtomicU64);

struct Machine {
    buffers: [VecDeque<(Memory, u64)>; THREADS_MAX],
    fences: Fences,
    steps: Steps,
}

thread_local! {
    static MACHINE: RefCell<Machine> = const {
        RefCell::new(Machine {
            buffers: [const { VecDeque::new() }; THREADS_MAX],
            fences: Fences::Membarrier,
            steps: Steps::Prompt,
        })
    };
}

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

shuttle::thread_local! {
    static THREAD: Cell<(u64, &'static str)> = Cell::new((0, "nobody"));
}

/// To be called at the start of each execution: empty buffers.
pub fn boot(fences: Fences, steps: Steps) {
    MACHINE.with_borrow_mut(|machine| {
        machine.buffers.iter_mut().for_each(VecDeque::clear);
        machine.fences = fences;
        machine.steps = steps;
    });
}

/// To be called first by each thread of a model.
pub fn set_thread(id: u64, name: &'static str) {
    assert!((id as usize) < THREADS_MAX);
    THREAD.with(|thread| thread.set((id, name)));
}

fn me() -> (usize, &'static str) {
    THREAD.with(|thread| (thread.get().0 as usize, thread.get().1))
}

/// Every thread of a model has its token from the start.
pub(crate) fn token_bits() -> u64 {
    current_thread().bits()
}

pub(crate) fn current_thread() -> ThreadToken {
    ThreadToken::from_number(me().0 as u64).expect("set_thread was called")
}

pub(crate) fn spin_loop() {
    step();
}

/// Another thread may run here, and buffered stores may reach memory.
fn step() {
    shuttle::thread::yield_now();
    let mut rng = thread_rng();
    MACHINE.with_borrow_mut(|machine| {
        let odds = if machine.steps == Steps::Prompt { 2 } else { 12 };
        for buffer in &mut machine.buffers {
            if !buffer.is_empty() && rng.gen_range(0..odds) == 0 {
                commit_oldest(buffer);
            }
        }
    });
}

fn commit_oldest(buffer: &mut VecDeque<(Memory, u64)>) {
    if let Some((memory, value)) = buffer.pop_front() {
        memory.0.store(value, Ordering::Relaxed);
    }
}

fn drain(which: impl Fn(usize) -> bool) {
    MACHINE.with_borrow_mut(|machine| {
        for (_, buffer) in machine.buffers.iter_mut().enumerate().filter(|(i, _)| which(*i)) {
            while !buffer.is_empty() {
                commit_oldest(buffer);
            }
        }
    });
}

/// What a locked instruction does before it acts, and a context switch.
pub fn drain_own() {
    let own = me().0;
    drain(|thread| thread == own);
}

/// An atomic as x86 has it: plain stores are buffered, read-modify-writes drain the buffer.
#[derive(Debug)]
pub struct AtomicU64(Memory);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self(Arc::new(Cell64(value.into())))
    }

    pub fn load(&self, _: Ordering) -> u64 {
        step();
        let own = me().0;
        MACHINE.with_borrow(|machine| {
            let newest = machine.buffers[own].iter().rev().find(|(m, _)| Arc::ptr_eq(m, &self.0));
            newest.map_or_else(|| self.in_memory(), |(_, value)| *value)
        })
    }

    pub fn store(&self, value: u64, _: Ordering) {
        step();
        let own = me().0;
        MACHINE.with_borrow_mut(|machine| machine.buffers[own].push_back((self.0.clone(), value)));
    }

    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        step();
        drain_own();
        self.0.0.swap(value, order)
    }

    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        step();
        drain_own();
        self.0.0.compare_exchange(current, new, success, failure)
    }

    fn in_memory(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }
}

/// No spinning: a sleep is the interesting case.
pub(crate) const SPINS_MAX: u32 = 0;

/// One look: both answers of the owner's are interesting.
pub(crate) fn handshake_looks() -> u32 {
    1
}

/// The bias is given up after two foreign acquisitions without an owner's, and soon taken back.
pub(crate) fn tuning() -> Tuning {
    Tuning { foreign_window: 2, saved_ns: 1, owner_window: 1, back_factor: 1, losses_max: 1 }
}

pub(crate) fn light_fence() {}

pub(crate) fn heavy_fence() -> bool {
    step();
    match MACHINE.with_borrow(|machine| machine.fences) {
        Fences::Membarrier => {
            say(me().1, "closes the owner's path, issues membarrier");
            drain(|_| true);
        }
        Fences::OwnBufferOnly => {
            say(me().1, "closes the owner's path, issues an ordinary full fence");
            drain_own();
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

/// A word to sleep on. System calls that sleep or wake are full barriers for their caller.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU64,
    queue: shuttle::sync::Mutex<()>,
    woken: shuttle::sync::Condvar,
}

impl Futex {
    pub(crate) fn new(value: u64) -> Self {
        Self {
            word: AtomicU64::new(value),
            queue: shuttle::sync::Mutex::new(()),
            woken: shuttle::sync::Condvar::new(),
        }
    }

    pub(crate) fn wait(&self, expected: u64) {
        step();
        drain_own();
        if MACHINE.with_borrow(|machine| machine.fences == Fences::OwnBufferOnly) {
            // With the spoiled fence wake-ups get lost as well. Two inside is the finding that is wanted.
            return;
        }
        let queue = self.queue.lock().unwrap();
        if self.word.in_memory() as u32 == expected as u32 {
            say(me().1, "sleeps");
            drop(self.woken.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake_one(&self) {
        step();
        drain_own();
        let _queue = self.queue.lock().unwrap();
        say(me().1, "wakes a sleeper");
        self.woken.notify_one();
    }
}

impl Deref for Futex {
    type Target = AtomicU64;
    fn deref(&self) -> &AtomicU64 {
        &self.word
    }
}

/// Who is inside. Never contended: one thread of the machine runs all threads of the model.
type Occupant = Arc<Mutex<Option<&'static str>>>;

/// The guarded value; knows who is inside.
#[derive(Debug)]
pub(crate) struct ValueCell<T> {
    value: UnsafeCell<T>,
    occupant: Occupant,
}

impl<T> ValueCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), occupant: Arc::default() }
    }

    pub(crate) fn access(&self) -> ValueAccess<T> {
        let who = me().1;
        if let Some(other) = self.occupant.lock().unwrap().replace(who) {
            report(Kind::TwoInside, format!("{who} is inside while {other} is"));
        }
        ValueAccess { value: self.value.get(), occupant: self.occupant.clone() }
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

#[derive(Debug)]
pub(crate) struct ValueAccess<T> {
    value: *mut T,
    occupant: Occupant,
}

impl<T> ValueAccess<T> {
    pub(crate) fn as_ptr(&self, _: &ValueCell<T>) -> *mut T {
        self.value
    }
}

impl<T> Drop for ValueAccess<T> {
    fn drop(&mut self) {
        *self.occupant.lock().unwrap() = None;
    }
}
