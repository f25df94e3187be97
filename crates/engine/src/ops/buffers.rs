//! PROVIDE_BUFFERS and REMOVE_BUFFERS: the classic groups.

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero};
use crate::req::Req;
use crate::state::State;
use soloring_abi::Errno;

pub const PROVIDE_BUFFERS: OpDef =
    OpDef { prep: provide_prep, issue: provide_issue, iopoll: true, ..BASE };
pub const REMOVE_BUFFERS: OpDef =
    OpDef { prep: remove_prep, issue: remove_issue, iopoll: true, ..BASE };

/// Most buffers that one request names.
const NR_MAX: i32 = 1 << 16;
/// Buffer numbers are 16 bits.
const BIDS: u64 = 1 << 16;

/// End of the address space that a program can have.
#[cfg(target_arch = "x86_64")]
const USER_END: u64 = 0x7fff_ffff_f000;
#[cfg(not(target_arch = "x86_64"))]
const USER_END: u64 = 1 << 52;

fn provide_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.op_flags as u64, sqe.file_index as u64])?;
    if !(1..=NR_MAX).contains(&sqe.fd) {
        return Err(Errno::E2BIG);
    }
    if sqe.len == 0 {
        return Err(Errno::EINVAL);
    }
    let bytes = sqe.len as u64 * sqe.fd as u64;
    let end = sqe.addr.checked_add(bytes).ok_or(Errno::EOVERFLOW)?;
    if end > USER_END {
        return Err(Errno::EFAULT);
    }
    if sqe.off >= BIDS {
        return Err(Errno::E2BIG);
    }
    if sqe.off + sqe.fd as u64 > BIDS {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn provide_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let sqe = &req.sqe;
    let (nr, bid) = (sqe.fd as u32, sqe.off as u16);
    st.kbuf.provide(sqe.buf_index, sqe.addr, sqe.len, nr, bid).map(|()| 0).into()
}

fn remove_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.op_flags as u64, sqe.addr, sqe.len as u64, sqe.off, sqe.file_index as u64])?;
    if (1..=NR_MAX).contains(&sqe.fd) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn remove_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    st.kbuf.remove(req.sqe.buf_index, req.sqe.fd as u32).map(|nr| nr as i32).into()
}
