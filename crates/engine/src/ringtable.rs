//! The rings that a thread has registered: small indices that stand for a ring in its calls.

use crate::ctx::Ctx;
use crate::{exit, registry};
use soloring_abi::Errno;
use std::cell::Cell;
use std::sync::Arc;

/// Rings that a thread can register.
pub const SLOTS: usize = 16;

/// Ids of a thread's registered rings, 0 for an empty slot; each keeps its ring open, like a descriptor.
/// Ids and not references: finding a ring by its id needs no count of references to be changed.
struct Registered([Cell<u64>; SLOTS]);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.iter().for_each(|slot| give_up(slot.take()));
    }
}

thread_local! {
    static RINGS: Registered = const { Registered([const { Cell::new(0) }; SLOTS]) };
}

/// Closes what a slot kept open. 0: nothing.
fn give_up(id: u64) {
    if id != 0
        && let Some(ctx) = registry::by_id(id)
    {
        exit::put(&ctx);
    }
}

/// Id of the ring that this thread registered at `index`.
///
/// # Errors
/// EINVAL for an index that cannot exist, EBADF for an empty one.
#[inline]
pub fn id_at(index: u32) -> Result<u64, Errno> {
    if index as usize >= SLOTS {
        return Err(Errno::EINVAL);
    }
    match RINGS.try_with(|r| r.0[index as usize].get()) {
        Ok(0) | Err(_) => Err(Errno::EBADF),
        Ok(id) => Ok(id),
    }
}

/// Calls `f` with the ring that this thread registered at `index`.
///
/// # Errors
/// As [`id_at`].
pub fn with<R>(index: u32, f: impl FnOnce(&Arc<Ctx>) -> R) -> Result<R, Errno> {
    registry::with_id(id_at(index)?, f).ok_or(Errno::EBADF)
}

/// Registers a ring at `index`, or at the first that is free. The table takes over one of the ring's
/// `open_fds`. Returns the index.
///
/// # Errors
/// EINVAL for an index that cannot exist; EBUSY when it is taken, or all are.
pub fn add(ctx: &Ctx, index: Option<u32>) -> Result<u32, Errno> {
    RINGS.with(|r| {
        let index = match index {
            None => r.0.iter().position(|slot| slot.get() == 0).ok_or(Errno::EBUSY)?,
            Some(index) if index as usize >= SLOTS => return Err(Errno::EINVAL),
            Some(index) => index as usize,
        };
        if r.0[index].get() != 0 {
            return Err(Errno::EBUSY);
        }
        r.0[index].set(ctx.id);
        Ok(index as u32)
    })
}

/// Takes out what is at `index`, which must be below [`SLOTS`]; that may close the ring.
pub fn remove(index: u32) {
    give_up(RINGS.with(|r| r.0[index as usize].take()));
}

/// In a forked child: its thread is a new one, which has registered nothing.
pub fn reset_after_fork() {
    for index in 0..SLOTS as u32 {
        remove(index);
    }
}
