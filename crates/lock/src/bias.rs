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

/// The number of a closing of the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closing(pub(crate) u64);

/// The word itself, and how often it has been closed to its owner by others.
#[derive(Debug)]
pub(crate) struct BiasWord {
    word: AtomicU64,
    closings: AtomicU64,
}

impl BiasWord {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(UNBIASED), closings: AtomicU64::new(0) }
    }

    /// A hint for anyone; the truth for the holder of the mutex, since nobody else writes.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Snapshot {
        Snapshot(self.word.load(Ordering::Relaxed))
    }

    /// The owner's decisive look, after its `busy` and the light fence: is the word still what it was?
    #[inline(always)]
    #[must_use]
    pub(crate) fn still(&self, seen: Snapshot) -> bool {
        // Acquire pairs with the Release in `reopen`: what the last holder by the mutex did to the
        // state happens before what the owner does now. The order against our own `busy` is not
        // Acquire's to give; it comes from the fences.
        self.word.load(Ordering::Acquire) == seen.0
    }

    /// Closes the biased path. The caller holds the mutex and the word is biased. Relaxed: its order
    /// against the look at `busy` comes from what follows (a foreign locker: the owner's answer to the
    /// numbered closing, or the heavy fence), or does not matter (the owner itself, who alone reads the flag
    /// to decide anything).
    pub(crate) fn close(&self, seen: Snapshot) {
        self.word.store(seen.0 | CLOSED, Ordering::Relaxed);
    }

    /// Gives the closing just made its number, for the owner to acknowledge.
    pub(crate) fn number_closing(&self) -> Closing {
        let closing = self.closings.load(Ordering::Relaxed).wrapping_add(1);
        // Release pairs with the Acquire in `last_closing`: an owner that has read this number has also
        // seen the path closed, so that no later look of it finds the path as it was before. Without it
        // the owner could acknowledge and then walk in.
        self.closings.store(closing, Ordering::Release);
        Closing(closing)
    }

    /// The last numbered closing.
    pub(crate) fn last_closing(&self) -> Closing {
        // Acquire: see `number_closing`.
        Closing(self.closings.load(Ordering::Acquire))
    }

    /// Opens the biased path again. The caller holds the mutex and the lock, which is biased.
    #[inline(always)]
    pub(crate) fn reopen(&self) {
        let seen = self.word.load(Ordering::Relaxed);
        debug_assert!(seen != UNBIASED);
        // Release pairs with the Acquire in `still`. Without it the owner could enter and not see what
        // this holder wrote to the state.
        self.word.store(seen & !CLOSED, Ordering::Release);
    }

    /// Makes `owner` the owner, the path still closed: the caller holds the mutex and the lock, and
    /// its release opens it.
    pub(crate) fn set(&self, owner: ThreadToken, slot: SlotIndex) {
        let slot_bit = if slot == SlotIndex::First { 0 } else { SLOT };
        // Relaxed: nobody acts on a closed word but the mutex holders, who synchronise by the mutex.
        self.word.store(owner.bits() | slot_bit | CLOSED, Ordering::Relaxed);
    }

    /// Makes the lock a mutex. The caller holds the mutex and the lock, and the path was closed and the
    /// owner passed (or it was never open), so no owner can still be on its way in.
    pub(crate) fn clear(&self) {
        self.word.store(UNBIASED, Ordering::Relaxed);
    }
}
