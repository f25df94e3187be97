//! Where one idle worker sleeps: a futex word of its own, so that a wake reaches just that one.

use crate::prims::{AtomicU32, Ordering};
use crate::sys::{FutexWait, futex_wait, futex_wake_one};
use std::time::Duration;

const EMPTY: u32 = 0;
const NOTIFIED: u32 = 1;

/// `park` is for the owning worker only; `reset` too, and only while it registers as idle under the
/// pool's mutex; `unpark` is for anyone who took the worker off the idle list.
///
/// The word carries no data: what the worker is woken for lies under the pool's mutex, which it
/// takes next. So every access is Relaxed; that a wake is not lost rests on the futex comparing the
/// word under its own lock. A late `unpark` (the worker timed out, noticed that it had been taken
/// off the list, and went on) leaves a stale NOTIFIED, which costs one needless turn of the
/// worker's loop.
#[derive(Default)]
pub(crate) struct Parker {
    word: AtomicU32,
}

impl Parker {
    pub(crate) fn reset(&self) {
        self.word.store(EMPTY, Ordering::Relaxed);
    }

    /// Sleeps until `unpark`, or until `timeout` has passed: then true.
    pub(crate) fn park(&self, timeout: Duration) -> bool {
        while self.word.load(Ordering::Relaxed) == EMPTY {
            // A signal in between starts the time anew; it is a lower bound.
            if futex_wait(&self.word, EMPTY, Some(timeout)) == FutexWait::TimedOut {
                return true;
            }
        }
        false
    }

    pub(crate) fn unpark(&self) {
        self.word.store(NOTIFIED, Ordering::Relaxed);
        futex_wake_one(&self.word);
    }
}
