//! The futex mutex underneath: for foreign lockers, and for rings without an owner.
//!
//! Its word holds the holder's token, so that "locked by me" is decided by the same instruction that
//! fails to lock: a signal handler can come between any two instructions of its own thread.
//!
//! | bits  | meaning |
//! |-------|---------|
//! | 0     | somebody may be asleep on the word |
//! | 8..64 | the holder's token; 0: free (bit 0 is then 0) |

use super::hold::Reentered;
use super::prims::{Futex, Ordering, SPINS_MAX, now_ns, spin_loop};
use super::token::ThreadToken;

const SLEEPERS: u64 = 1;

#[derive(Debug)]
pub(crate) struct Mutex {
    word: Futex,
}

impl Mutex {
    pub(crate) fn new() -> Self {
        Self { word: Futex::new(0) }
    }

    /// Locks; returns the nanoseconds waited (0: not at all). `before_sleep` is called before each sleep.
    #[inline]
    pub(crate) fn lock(&self, me: ThreadToken, before_sleep: impl Fn()) -> Result<u64, Reentered> {
        // Acquire pairs with the Release in `unlock`: the last holder's critical section happens before ours.
        match self.word.compare_exchange(0, me.bits(), Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(0),
            Err(word) if word & !SLEEPERS == me.bits() => Err(Reentered),
            Err(_) => Ok(self.lock_slow(me, before_sleep)),
        }
    }

    /// Locks if free. `None`: another thread holds it.
    pub(crate) fn try_lock(&self, me: ThreadToken) -> Result<Option<()>, Reentered> {
        // Acquire: as in `lock`.
        match self.word.compare_exchange(0, me.bits(), Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Some(())),
            Err(word) if word & !SLEEPERS == me.bits() => Err(Reentered),
            Err(_) => Ok(None),
        }
    }

    /// The caller is not the holder (`lock` has looked).
    #[cold]
    fn lock_slow(&self, me: ThreadToken, before_sleep: impl Fn()) -> u64 {
        let start = now_ns();
        let mut claim = me.bits();
        let mut spins = SPINS_MAX;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == 0 {
                // Acquire: as in `lock`.
                let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
                if self.word.compare_exchange(0, claim, success, failure).is_ok() {
                    return now_ns().wrapping_sub(start).max(1);
                }
                continue;
            }
            if word & SLEEPERS == 0 {
                if spins > 0 {
                    spins -= 1;
                    spin_loop();
                    continue;
                }
                let (cas, relaxed) = (word | SLEEPERS, Ordering::Relaxed);
                if self.word.compare_exchange(word, cas, relaxed, relaxed).is_err() {
                    continue;
                }
            }
            before_sleep();
            self.word.wait(word | SLEEPERS);
            // Others may have slept beside us: whoever locks after sleeping says so in the word.
            claim = me.bits() | SLEEPERS;
        }
    }

    #[inline]
    pub(crate) fn unlock(&self) {
        // Release pairs with the Acquire in `lock`.
        if self.word.swap(0, Ordering::Release) & SLEEPERS != 0 {
            self.word.wake_one();
        }
    }

    /// In a forked child: free, whoever held it in the parent.
    pub(crate) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
    }
}
