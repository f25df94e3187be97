//! When a bias pays: the bookkeeping that gives it up and takes it back.
//!
//! An elided owner acquisition saves about ten nanoseconds, a foreign acquisition of a biased lock
//! costs a `membarrier` more than of a mutex, and interrupts the owner's core. So:
//!
//! - after every `FOREIGN_WINDOW` foreign acquisitions of the biased lock: fewer than
//!   `OWNER_PER_FOREIGN` elided owner acquisitions per foreign one -> the bias is given up;
//! - while given up, after every `OWNER_WINDOW << losses` owner acquisitions: at least
//!   `OWNER_PER_FOREIGN_BACK` of them per foreign one -> it is taken back.
//!
//! The gap between the two ratios and the growing window are the hysteresis: a ring that keeps
//! changing its mind does so ever more rarely (`losses` stops at `BACKOFF_MAX`).

use super::prims::{
    BACKOFF_MAX, Counter, FOREIGN_WINDOW, OWNER_PER_FOREIGN, OWNER_PER_FOREIGN_BACK, OWNER_WINDOW,
};

/// Whether a lock may be biased at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Biased to the recorded owner where that is possible and pays.
    #[default]
    Auto,
    /// Always a mutex (measurements, rings shared between processes).
    ForceMutex,
}

/// What is counted to decide. Only the holder of the mutex calls anything here.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Foreign acquisitions in the current window.
    foreign: Counter,
    /// Biased: the owner's elided count at the start of the window. Given up: owner acquisitions in it.
    owner: Counter,
    /// How often the bias was lost, up to `BACKOFF_MAX`.
    losses: Counter,
}

impl Tally {
    /// A bias begins; `elided` is the owner's count now.
    pub(crate) fn start_biased(&self, elided: u64) {
        self.foreign.set(0);
        self.owner.set(elided);
    }

    /// A foreign acquisition of a biased lock; `true`: the bias should go.
    pub(crate) fn foreign_while_biased(&self, elided: u64) -> bool {
        self.foreign.add(1);
        let foreign = self.foreign.get();
        if foreign < FOREIGN_WINDOW {
            return false;
        }
        let owner = elided.wrapping_sub(self.owner.get());
        self.start_biased(elided);
        owner < foreign.saturating_mul(OWNER_PER_FOREIGN)
    }

    /// The bias was given up for not paying.
    pub(crate) fn lost(&self) {
        self.losses.set((self.losses.get() + 1).min(BACKOFF_MAX));
        self.foreign.set(0);
        self.owner.set(0);
    }

    /// A foreign acquisition while the bias is given up.
    pub(crate) fn foreign_while_given_up(&self) {
        self.foreign.add(1);
    }

    /// An owner acquisition while the bias is given up; `true`: the bias should come back.
    pub(crate) fn owner_while_given_up(&self) -> bool {
        self.owner.add(1);
        let owner = self.owner.get();
        // The first loss waits for one plain window.
        if owner < OWNER_WINDOW << self.losses.get().saturating_sub(1) {
            return false;
        }
        let pays = owner >= self.foreign.get().saturating_mul(OWNER_PER_FOREIGN_BACK);
        self.foreign.set(0);
        self.owner.set(0);
        pays
    }
}
