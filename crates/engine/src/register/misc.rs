//! PROBE, EVENTFD, personalities, worker limits and affinity, the wait clock.
#![allow(unsafe_code)]

use super::arg::Arg;
use crate::ops::msg;
use crate::optable::definition;
use crate::state::{EventFd, State};
use crate::sys::{self, sys};
use crate::{eventfds, fds, usercopy};
use soloring_abi::{Errno, Opcode, ProbeOp, Sqe, op, raw};

const SUPPORTED: u16 = raw::IO_URING_OP_SUPPORTED as u16;

/// Whether each opcode is supported, by number.
pub fn probe_ops() -> impl Iterator<Item = ProbeOp> {
    (0..op::LAST).map(|op| ProbeOp {
        op,
        resv: 0,
        flags: if definition(op).supported { SUPPORTED } else { 0 },
        resv2: 0,
    })
}

pub fn probe(arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr > 256 {
        return Err(Errno::EINVAL);
    }
    let nr = arg.nr.min(op::LAST as u32) as usize;
    let bytes: Vec<u8> = usercopy::read_vec(arg.at, 16 + nr * 8)?;
    if bytes.iter().any(|b| *b != 0) {
        return Err(Errno::EINVAL);
    }
    // struct io_uring_probe: last_op, ops_len, 14 reserved bytes, then the operations.
    let mut header = [0u8; 16];
    header[0] = op::LAST - 1;
    header[1] = nr as u8;
    usercopy::write_slice(arg.at, &header)?;
    let ops: Vec<ProbeOp> = probe_ops().take(nr).collect();
    usercopy::write_slice(arg.at + 16, &ops)?;
    Ok(0)
}

pub fn eventfd(st: &mut State, arg: Arg, async_only: bool) -> Result<i32, Errno> {
    if arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    if st.eventfd.is_some() {
        return Err(Errno::EBUSY);
    }
    let fd: i32 = usercopy::read(arg.at)?;
    if fds::is_private(fd) || fds::ring_id(fd).is_some() {
        return Err(Errno::EINVAL);
    }
    if !sys::is_open(fd) {
        return Err(Errno::EBADF);
    }
    let own = fds::dup_private(fd)?;
    if !eventfds::is_eventfd(own) {
        fds::close_private(own);
        return Err(Errno::EINVAL);
    }
    st.eventfd = Some(EventFd { fd: own, number: fd, async_only, told: false });
    Ok(0)
}

pub fn unregister_eventfd(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    arg.none()?;
    let e = st.eventfd.take().ok_or(Errno::ENXIO)?;
    fds::close_private(e.fd);
    Ok(0)
}

pub fn unregister_personality(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at != 0 {
        return Err(Errno::EINVAL);
    }
    st.personalities.unregister(arg.nr).map(|()| 0)
}

pub fn max_workers(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr != 2 {
        return Err(Errno::EINVAL);
    }
    let new: [u32; 2] = usercopy::read(arg.at)?;
    if new.iter().any(|n| *n > i32::MAX as u32) {
        return Err(Errno::EINVAL);
    }
    let old = st.wq.max_workers(new);
    usercopy::write(arg.at, &old)?;
    Ok(0)
}

/// Bytes of a set of all CPUs that this kernel can have; it reads no more.
fn mask_bytes() -> usize {
    let mut set = [0u64; 128];
    // SAFETY: writes at most the set's length to our stack, and says how much that was.
    unsafe { sys!(sched_getaffinity, 0, size_of_val(&set), set.as_mut_ptr()) }.unwrap_or(128)
}

pub fn iowq_affinity(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr == 0 {
        return Err(Errno::EINVAL);
    }
    let mask: Vec<u8> = usercopy::read_vec(arg.at, (arg.nr as usize).min(mask_bytes()))?;
    st.wq.set_affinity(Some(&mask)).map_err(Errno)?;
    Ok(0)
}

pub fn clock(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr != 0 {
        return Err(Errno::EINVAL);
    }
    let reg: raw::io_uring_clock_register = usercopy::read(arg.at)?;
    if reg.__resv.iter().any(|r| *r != 0) {
        return Err(Errno::EINVAL);
    }
    match reg.clockid as i32 {
        clock @ (libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME) => {
            st.wait_clock = clock;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// IORING_REGISTER_SEND_MSG_RING: `arg` is one SQE.
///
/// # Errors
/// EINVAL, EFAULT; what [`msg::send_sync`] gives.
pub fn send_msg_ring(arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    let sqe: Sqe = usercopy::read(arg.at)?;
    if sqe.flags != 0 || sqe.opcode != Opcode::MsgRing as u8 {
        return Err(Errno::EINVAL);
    }
    msg::send_sync(&sqe)
}
