//! The lock's fences, the heavy one replaceable by an ordinary full fence to see whether tests notice.

#[path = "../../../lock/src/fence.rs"]
mod sound;

use std::sync::atomic::{AtomicBool, Ordering, fence};

pub(crate) use sound::heavy_available;
pub(crate) use sound::light_fence;

/// What stands in the foreign locker's path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heavy {
    /// membarrier, as in the lock.
    Membarrier,
    /// Spoiled: a full fence of the caller alone.
    OwnFence,
}

/// One process, one setting: tests that spoil it run in a process of their own.
static SPOILED: AtomicBool = AtomicBool::new(false);

pub fn set_heavy(heavy: Heavy) {
    SPOILED.store(heavy == Heavy::OwnFence, Ordering::Relaxed);
}

pub fn heavy_fence() -> bool {
    if SPOILED.load(Ordering::Relaxed) {
        // No partner: that is the point.
        fence(Ordering::SeqCst);
        return true;
    }
    sound::heavy_fence()
}
