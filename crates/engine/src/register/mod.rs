//! io_uring_register: who may call, and which operation it is.

use crate::ctx::Ctx;
use crate::state::State;
use crate::{enter, procs};
use soloring_abi::{Errno, extra, raw};
use soloring_lock::Guard;

mod arg;
mod bufs;
mod files;
mod misc;
mod pbuf;
mod query;
mod region;
mod resize;
mod restrictions;
mod sync_cancel;

pub use arg::{Arg, lock_for_register};

/// Whether the number exists at all.
///
/// # Errors
/// EINVAL.
pub fn check_opcode(opcode: u32) -> Result<(), Errno> {
    if opcode >= extra::IORING_REGISTER_LAST { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The call, once the ring is found. RING_FDS are handled by the caller: they belong to the thread.
///
/// # Errors
/// EEXIST for another thread than the submitter of a SINGLE_ISSUER ring; EACCES under restrictions;
/// EINVAL for operations that are not carried out here; what the operation gives.
pub fn register(ctx: &Ctx, opcode: u32, arg: Arg) -> Result<i32, Errno> {
    if opcode == raw::io_uring_register_op::IORING_REGISTER_SYNC_CANCEL as u32 {
        return sync_cancel::sync_cancel(ctx, opcode, arg);
    }
    let mut guard = lock_for_register(ctx, opcode)?;
    procs::enter(ctx, &mut guard)?;
    let result = dispatch(&mut guard, opcode, arg);
    crate::notify::flush(&mut guard);
    procs::leave(&mut guard);
    result
}

/// The calls that need no ring (descriptor -1).
///
/// # Errors
/// EINVAL for any other, and for what they do not take; what the operation gives.
pub fn register_blind(opcode: u32, arg: Arg) -> Result<i32, Errno> {
    const SEND_MSG_RING: u32 = raw::io_uring_register_op::IORING_REGISTER_SEND_MSG_RING as u32;
    match opcode {
        SEND_MSG_RING => misc::send_msg_ring(arg),
        extra::IORING_REGISTER_QUERY => query::query(arg),
        _ => Err(Errno::EINVAL),
    }
}

fn dispatch(st: &mut Guard<'_, State>, opcode: u32, arg: Arg) -> Result<i32, Errno> {
    use raw::io_uring_register_op as op;
    const BUFFERS: u32 = op::IORING_REGISTER_BUFFERS as u32;
    const UNREG_BUFFERS: u32 = op::IORING_UNREGISTER_BUFFERS as u32;
    const FILES: u32 = op::IORING_REGISTER_FILES as u32;
    const UNREG_FILES: u32 = op::IORING_UNREGISTER_FILES as u32;
    const EVENTFD: u32 = op::IORING_REGISTER_EVENTFD as u32;
    const UNREG_EVENTFD: u32 = op::IORING_UNREGISTER_EVENTFD as u32;
    const FILES_UPDATE: u32 = op::IORING_REGISTER_FILES_UPDATE as u32;
    const EVENTFD_ASYNC: u32 = op::IORING_REGISTER_EVENTFD_ASYNC as u32;
    const PROBE: u32 = op::IORING_REGISTER_PROBE as u32;
    const RESTRICTIONS: u32 = op::IORING_REGISTER_RESTRICTIONS as u32;
    const ENABLE: u32 = op::IORING_REGISTER_ENABLE_RINGS as u32;
    const FILES2: u32 = op::IORING_REGISTER_FILES2 as u32;
    const FILES_UPDATE2: u32 = op::IORING_REGISTER_FILES_UPDATE2 as u32;
    const BUFFERS2: u32 = op::IORING_REGISTER_BUFFERS2 as u32;
    const BUFFERS_UPDATE: u32 = op::IORING_REGISTER_BUFFERS_UPDATE as u32;
    const IOWQ_AFF: u32 = op::IORING_REGISTER_IOWQ_AFF as u32;
    const UNREG_IOWQ_AFF: u32 = op::IORING_UNREGISTER_IOWQ_AFF as u32;
    const MAX_WORKERS: u32 = op::IORING_REGISTER_IOWQ_MAX_WORKERS as u32;
    const PBUF_RING: u32 = op::IORING_REGISTER_PBUF_RING as u32;
    const UNREG_PBUF_RING: u32 = op::IORING_UNREGISTER_PBUF_RING as u32;
    const PBUF_STATUS: u32 = op::IORING_REGISTER_PBUF_STATUS as u32;
    const ALLOC_RANGE: u32 = op::IORING_REGISTER_FILE_ALLOC_RANGE as u32;
    const PERSONALITY: u32 = op::IORING_REGISTER_PERSONALITY as u32;
    const UNREG_PERSONALITY: u32 = op::IORING_UNREGISTER_PERSONALITY as u32;
    const CLOCK: u32 = op::IORING_REGISTER_CLOCK as u32;
    const MEM_REGION: u32 = op::IORING_REGISTER_MEM_REGION as u32;
    const RESIZE: u32 = op::IORING_REGISTER_RESIZE_RINGS as u32;
    match opcode {
        BUFFERS => bufs::register(st, arg),
        BUFFERS2 => bufs::register2(st, arg),
        BUFFERS_UPDATE => bufs::update2(st, arg),
        UNREG_BUFFERS => bufs::unregister(st, arg),
        FILES => files::register(st, arg),
        FILES2 => files::register2(st, arg),
        FILES_UPDATE => files::update(st, arg),
        FILES_UPDATE2 => files::update2(st, arg),
        UNREG_FILES => files::unregister(st, arg),
        ALLOC_RANGE => files::alloc_range(st, arg),
        EVENTFD => misc::eventfd(st, arg, false),
        EVENTFD_ASYNC => misc::eventfd(st, arg, true),
        UNREG_EVENTFD => misc::unregister_eventfd(st, arg),
        PROBE => misc::probe(arg),
        RESTRICTIONS => restrictions::register(st, arg),
        ENABLE => {
            arg.none()?;
            enter::enable(st)
        }
        IOWQ_AFF => misc::iowq_affinity(st, arg),
        UNREG_IOWQ_AFF => {
            arg.none()?;
            st.wq.set_affinity(None).map_err(Errno).map(|()| 0)
        }
        PBUF_RING => pbuf::register(st, arg),
        UNREG_PBUF_RING => pbuf::unregister(st, arg),
        PBUF_STATUS => pbuf::status(st, arg),
        MAX_WORKERS => misc::max_workers(st, arg),
        PERSONALITY => {
            arg.none()?;
            st.personalities.register().map(i32::from)
        }
        UNREG_PERSONALITY => misc::unregister_personality(st, arg),
        CLOCK => misc::clock(st, arg),
        MEM_REGION => region::register(st, arg),
        RESIZE => resize::resize(st, arg),
        extra::IORING_REGISTER_QUERY => query::query(arg),
        _ => Err(Errno::EINVAL),
    }
}
