//! TIMEOUT, TIMEOUT_REMOVE (which also updates), LINK_TIMEOUT.

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero};
use crate::cancel::{cancel_slot, find_timeout};
use crate::req::{AsyncData, NIL, Req, TimeoutData, flag};
use crate::slab::Where;
use crate::state::State;
use crate::{sys, usercopy};
use soloring_abi::{Errno, Opcode, Timespec, raw, sqe_flags};

pub const TIMEOUT: OpDef = OpDef { prep: timeout_prep, issue: timeout_issue, ..BASE };
pub const LINK_TIMEOUT: OpDef =
    OpDef { prep: link_timeout_prep, issue: stray_link_timeout, ..BASE };
pub const TIMEOUT_REMOVE: OpDef = OpDef { prep: remove_prep, issue: remove_issue, ..BASE };

const FLAGS: u32 = raw::IORING_TIMEOUT_ABS
    | raw::IORING_TIMEOUT_CLOCK_MASK
    | raw::IORING_TIMEOUT_ETIME_SUCCESS
    | raw::IORING_TIMEOUT_MULTISHOT;

/// Reads a timespec as nanoseconds.
///
/// # Errors
/// EFAULT; EINVAL for negative parts.
pub fn read_timespec(addr: u64) -> Result<u64, Errno> {
    let ts: Timespec = usercopy::read(addr)?;
    if ts.tv_sec < 0 || ts.tv_nsec < 0 {
        return Err(Errno::EINVAL);
    }
    Ok((ts.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(ts.tv_nsec as u64))
}

/// The clock that timeout flags choose.
///
/// # Errors
/// EINVAL for more than one.
fn clock(flags: u32) -> Result<i32, Errno> {
    match flags & raw::IORING_TIMEOUT_CLOCK_MASK {
        0 => Ok(libc::CLOCK_MONOTONIC),
        raw::IORING_TIMEOUT_BOOTTIME => Ok(libc::CLOCK_BOOTTIME),
        raw::IORING_TIMEOUT_REALTIME => Ok(libc::CLOCK_REALTIME),
        _ => Err(Errno::EINVAL),
    }
}

fn parse(req: &mut Req, is_link: bool) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.addr3, sqe.pad2])?;
    if sqe.buf_index != 0 || sqe.len != 1 || sqe.file_index != 0 || is_link && sqe.off as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = sqe.op_flags;
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let clock = clock(flags)?;
    let repeating = raw::IORING_TIMEOUT_MULTISHOT | raw::IORING_TIMEOUT_ABS;
    if flags & repeating == repeating {
        return Err(Errno::EINVAL);
    }
    let multishot = flags & raw::IORING_TIMEOUT_MULTISHOT != 0;
    let data = TimeoutData {
        ns: read_timespec(sqe.addr)?,
        clock,
        absolute: flags & raw::IORING_TIMEOUT_ABS != 0,
        target_seq: 0,
        repeats: if multishot { sqe.off as u32 } else { 0 },
    };
    if flags & raw::IORING_TIMEOUT_ETIME_SUCCESS != 0 {
        req.flags |= flag::NO_FAIL;
    }
    if multishot {
        req.flags |= flag::MULTISHOT;
    }
    req.data = AsyncData::Timeout(data);
    req.flags |= flag::STABLE;
    Ok(())
}

fn timeout_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    parse(req, false)
}

fn timeout_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let count = req.sqe.off as u32;
    let multishot = req.has(flag::MULTISHOT);
    let seq = st.cq.timeout_seq();
    if let AsyncData::Timeout(t) = &mut req.data {
        t.target_seq = if count > 0 && !multishot { seq + count as u64 } else { 0 };
    }
    Outcome::StartTimer
}

fn link_timeout_prep(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    parse(req, true)?;
    // Only valid right behind a request of a chain that is being assembled.
    let last = st.link.last;
    if st.link.head == NIL || st.slab.get(last).sqe.opcode == Opcode::LinkTimeout as u8 {
        return Err(Errno::EINVAL);
    }
    st.slab.get_mut(last).flags |= flag::ARM_LTIMEOUT;
    req.head = last;
    Ok(())
}

/// A link timeout is started by the request before it; issued on its own it has nothing to limit.
fn stray_link_timeout(_: &mut State, _: &mut Req, _: Attempt) -> Outcome {
    Outcome::err(Errno::ECANCELED)
}

/// Deadline of a timeout that starts now, on its own clock.
pub fn deadline(t: &TimeoutData) -> u64 {
    if t.absolute { t.ns } else { sys::now_ns(t.clock).saturating_add(t.ns) }
}

fn remove_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    if sqe.flags & (sqe_flags::FIXED_FILE | sqe_flags::BUFFER_SELECT) != 0 {
        return Err(Errno::EINVAL);
    }
    must_be_zero(&[sqe.addr3, sqe.pad2])?;
    must_be_zero(&[sqe.buf_index as u64, sqe.len as u64, sqe.file_index as u64])?;
    let flags = sqe.op_flags;
    if flags & raw::IORING_TIMEOUT_UPDATE_MASK == 0 {
        return must_be_zero(&[flags as u64]);
    }
    clock(flags)?;
    if flags & !(raw::IORING_TIMEOUT_UPDATE_MASK | raw::IORING_TIMEOUT_ABS) != 0 {
        return Err(Errno::EINVAL);
    }
    req.data = AsyncData::Timeout(TimeoutData {
        ns: read_timespec(sqe.off)?,
        clock: libc::CLOCK_MONOTONIC,
        absolute: flags & raw::IORING_TIMEOUT_ABS != 0,
        target_seq: 0,
        repeats: 0,
    });
    req.flags |= flag::STABLE;
    Ok(())
}

fn remove_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let flags = req.sqe.op_flags;
    let of = if flags & raw::IORING_LINK_TIMEOUT_UPDATE != 0 {
        Opcode::LinkTimeout
    } else {
        Opcode::Timeout
    };
    let Some(slot) = find_timeout(st, req.sqe.addr, of) else {
        return Outcome::err(Errno::ENOENT);
    };
    let Some(new) = req.timeout().copied() else {
        return cancel_slot(st, slot).map(|()| 0).into();
    };
    let mut target = st.take(slot);
    if let AsyncData::Timeout(t) = &mut target.data {
        t.ns = new.ns;
        t.absolute = new.absolute;
        t.target_seq = 0;
    }
    start_timer(st, slot, target);
    Outcome::Done(0, 0)
}

/// Starts (or restarts) the timer of a timeout whose slot was taken out.
pub fn start_timer(st: &mut State, slot: u32, req: Req) {
    let t = *req.timeout().expect("a timeout has its data from prep on");
    let key = st.timers.insert(t.clock, deadline(&t), slot);
    if t.target_seq != 0 {
        st.counted.insert((t.target_seq, slot));
    }
    st.slab.put(slot, req, Where::Timer(Some(key)));
    st.index(slot);
}
