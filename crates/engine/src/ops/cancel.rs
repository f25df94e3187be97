//! ASYNC_CANCEL.

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero};
use crate::cancel::{Criteria, cancel, resolve_file};
use crate::req::{File, Req, flag};
use crate::state::State;
use soloring_abi::{Errno, raw, sqe_flags};

pub const ASYNC_CANCEL: OpDef = OpDef { prep, issue, ..BASE };

/// All `IORING_ASYNC_CANCEL_*` flags of Linux 6.18.
pub const FLAGS: u32 = raw::IORING_ASYNC_CANCEL_ALL
    | raw::IORING_ASYNC_CANCEL_FD
    | raw::IORING_ASYNC_CANCEL_ANY
    | raw::IORING_ASYNC_CANCEL_FD_FIXED
    | raw::IORING_ASYNC_CANCEL_USERDATA
    | raw::IORING_ASYNC_CANCEL_OP;

fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    if sqe.flags & sqe_flags::BUFFER_SELECT != 0 {
        return Err(Errno::EINVAL);
    }
    must_be_zero(&[sqe.off, sqe.file_index as u64])?;
    let flags = sqe.op_flags;
    let keyed = raw::IORING_ASYNC_CANCEL_FD | raw::IORING_ASYNC_CANCEL_OP;
    if flags & !FLAGS != 0 || flags & keyed != 0 && flags & raw::IORING_ASYNC_CANCEL_ANY != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let sqe = &req.sqe;
    let mut flags = sqe.op_flags;
    if flags & raw::IORING_ASYNC_CANCEL_FD != 0 && sqe.flags & sqe_flags::FIXED_FILE != 0 {
        flags |= raw::IORING_ASYNC_CANCEL_FD_FIXED;
    }
    let mut criteria =
        Criteria { flags, user_data: sqe.addr, fd: sqe.fd, opcode: sqe.len as u8, file: -1 };
    if let Err(e) = resolve_file(st, &mut criteria) {
        return Outcome::err(e);
    }
    let done = cancel(st, &criteria);
    if done == Errno::ENOENT.neg() && req.has(flag::FORCE_WORKER) && names_itself(&criteria, req) {
        return Outcome::err(Errno::EALREADY);
    }
    Outcome::Done(done, 0)
}

/// A worker that carries out a cancellation finds that one among what workers do. It has its file when the
/// cancellation is by file.
fn names_itself(criteria: &Criteria, req: &Req) -> bool {
    let file = if criteria.file >= 0 { File::Fd(criteria.file) } else { File::None };
    criteria.matches(&Req { file, ..Req::new(req.sqe) })
}
