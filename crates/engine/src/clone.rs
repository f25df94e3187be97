//! IORING_REGISTER_CLONE_BUFFERS: one ring's registered buffers in another ring's table.

use crate::ctx::Ctx;
use crate::register::{Arg, lock_for_register};
use crate::resources::{FixedBuf, Node, Table};
use crate::state::State;
use crate::{fds, notify, procs, registry, ringtable, sys, usercopy};
use soloring_abi::{CloneBuffers, Errno, raw};
use soloring_lock::{CtxLock, current_thread};
use std::sync::Arc;

const OPCODE: u32 = raw::io_uring_register_op::IORING_REGISTER_CLONE_BUFFERS as u32;
const MAX_BUFFERS: u32 = 1 << 14;
const REGISTERED: u32 = raw::IORING_REGISTER_SRC_REGISTERED as u32;
const REPLACE: u32 = raw::IORING_REGISTER_DST_REPLACE as u32;

/// # Errors
/// EEXIST unless the caller is the submitter of both rings, as far as they are SINGLE_ISSUER; EBUSY when the
/// ring has buffers that are not to be replaced; EBADF, EOPNOTSUPP for a source that is no ring; ENXIO for one
/// without buffers; EOVERFLOW for a range beyond the source's or beyond 32 bits; EINVAL, EFAULT.
pub fn clone_buffers(ctx: &Arc<Ctx>, arg: Arg) -> Result<i32, Errno> {
    let guard = lock_for_register(ctx, OPCODE)?;
    if arg.at == 0 || arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    let c: CloneBuffers = usercopy::read(arg.at)?;
    if c.flags & !(REGISTERED | REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    if c.flags & REPLACE == 0 && guard.bufs.is_some() {
        return Err(Errno::EBUSY);
    }
    if c.pad.iter().any(|p| *p != 0) {
        return Err(Errno::EINVAL);
    }
    let src = source(&c)?;
    if Arc::ptr_eq(ctx, &src) {
        let mut dst = guard;
        let copies = copies(&dst, dst.bufs.as_ref(), &c)?;
        procs::enter(ctx, &mut dst)?;
        install(&mut dst, c.dst_off, copies);
        procs::leave(&mut dst);
        return Ok(0);
    }
    // Both at once, in the order of their addresses.
    drop(guard);
    let (mut dst, src) = CtxLock::lock_two(&ctx.lock, &src.lock).map_err(|_| Errno::EBUSY)?;
    let foreign = |st: &State| {
        st.submitter.is_some_and(|owner| owner != current_thread()) || st.submitter_elsewhere
    };
    if foreign(&dst) || foreign(&src) {
        return Err(Errno::EEXIST);
    }
    let copies = copies(&dst, src.bufs.as_ref(), &c)?;
    drop(src);
    procs::enter(ctx, &mut dst)?;
    install(&mut dst, c.dst_off, copies);
    procs::leave(&mut dst);
    Ok(0)
}

/// The ring that the buffers come from.
fn source(c: &CloneBuffers) -> Result<Arc<Ctx>, Errno> {
    if c.flags & REGISTERED != 0 {
        return ringtable::with(c.src_fd, Arc::clone);
    }
    let fd = c.src_fd as i32;
    let Some(id) = fds::ring_id(fd) else {
        let open = fd >= 0 && !fds::is_private(fd) && sys::is_open(fd);
        return Err(if open { Errno::EOPNOTSUPP } else { Errno::EBADF });
    };
    registry::by_id(id).ok_or(Errno::EBADF)
}

/// Copies of the source's buffers, for the slots from `c.dst_off` on; without tags.
fn copies(
    dst: &State,
    src: Option<&Table<FixedBuf>>,
    c: &CloneBuffers,
) -> Result<Vec<Option<Node<FixedBuf>>>, Errno> {
    if c.nr == 0 && (c.dst_off != 0 || c.src_off != 0) {
        return Err(Errno::EINVAL);
    }
    if c.flags & REPLACE == 0 && dst.bufs.is_some() {
        return Err(Errno::EBUSY);
    }
    let Some(src) = src else { return Err(Errno::ENXIO) };
    let have = src.len() as u32;
    let nr = if c.nr == 0 { have } else { c.nr };
    if nr > have || nr > MAX_BUFFERS {
        return Err(Errno::EINVAL);
    }
    if nr.checked_add(c.src_off).is_none_or(|end| end > have) {
        return Err(Errno::EOVERFLOW);
    }
    let end = nr.checked_add(c.dst_off).ok_or(Errno::EOVERFLOW)?;
    if end > MAX_BUFFERS {
        return Err(Errno::EINVAL);
    }
    let copy = |node: &Node<FixedBuf>| {
        let FixedBuf { addr, len } = *node.item;
        Node { item: Arc::new(FixedBuf { addr, len }), tag: 0 }
    };
    Ok((c.src_off..c.src_off + nr).map(|i| src.get(i).map(copy)).collect())
}

/// Puts the copies in place. Buffers before and after them stay as they are.
fn install(st: &mut State, at: u32, copies: Vec<Option<Node<FixedBuf>>>) {
    let table = st.bufs.get_or_insert_with(|| Table::new(Vec::new()));
    table.grow(at as usize + copies.len());
    for (i, node) in (at..).zip(copies) {
        let old = st.bufs.as_mut().and_then(|t| t.replace(i, node));
        if let Some(old) = old {
            st.retire_buf(old);
        }
    }
    st.post_retired();
    notify::flush(st);
}
