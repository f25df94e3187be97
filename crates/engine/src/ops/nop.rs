//! NOP.

use super::{Attempt, BASE, OpDef, Outcome};
use crate::fds;
use crate::req::Req;
use crate::state::State;
use crate::sys;
use soloring_abi::extra::{IORING_NOP_CQE32, IORING_SETUP_CQE_MIXED};
use soloring_abi::{Errno, raw};

const FLAGS: u32 = raw::IORING_NOP_INJECT_RESULT
    | raw::IORING_NOP_FILE
    | raw::IORING_NOP_FIXED_FILE
    | raw::IORING_NOP_FIXED_BUFFER
    | raw::IORING_NOP_TW
    | IORING_NOP_CQE32;

pub const NOP: OpDef = OpDef { prep, issue, iopoll: true, ..BASE };

fn prep(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    let flags = req.sqe.op_flags;
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let big = raw::IORING_SETUP_CQE32 | IORING_SETUP_CQE_MIXED;
    if flags & IORING_NOP_CQE32 != 0 && !st.setup_has(big) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

#[inline]
fn issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let flags = req.sqe.op_flags;
    if flags == 0 {
        return Outcome::Done(0, 0);
    }
    issue_with_flags(st, req, flags)
}

#[cold]
fn issue_with_flags(st: &mut State, req: &mut Req, flags: u32) -> Outcome {
    let mut res = if flags & raw::IORING_NOP_INJECT_RESULT != 0 { req.sqe.len as i32 } else { 0 };
    if flags & raw::IORING_NOP_FILE != 0 {
        let fixed = flags & raw::IORING_NOP_FIXED_FILE != 0
            || req.sqe.flags & soloring_abi::sqe_flags::FIXED_FILE != 0;
        let found = if fixed {
            st.files.as_ref().is_some_and(|t| t.get(req.sqe.fd as u32).is_some())
        } else {
            !fds::is_private(req.sqe.fd) && sys::is_open(req.sqe.fd)
        };
        if !found {
            res = Errno::EBADF.neg();
        }
    }
    if flags & raw::IORING_NOP_FIXED_BUFFER != 0 {
        let found = st.bufs.as_ref().is_some_and(|t| t.get(req.sqe.buf_index as u32).is_some());
        if !found {
            res = Errno::EFAULT.neg();
        }
    }
    if flags & IORING_NOP_CQE32 != 0 {
        return Outcome::DoneBig(res, [req.sqe.off, req.sqe.addr]);
    }
    if flags & raw::IORING_NOP_TW != 0 { Outcome::Later(res) } else { Outcome::Done(res, 0) }
}
