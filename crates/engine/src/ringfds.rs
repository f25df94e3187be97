//! Registered ring descriptors (IORING_REGISTER_RING_FDS): small indices that belong to a thread.

use crate::ctx::Ctx;
use crate::register::{Arg, lock_for_register};
use crate::{fds, registry, usercopy};
use soloring_abi::{Errno, raw};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SLOTS: usize = 16;

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
        crate::exit::put(&ctx);
    }
}

/// Calls `f` with the ring that this thread registered at `index`.
///
/// # Errors
/// EINVAL for an index that cannot exist, EBADF for an empty one.
#[inline]
pub fn with<R>(index: u32, f: impl FnOnce(&Arc<Ctx>) -> R) -> Result<R, Errno> {
    if index as usize >= SLOTS {
        return Err(Errno::EINVAL);
    }
    let id = RINGS.try_with(|r| r.0[index as usize].get()).unwrap_or(0);
    if id == 0 {
        return Err(Errno::EBADF);
    }
    registry::with_id(id, f).ok_or(Errno::EBADF)
}

/// `struct io_uring_rsrc_update`: slot, reserved, descriptor.
fn entry(arg: Arg, i: u32) -> Result<(u64, [u32; 2], u64), Errno> {
    let at = arg.at + i as u64 * 16;
    let head: [u32; 2] = usercopy::read(at)?;
    let data: u64 = usercopy::read(at + 8)?;
    Ok((at, head, data))
}

fn checked(ctx: &Ctx, opcode: u32, arg: Arg) -> Result<(), Errno> {
    if arg.nr == 0 || arg.nr as usize > SLOTS {
        return Err(Errno::EINVAL);
    }
    drop(lock_for_register(ctx, opcode)?);
    Ok(())
}

/// Registers rings; each entry's slot is chosen when it is -1 and written back. Returns how many.
pub fn register(ctx: &Arc<Ctx>, arg: Arg) -> Result<i32, Errno> {
    checked(ctx, raw::io_uring_register_op::IORING_REGISTER_RING_FDS as u32, arg)?;
    let mut done = 0;
    for i in 0..arg.nr {
        match register_one(arg, i) {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn register_one(arg: Arg, i: u32) -> Result<(), Errno> {
    let (at, [offset, resv], data) = entry(arg, i)?;
    if resv != 0 {
        return Err(Errno::EINVAL);
    }
    let fd = data as i32;
    let Some(id) = fds::ring_id(fd) else {
        let open = !fds::is_private(fd) && crate::sys::fcntl(fd, libc::F_GETFD, 0).is_ok();
        return Err(if open { Errno::EOPNOTSUPP } else { Errno::EBADF });
    };
    let ctx = registry::by_id(id).ok_or(Errno::EBADF)?;
    let slot = RINGS.with(|r| {
        let slot = if offset == u32::MAX {
            r.0.iter().position(|slot| slot.get() == 0).ok_or(Errno::EBUSY)?
        } else if offset as usize >= SLOTS {
            return Err(Errno::EINVAL);
        } else if r.0[offset as usize].get() != 0 {
            return Err(Errno::EBUSY);
        } else {
            offset as usize
        };
        ctx.open_fds.fetch_add(1, Ordering::Relaxed);
        r.0[slot].set(id);
        Ok(slot)
    })?;
    usercopy::write(at, &(slot as u32))
}

/// Gives registered rings up. Returns how many entries were handled.
pub fn unregister(ctx: &Arc<Ctx>, arg: Arg) -> Result<i32, Errno> {
    checked(ctx, raw::io_uring_register_op::IORING_UNREGISTER_RING_FDS as u32, arg)?;
    let mut done = 0;
    for i in 0..arg.nr {
        let (_, [offset, resv], data) = entry(arg, i)?;
        if resv != 0 || data != 0 || offset as usize >= SLOTS {
            return if done > 0 { Ok(done) } else { Err(Errno::EINVAL) };
        }
        give_up(RINGS.with(|r| r.0[offset as usize].take()));
        done += 1;
    }
    Ok(done)
}
