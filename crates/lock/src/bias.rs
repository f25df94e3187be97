//! The bias word: to whom the lock is biased, and whether a holder of the mutex has closed that path.
//!
//! | bits  | meaning |
//! |-------|---------|
//! | 0     | `contended`: the owner may not use the biased path now |
//! | 1     | which owner slot the owner writes |
//! | 2..64 | the owner's token; 0: nobody, the lock is a mutex (bits 0 and 1 are then 0) |
//!
//! Written only by the holder of the mutex; read by anyone. No other file loads or stores it.

use super::prims::{AtomicU64, Ordering};
use super::token::ThreadToken;

const CONTENDED: u64 = 1;
const SLOT: u64 = 2;
const TOKEN_SHIFT: u32 = 2;

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
        self.0 == 0
    }

    /// The biased path is open to this thread.
    #[inline(always)]
    pub(crate) fn is_open_to(self, me: ThreadToken) -> bool {
        self.0 & !SLOT == me.get() << TOKEN_SHIFT
    }

    #[inline(always)]
    pub(crate) fn is_owned_by(self, me: ThreadToken) -> bool {
        self.0 >> TOKEN_SHIFT == me.get()
    }

    #[inline(always)]
    pub(crate) fn slot(self) -> SlotIndex {
        if self.0 & SLOT == 0 { SlotIndex::First } else { SlotIndex::Second }
    }

    #[inline(always)]
    pub(crate) fn is_contended(self) -> bool {
        self.0 & CONTENDED != 0
    }
}

/// The word itself.
#[derive(Debug)]
pub(crate) struct BiasWord(AtomicU64);

impl BiasWord {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A hint for anyone; the truth for the holder of the mutex, since nobody else writes.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::Relaxed))
    }

    /// The owner's decisive look, after `busy = 1` and the light fence: is the word still what it was?
    #[inline(always)]
    #[must_use]
    pub(crate) fn still(&self, seen: Snapshot) -> bool {
        // Acquire pairs with the Release in `reopen` (and `set`): what the last holder by the mutex
        // did to the state happens before what the owner does now. The order against our own `busy = 1`
        // is not Acquire's to give; it comes from the fences.
        self.0.load(Ordering::Acquire) == seen.0
    }

    /// Closes the biased path. The caller holds the mutex and the word is biased. Relaxed: its order
    /// against the look at `busy` comes from the heavy fence that follows (a foreign locker), or does
    /// not matter (the owner itself, who alone reads the flag to decide anything).
    pub(crate) fn close(&self, seen: Snapshot) {
        self.0.store(seen.0 | CONTENDED, Ordering::Relaxed);
    }

    /// Opens the biased path again. The caller holds the mutex and the lock.
    #[inline(always)]
    pub(crate) fn reopen(&self) {
        // Release pairs with the Acquire in `still`. Without it the owner could enter and not see what
        // this holder wrote to the state.
        let seen = self.0.load(Ordering::Relaxed);
        self.0.store(seen & !CONTENDED, Ordering::Release);
    }

    /// Makes `owner` the owner, the path still closed: the caller holds the mutex and the lock, and
    /// its release opens it.
    pub(crate) fn set(&self, owner: ThreadToken, slot: SlotIndex) {
        let slot_bit = if slot == SlotIndex::First { 0 } else { SLOT };
        // Relaxed: nobody acts on a closed word but the mutex holders, who synchronise by the mutex.
        self.0.store((owner.get() << TOKEN_SHIFT) | slot_bit | CONTENDED, Ordering::Relaxed);
    }

    /// Makes the lock a mutex. The caller holds the mutex and the lock, and the path was closed with a
    /// heavy fence before (or was never open), so no owner can still be on its way in.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
