//! An owner slot: what one owner writes, and nobody else does.
//!
//! `busy` is odd while its owner is inside by the biased path, or trying to get in; coming in adds 3 and
//! leaving takes 1 away again, so half of it is the number of attempts. One word is flag and count: the
//! count costs the owner no store of its own.

use super::bias::Closing;
use super::cells::Counter;
use super::prims::{AtomicU64, Futex, Ordering};

#[derive(Debug)]
pub(crate) struct OwnerSlot {
    busy: Futex,
    /// Attempts that found the path closed at the second look. Written by the owner.
    failed: Counter,
    /// The last closing of the path (`BiasWord::number_closing`; no closing is 0) that the owner has seen while it
    /// was outside. Written by the owner.
    seen_closing: AtomicU64,
    /// Whose slot it is, as token bits; 0: nobody's yet. Written by holders of the mutex.
    pub(crate) token: Counter,
    /// Who is to be the owner after this critical section, as token bits; 0: nobody. Only meaningful
    /// to a guard that says so.
    pub(crate) wish: Counter,
}

/// That the owner's `busy` is odd, and what it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entered(u64);

impl Entered {
    /// For those who hold the lock in another way.
    pub(crate) const NOT: Entered = Entered(0);
}

impl OwnerSlot {
    pub(crate) fn new() -> Self {
        Self {
            busy: Futex::new(0),
            failed: Counter::default(),
            seen_closing: AtomicU64::new(0),
            token: Counter::default(),
            wish: Counter::default(),
        }
    }

    /// The owner announces itself. `None`: it is inside already (or half-way in): this is a signal
    /// handler that interrupted it. The light fence must follow.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Entered> {
        // Only this thread writes the word, so between the two lines nobody else does; a handler that
        // comes between them has left again (even) when we go on, and its attempts are not counted.
        let before = self.busy.load(Ordering::Relaxed);
        if before & 1 != 0 {
            return None;
        }
        self.busy.store(before.wrapping_add(3), Ordering::Relaxed);
        Some(Entered(before))
    }

    /// The owner is out. The light fence must follow, and a look whether somebody waits.
    #[inline(always)]
    pub(crate) fn leave(&self, entered: Entered) {
        // Release pairs with the Acquire in `look`: what we did to the state happens before what the
        // foreign locker does.
        self.busy.store(entered.0.wrapping_add(2), Ordering::Release);
    }

    /// The attempt that is being left did not come to anything.
    pub(crate) fn note_failed(&self) {
        self.failed.add(1);
    }

    /// The owner, which is outside, has seen this closing: it will not use the biased path before it
    /// is opened again.
    pub(crate) fn acknowledge(&self, closing: Closing) {
        // Release pairs with the Acquire in `has_acknowledged`: what we did to the state, and that we left
        // it, happens before what the foreign locker does.
        self.seen_closing.store(closing.0, Ordering::Release);
    }

    /// The foreign locker's question: has the owner seen this closing, and been outside then?
    pub(crate) fn has_acknowledged(&self, closing: Closing) -> bool {
        // Acquire: see `acknowledge`.
        self.seen_closing.load(Ordering::Acquire) == closing.0
    }

    /// Wakes the foreign locker that waits in [`OwnerSlot::sleep`].
    pub(crate) fn wake(&self) {
        self.busy.wake_one();
    }

    /// The owner's own question: am I inside?
    #[inline]
    pub(crate) fn is_mine_and_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) & 1 != 0
    }

    /// A foreign locker's look, after closing the path and the heavy fence: `None`, the owner is outside
    /// and stays there; otherwise what to sleep on.
    #[inline]
    pub(crate) fn look(&self) -> Option<Busy> {
        // Acquire pairs with the Release in `leave`.
        let busy = self.busy.load(Ordering::Acquire);
        (busy & 1 != 0).then_some(Busy(busy))
    }

    /// Sleeps until the owner's stay that was seen is over, or for no reason.
    pub(crate) fn sleep(&self, seen: Busy) {
        self.busy.wait(seen.0);
    }

    /// Acquisitions by the biased path so far.
    pub(crate) fn elided(&self) -> u64 {
        (self.busy.load(Ordering::Relaxed) / 2).wrapping_sub(self.failed.get())
    }

    /// In a forked child: what its parent counted is not its own.
    pub(crate) fn forget_counts(&self) {
        self.failed.set(self.busy.load(Ordering::Relaxed) / 2);
    }

    /// In a forked child: outside, whatever it was. Of words that another thread of the parent was changing
    /// the child may have an old one and a new one, so an answer might be one to a closing that is still to
    /// come: none is left.
    pub(crate) fn reset(&self) {
        let busy = self.busy.load(Ordering::Relaxed);
        self.busy.store(busy & !1, Ordering::Relaxed);
        self.seen_closing.store(0, Ordering::Relaxed);
    }
}

/// A stay of the owner that a foreign locker has seen.
#[derive(Clone, Copy)]
pub(crate) struct Busy(u64);
