//! When a bias pays: the bookkeeping that gives it up and takes it back.
//!
//! An elided owner acquisition saves about ten nanoseconds, a foreign acquisition of a biased lock
//! costs a `membarrier` more than of a mutex, and interrupts the owner's core. So:
//!
//! - after every `foreign_window` foreign acquisitions of the biased lock: fewer than
//!   `owner_per_foreign` elided owner acquisitions per foreign one -> the bias is given up;
//! - while given up, after every `owner_window << losses` owner acquisitions: at least
//!   `owner_per_foreign_back` of them per foreign one -> it is taken back.
//!
//! The gap between the two ratios and the growing window are the hysteresis: a ring that keeps
//! changing its mind does so ever more rarely. The numbers are `prims::tuning()`.

use super::cells::Counter;
use super::prims::tuning;

/// The numbers of the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Foreign acquisitions after which the bias is judged.
    pub(crate) foreign_window: u64,
    /// Elided owner acquisitions per foreign one below which it is given up.
    pub(crate) owner_per_foreign: u64,
    /// Owner acquisitions after which a bias that was given up is judged again; doubles with each loss.
    pub(crate) owner_window: u64,
    /// Owner acquisitions per foreign one from which on it is taken back.
    pub(crate) owner_per_foreign_back: u64,
    /// Losses beyond this do not double the window any more.
    pub(crate) losses_max: u64,
}

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
    /// How often the bias was lost, up to `losses_max`.
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
        if foreign < tuning().foreign_window {
            return false;
        }
        let owner = elided.wrapping_sub(self.owner.get());
        self.start_biased(elided);
        owner < foreign.saturating_mul(tuning().owner_per_foreign)
    }

    /// The bias was given up for not paying.
    pub(crate) fn lost(&self) {
        self.losses.set((self.losses.get() + 1).min(tuning().losses_max));
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
        if owner < tuning().owner_window << self.losses.get().saturating_sub(1) {
            return false;
        }
        let pays = owner >= self.foreign.get().saturating_mul(tuning().owner_per_foreign_back);
        self.foreign.set(0);
        self.owner.set(0);
        pays
    }
}
