//! A 64-bit word that threads can sleep on, by raw futex calls on its low half.
#![allow(unsafe_code)]

use super::words::AtomicU64;
use std::ops::Deref;
use syscalls::{Errno, Sysno, syscall};

/// `FUTEX_WAIT` and `FUTEX_WAKE`, with `FUTEX_PRIVATE_FLAG` (linux/futex.h).
const WAIT_PRIVATE: usize = 128;
const WAKE_PRIVATE: usize = 1 | 128;

/// Holders never block, so a sleep that lasts this long is a rare one.
const SLEEP_NS_MAX: i64 = 5_000_000;

/// Not where a futex address may lie: the kernel compares 32 bits, of which the low half is taken.
const LOW_HALF_OFFSET: usize = if cfg!(target_endian = "big") { 4 } else { 0 };

/// An atomic word with `wait` and `wake_one`; everything else is the atomic's own.
#[derive(Debug)]
pub(crate) struct Futex(AtomicU64);

impl Futex {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Sleeps while the low 32 bits are those of `expected`, until a wake. May return at any time
    /// for no reason: callers look at the word again. One reason is that time is up: a waker that is stopped,
    /// or interrupted by a signal handler that runs for long, between its change of the word and its wake
    /// must not keep others out of a lock that is free.
    pub(crate) fn wait(&self, expected: u64) {
        let longest = [0i64, SLEEP_NS_MAX];
        // SAFETY: the address is half of our own word, aligned to 4, and lives as long as `self`; the timeout
        // is a timespec that outlives the call. The kernel only reads both.
        let answer = unsafe {
            let (word, expected) = (self.low_half(), expected as u32 as usize);
            syscall!(Sysno::futex, word, WAIT_PRIVATE, expected, longest.as_ptr())
        };
        debug_assert!(
            matches!(answer, Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT)),
            "futex wait: {answer:?}"
        );
    }

    /// Wakes at most one sleeper.
    pub(crate) fn wake_one(&self) {
        // SAFETY: the address only names a wait queue here, no memory is accessed through it.
        let answer = unsafe { syscall!(Sysno::futex, self.low_half(), WAKE_PRIVATE, 1) };
        debug_assert!(answer.is_ok(), "futex wake: {answer:?}");
    }

    fn low_half(&self) -> usize {
        self.0.as_ptr() as usize + LOW_HALF_OFFSET
    }
}

impl Deref for Futex {
    type Target = AtomicU64;
    #[inline(always)]
    fn deref(&self) -> &AtomicU64 {
        &self.0
    }
}
