//! The bias word: to whom the lock is biased, and whether a holder of the mutex has closed that path.
//!
//! | bits  | meaning |
//! |-------|---------|
//! | 0     | closed: the owner may not use the biased path now |
//! | 7     | which owner slot the owner writes |
//! | 8..64 | the owner's token; 0: nobody, the lock is a mutex (then closed is set, slot is not) |
//!
//! A thread that has no token yet may compare with 0: no word is 0.
//!
//! Written only by the holder of the mutex; read by anyone. No other file loads or stores it.

use super::prims::{AtomicU64, Ordering};
use super::token::ThreadToken;

const CLOSED: u64 = 1;
const SLOT: u64 = 1 << 7;
const UNBIASED: u64 = CLOSED;

/// Which of the lock's two owner slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotIndex {
    First,
    Second,
}

/// What the word said at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot(u64);

impl Snapshot {
    /// Nobody owns the lock.
    #[inline(always)]
    pub(crate) fn is_unbiased(self) -> bool {
        self.0 == UNBIASED
    }

    /// The biased path is open to the thread with these token bits (0: to no such thread), which is the
    /// lock's first owner.
    #[inline(always)]
    pub(crate) fn is_open_to_first(self, bits: u64) -> bool {
        self.0 == bits
    }

    /// The same for the lock's second owner.
    #[inline(always)]
    pub(crate) fn is_open_to_second(self, bits: u64) -> bool {
        self.0 == bits | SLOT
    }

    #[inline(always)]
    pub(crate) fn is_owned_by(self, me: ThreadToken) -> bool {
        self.0 & !(SLOT | CLOSED) == me.bits()
    }

    #[inline(always)]
    pub(crate) fn slot(self) -> SlotIndex {
        if self.0 & SLOT == 0 { SlotIndex::First } else { SlotIndex::Second }
    }

    #[inline(always)]
    pub(crate) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }
}

/// The word itself.
#[derive(Debug)]
pub(crate) struct BiasWord(AtomicU64);

impl BiasWord {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(UNBIASED))
    }

    /// A hint for anyone; the truth for the holder of the mutex, since nobody else writes.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::Relaxed))
    }

    /// The owner's decisive look, after its `busy` and the light fence: is the word still what it was?
    #[inline(always)]
    #[must_use]
    pub(crate) fn still(&self, seen: Snapshot) -> bool {
        // Acquire pairs with the Release in `reopen`: what the last holder by the mutex did to the
        // state happens before what the owner does now. The order against our own `busy` is not
        // Acquire's to give; it comes from the fences.
        self.0.load(Ordering::Acquire) == seen.0
    }

    /// Closes the biased path. The caller holds the mutex and the word is biased. Relaxed: its order
    /// against the look at `busy` comes from the heavy fence that follows (a foreign locker), or does
    /// not matter (the owner itself, who alone reads the flag to decide anything).
    pub(crate) fn close(&self, seen: Snapshot) {
        self.0.store(seen.0 | CLOSED, Ordering::Relaxed);
    }

    /// Opens the biased path again. The caller holds the mutex and the lock, which is biased.
    #[inline(always)]
    pub(crate) fn reopen(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        debug_assert!(seen != UNBIASED);
        // Release pairs with the Acquire in `still`. Without it the owner could enter and not see what
        // this holder wrote to the state.
        self.0.store(seen & !CLOSED, Ordering::Release);
    }

    /// Makes `owner` the owner, the path still closed: the caller holds the mutex and the lock, and
    /// its release opens it.
    pub(crate) fn set(&self, owner: ThreadToken, slot: SlotIndex) {
        let slot_bit = if slot == SlotIndex::First { 0 } else { SLOT };
        // Relaxed: nobody acts on a closed word but the mutex holders, who synchronise by the mutex.
        self.0.store(owner.bits() | slot_bit | CLOSED, Ordering::Relaxed);
    }

    /// Makes the lock a mutex. The caller holds the mutex and the lock, and the path was closed with a
    /// heavy fence before (or was never open), so no owner can still be on its way in.
    pub(crate) fn clear(&self) {
        self.0.store(UNBIASED, Ordering::Relaxed);
    }
}
