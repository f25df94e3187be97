//! The lock's fences, the heavy one replaceable by an ordinary full fence to see whether tests notice.

#[path = "../../../lock/src/fence.rs"]
mod sound;

use std::sync::atomic::{AtomicU8, Ordering, fence};

pub(crate) use sound::heavy_available;
pub(crate) use sound::light_fence;

/// How a foreign locker passes the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heavy {
    /// As in the lock: it asks the owner, and issues membarrier if there is no answer.
    AskThenMembarrier,
    /// Always membarrier.
    Membarrier,
    /// Spoiled: always a full fence of the caller alone.
    OwnFence,
}

/// One process, one setting: tests that change it run one after the other.
static HEAVY: AtomicU8 = AtomicU8::new(0);

pub fn set_heavy(heavy: Heavy) {
    HEAVY.store(heavy as u8, Ordering::Relaxed);
}

fn is(heavy: Heavy) -> bool {
    HEAVY.load(Ordering::Relaxed) == heavy as u8
}

pub(crate) fn handshake_looks() -> u32 {
    if is(Heavy::AskThenMembarrier) { sound::handshake_looks() } else { 0 }
}

pub fn heavy_fence() -> bool {
    if is(Heavy::OwnFence) {
        // No partner: that is the point.
        fence(Ordering::SeqCst);
        return true;
    }
    sound::heavy_fence()
}
