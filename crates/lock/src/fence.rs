//! The asymmetric pair of fences: light for the owner's path, heavy for everybody else's.
//!
//! A heavy fence in one thread and a light fence in another order the memory accesses around them as
//! two `fence(SeqCst)` would (membarrier(2): the expedited command makes every running thread of the
//! process pass a full barrier; a thread that is not running passes one when it is switched in).
//! Two light fences order nothing between them.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};
use syscalls::{Sysno, syscall};

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and its registration (linux/membarrier.h).
const PRIVATE_EXPEDITED: usize = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: usize = 1 << 4;

const UNKNOWN: u8 = 0;
const REGISTERED: u8 = 1;
const REFUSED: u8 = 2;

/// Whether this process may use `membarrier(PRIVATE_EXPEDITED)`.
static SUPPORT: AtomicU8 = AtomicU8::new(UNKNOWN);

/// What the kernel said to our registration for `membarrier`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceSupport {
    /// Not asked yet.
    Unknown,
    /// Registered: locks can be biased.
    Registered,
    /// Refused (missing, or forbidden by a sandbox), at registration or at a later use: every lock
    /// is a mutex from then on.
    Refused,
}

/// What the kernel said to our registration for `membarrier`.
pub fn fence_support() -> FenceSupport {
    match SUPPORT.load(Ordering::Relaxed) {
        UNKNOWN => FenceSupport::Unknown,
        REGISTERED => FenceSupport::Registered,
        _ => FenceSupport::Refused,
    }
}

/// The owner's half: forbids the compiler to move memory accesses across it, and is no instruction.
#[inline(always)]
pub fn light_fence() {
    // SeqCst: its partner is the heavy fence of another thread; see the head of this file.
    compiler_fence(Ordering::SeqCst);
}

/// Everybody else's half. `false`: the kernel refused (a sandbox came up after our registration);
/// a slower substitute has then been used for this one time, and no lock may be biased any more.
pub(crate) fn heavy_fence() -> bool {
    // SAFETY: membarrier reads and writes no memory of ours.
    if unsafe { syscall!(Sysno::membarrier, PRIVATE_EXPEDITED, 0, 0) }.is_ok() {
        // SeqCst: the partner of every light fence. The call is a full barrier for the caller; the compiler
        // does not know that.
        compiler_fence(Ordering::SeqCst);
        return true;
    }
    SUPPORT.store(REFUSED, Ordering::Relaxed);
    substitute_fence();
    false
}

/// The heavy half for other pairs than the lock's own, by whatever means there are: one thread calls this
/// between a store and a load, and another has a [`light_fence`] between its own two; then not both loads
/// miss the other's store. Takes microseconds, or two milliseconds where membarrier is missing.
pub fn full_fence_for_all() {
    if !(heavy_available() && heavy_fence()) {
        substitute_fence();
    }
}

/// How often a foreign locker looks whether the owner has seen the path closed, before it issues the
/// heavy fence: for about a microsecond.
#[inline]
pub(crate) fn handshake_looks() -> u32 {
    40
}

/// Used once per lock at most: when membarrier is refused although it was granted before. The owner
/// may at this moment have its `busy = 1` still in the store buffer of its core; store buffers drain
/// within microseconds whatever the thread does next, so after two milliseconds what the owner wrote
/// before our fence is visible, and what it reads afterwards sees what we wrote before.
#[cold]
fn substitute_fence() {
    // SeqCst, here and below: in the place of the heavy fence, so the partner is the owner's light fence.
    std::sync::atomic::fence(Ordering::SeqCst);
    let two_ms = [0i64, 2_000_000];
    // SAFETY: the kernel reads one timespec from `two_ms`, which outlives the call; the null
    // pointer says that the rest of an interrupted sleep is not wanted.
    let _ = unsafe { syscall!(Sysno::nanosleep, two_ms.as_ptr(), 0) };
    // SeqCst: as above.
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// Whether locks may be biased; registers on the first call.
pub(crate) fn heavy_available() -> bool {
    match SUPPORT.load(Ordering::Relaxed) {
        REGISTERED => true,
        REFUSED => false,
        _ => register(),
    }
}

#[cold]
fn register() -> bool {
    // SAFETY: membarrier reads and writes no memory of ours.
    let answer = unsafe { syscall!(Sysno::membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) };
    let state = if answer.is_ok() { REGISTERED } else { REFUSED };
    // Relaxed suffices: two threads that race here ask the same question and get the same answer,
    // and nothing else is published by this word. A refusal seen meanwhile by `heavy_fence` stays.
    let _ = SUPPORT.compare_exchange(UNKNOWN, state, Ordering::Relaxed, Ordering::Relaxed);
    SUPPORT.load(Ordering::Relaxed) == REGISTERED
}

/// In a forked child: the registration belongs to the parent's address space.
pub(crate) fn forget_registration() {
    SUPPORT.store(UNKNOWN, Ordering::Relaxed);
}
