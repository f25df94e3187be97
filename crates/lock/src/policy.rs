//! When a bias pays: the bookkeeping that gives it up and takes it back.
//!
//! An elided owner acquisition saves a few nanoseconds. A foreign acquisition of a biased lock costs a
//! heavy fence more than of a mutex, and interrupts the owner's core for about as long; how long
//! depends on the machine (well under a microsecond to more than ten, under a hypervisor), so it is
//! measured, on every `SAMPLE_EVERY`th fence. Where the owner keeps locking it sees the closed path and
//! answers before a fence is needed; whether to wait for that is decided by how it went last time. Then:
//!
//! - after every `foreign_window` foreign acquisitions of the biased lock: what the owner saved since
//!   the last time is less than what fences (twice their own time) and answers cost -> the bias is given up;
//! - while given up, after every `owner_window << losses` owner acquisitions: they would have saved
//!   `back_factor` times what those would have cost -> it is taken back.
//!
//! The factor and the growing window are the hysteresis: a ring that keeps changing its mind does so
//! ever more rarely. The numbers are `prims::tuning()`.

use super::cells::Counter;
use super::prims::tuning;

/// One foreign acquisition in so many measures its fence: the clock costs as well.
const SAMPLE_EVERY: u64 = 8;

/// A fence that took longer was not at work but off the processor.
const SAMPLE_NS_MAX: u64 = 50_000;

/// Whether a lock may be biased at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Biased to the recorded owner where that is possible and pays.
    #[default]
    Auto,
    /// Always a mutex (measurements, rings shared between processes).
    ForceMutex,
}

/// A handshake is tried if the last one succeeded, and every so many times.
const HANDSHAKE_EVERY: u64 = 8;

/// What an acknowledged closing costs: the two threads' cache misses.
const HANDSHAKE_NS: u64 = 200;

/// What is counted to decide. Only the holder of the mutex calls anything here.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Foreign acquisitions in the current window, and how many of them needed the heavy fence.
    foreign: Counter,
    fenced: Counter,
    /// Biased: the owner's elided count at the start of the window. Given up: owner acquisitions in it.
    owner: Counter,
    /// Sum and number of the measured fences of this window.
    fence_ns: Counter,
    fences: Counter,
    /// What a foreign acquisition costs because of the bias, by the last window that was judged.
    cost_ns_each: Counter,
    /// How often the bias was lost, up to `losses_max`.
    losses: Counter,
    /// The last handshake failed.
    unanswered: Counter,
}

impl Tally {
    /// A bias begins, or a new window of it; `elided` is the owner's count now.
    pub(crate) fn start_biased(&self, elided: u64) {
        self.foreign.set(0);
        self.fenced.set(0);
        self.fence_ns.set(0);
        self.fences.set(0);
        self.owner.set(elided);
    }

    /// It is worth while to ask the owner before the heavy fence.
    pub(crate) fn wants_handshake(&self) -> bool {
        self.unanswered.get() == 0 || self.foreign.get().is_multiple_of(HANDSHAKE_EVERY)
    }

    /// The owner has answered in time, or not.
    pub(crate) fn handshake(&self, answered: bool) {
        self.unanswered.set(u64::from(!answered));
    }

    /// The heavy fence of the foreign acquisition that is beginning should be measured.
    pub(crate) fn wants_sample(&self) -> bool {
        self.fenced.get().is_multiple_of(SAMPLE_EVERY)
    }

    /// It took so long.
    pub(crate) fn sample(&self, fence_ns: u64) {
        self.fence_ns.add(fence_ns.min(SAMPLE_NS_MAX));
        self.fences.add(1);
    }

    /// A foreign acquisition of a biased lock; `true`: the bias should go.
    pub(crate) fn foreign_while_biased(&self, elided: u64, fenced: bool) -> bool {
        self.foreign.add(1);
        self.fenced.add(u64::from(fenced));
        let foreign = self.foreign.get();
        if foreign < tuning().foreign_window {
            return false;
        }
        let fence_ns = self.fence_ns.get() / self.fences.get().max(1);
        // The fence costs its caller's time and as much of the owner's.
        let fences_ns = self.fenced.get().saturating_mul(fence_ns).saturating_mul(2);
        let handshakes_ns = (foreign - self.fenced.get()).saturating_mul(HANDSHAKE_NS);
        let cost_ns = fences_ns.saturating_add(handshakes_ns);
        self.cost_ns_each.set(cost_ns / foreign);
        let saved = elided.wrapping_sub(self.owner.get()).saturating_mul(tuning().saved_ns);
        self.start_biased(elided);
        saved < cost_ns
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
        let cost = self.foreign.get().saturating_mul(self.cost_ns_each.get());
        let pays =
            owner.saturating_mul(tuning().saved_ns) >= cost.saturating_mul(tuning().back_factor);
        self.foreign.set(0);
        self.owner.set(0);
        pays
    }
}
