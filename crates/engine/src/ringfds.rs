//! IORING_REGISTER_RING_FDS and its counterpart: rings into and out of a thread's table.

use crate::ctx::Ctx;
use crate::register::{Arg, lock_for_register};
use crate::ringtable::{self, SLOTS};
use crate::{fds, registry, usercopy};
use soloring_abi::{Errno, raw};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `struct io_uring_rsrc_update`: slot, reserved, descriptor.
fn entry(arg: Arg, i: u32) -> Result<(u64, [u32; 2], u64), Errno> {
    let at = arg.at + i as u64 * 16;
    let head: [u32; 2] = usercopy::read(at)?;
    let data: u64 = usercopy::read(at + 8)?;
    Ok((at, head, data))
}

fn checked(ctx: &Ctx, opcode: u32, arg: Arg) -> Result<(), Errno> {
    drop(lock_for_register(ctx, opcode)?);
    if arg.nr == 0 || arg.nr as usize > SLOTS { Err(Errno::EINVAL) } else { Ok(()) }
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
    if resv != 0 || offset != u32::MAX && offset as usize >= SLOTS {
        return Err(Errno::EINVAL);
    }
    let fd = data as i32;
    let Some(id) = fds::ring_id(fd) else {
        let open = !fds::is_private(fd) && crate::sys::is_open(fd);
        return Err(if open { Errno::EOPNOTSUPP } else { Errno::EBADF });
    };
    let ctx = registry::by_id(id).ok_or(Errno::EBADF)?;
    ctx.open_fds.fetch_add(1, Ordering::Relaxed);
    let slot = match ringtable::add(&ctx, (offset != u32::MAX).then_some(offset)) {
        Ok(slot) => slot,
        Err(e) => {
            crate::exit::put(&ctx);
            return Err(e);
        }
    };
    usercopy::write(at, &slot).inspect_err(|_| ringtable::remove(slot))
}

/// Gives registered rings up. Returns how many entries were handled.
pub fn unregister(ctx: &Arc<Ctx>, arg: Arg) -> Result<i32, Errno> {
    checked(ctx, raw::io_uring_register_op::IORING_UNREGISTER_RING_FDS as u32, arg)?;
    let mut done = 0;
    for i in 0..arg.nr {
        let (_, [offset, resv], data) = match entry(arg, i) {
            Ok(entry) => entry,
            Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
        };
        if resv != 0 || data != 0 || offset as usize >= SLOTS {
            return if done > 0 { Ok(done) } else { Err(Errno::EINVAL) };
        }
        ringtable::remove(offset);
        done += 1;
    }
    Ok(done)
}
