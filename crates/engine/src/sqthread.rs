//! The handle of an SQ thread (SQPOLL): which rings it serves, and how to wake it.
//!
//! What the thread does is in `sqpoll.rs`; a ring context only needs to reach it.
#![allow(unsafe_code)]

use crate::sys::sys;
use soloring_abi::Errno;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

/// One SQ thread and the rings it serves.
pub struct SqThread {
    rings: Mutex<Vec<u64>>,
    /// Futex: changes with every wake-up call.
    pub(crate) wakeups: AtomicU32,
    pub(crate) asleep: AtomicBool,
    /// Futex: changes whenever entries were taken, for SQ_WAIT.
    pub(crate) progress: AtomicU32,
    pub(crate) idle_ns: u64,
    pid: u32,
}

impl SqThread {
    /// A handle for a thread that goes to sleep after `idle_ms` without work; 0 means one second.
    pub fn new(idle_ms: u32) -> SqThread {
        let idle_ms = if idle_ms == 0 { 1000 } else { idle_ms };
        SqThread {
            rings: Mutex::new(Vec::new()),
            wakeups: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
            progress: AtomicU32::new(0),
            idle_ns: idle_ms as u64 * 1_000_000,
            pid: std::process::id(),
        }
    }

    /// Whether the thread runs in this process: a forked child has only its descriptor.
    pub fn is_here(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn rings(&self) -> MutexGuard<'_, Vec<u64>> {
        self.rings.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn attach(&self, id: u64) {
        self.rings().push(id);
        self.wake();
    }

    /// Takes a ring out; the thread ends with its last one. In a forked child there is no thread, and the
    /// mutex may be held for good: the parent's SQ thread can have been inside at the fork.
    pub fn detach(&self, id: u64) {
        if !self.is_here() {
            return;
        }
        self.rings().retain(|ring| *ring != id);
        self.wake();
        self.note_progress();
    }

    /// IORING_ENTER_SQ_WAKEUP.
    pub fn wake(&self) {
        // Release: pairs with the acquire in `sleep`; what was asked for before is seen after.
        self.wakeups.fetch_add(1, Ordering::Release);
        futex_wake(&self.wakeups);
    }

    pub(crate) fn note_progress(&self) {
        // Release: pairs with the acquire in `wait_for_room`.
        self.progress.fetch_add(1, Ordering::Release);
        futex_wake(&self.progress);
    }
}

pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE takes the word's address and does not access it.
    let _ = unsafe {
        sys!(futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX)
    };
}

pub(crate) fn futex_wait(word: &AtomicU32, seen: u32) -> Result<(), Errno> {
    // SAFETY: the word lives as long as `word` is borrowed; the kernel only reads it.
    let waited = unsafe {
        sys!(futex, word.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, seen, 0usize)
    };
    match waited {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(e) => Err(e),
    }
}
