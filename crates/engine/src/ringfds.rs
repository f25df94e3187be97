//! Registered ring descriptors (IORING_REGISTER_RING_FDS): small indices that belong to a thread.

use crate::ctx::Ctx;
use crate::register::{Arg, lock_for_register};
use crate::{fds, registry, usercopy};
use soloring_abi::{Errno, raw};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SLOTS: usize = 16;

/// A thread's registered rings; each keeps its ring open, like a descriptor.
struct Registered([Option<Arc<Ctx>>; SLOTS]);

impl Drop for Registered {
    fn drop(&mut self) {
        for ctx in self.0.iter_mut().filter_map(Option::take) {
            crate::exit::put(&ctx);
        }
    }
}

thread_local! {
    static RINGS: RefCell<Registered> = const { RefCell::new(Registered([const { None }; SLOTS])) };
}

/// Calls `f` with the ring that this thread registered at `index`.
///
/// # Errors
/// EINVAL for an index that cannot exist, EBADF for an empty one.
pub fn with<R>(index: u32, f: impl FnOnce(&Arc<Ctx>) -> R) -> Result<R, Errno> {
    if index as usize >= SLOTS {
        return Err(Errno::EINVAL);
    }
    let ctx = RINGS
        .try_with(|r| r.borrow().0[index as usize].clone())
        .ok()
        .flatten()
        .ok_or(Errno::EBADF)?;
    Ok(f(&ctx))
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
        let mut r = r.borrow_mut();
        let slot = if offset == u32::MAX {
            r.0.iter().position(Option::is_none).ok_or(Errno::EBUSY)?
        } else if offset as usize >= SLOTS {
            return Err(Errno::EINVAL);
        } else if r.0[offset as usize].is_some() {
            return Err(Errno::EBUSY);
        } else {
            offset as usize
        };
        ctx.open_fds.fetch_add(1, Ordering::Relaxed);
        r.0[slot] = Some(Arc::clone(&ctx));
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
        let ring = RINGS.with(|r| r.borrow_mut().0[offset as usize].take());
        if let Some(ring) = ring {
            crate::exit::put(&ring);
        }
        done += 1;
    }
    Ok(done)
}
