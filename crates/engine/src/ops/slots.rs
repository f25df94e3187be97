//! FILES_UPDATE and FIXED_FD_INSTALL: files into and out of the registered table.

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, wants_alloc};
use crate::filetable;
use crate::req::Req;
use crate::state::State;
use crate::sys;
use soloring_abi::{Errno, raw, sqe_flags};

pub const FILES_UPDATE: OpDef =
    OpDef { prep: update_prep, issue: update_issue, iopoll: true, ..BASE };
pub const FIXED_FD_INSTALL: OpDef =
    OpDef { prep: install_prep, issue: install_issue, needs_file: true, ..BASE };

fn update_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        (sqe.flags & (sqe_flags::FIXED_FILE | sqe_flags::BUFFER_SELECT)) as u64,
        sqe.op_flags as u64,
        sqe.file_index as u64,
    ])?;
    if sqe.len == 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn update_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let (offset, nr, data) = (req.sqe.off as u32, req.sqe.len, req.sqe.addr);
    if wants_alloc(offset) {
        return filetable::fill_free(st, nr, data).into();
    }
    filetable::replace(st, offset, nr, data, 0).into()
}

fn install_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        sqe.off,
        sqe.addr,
        sqe.len as u64,
        sqe.buf_index as u64,
        sqe.file_index as u64,
        sqe.addr3,
    ])?;
    if sqe.flags & sqe_flags::FIXED_FILE == 0 {
        return Err(Errno::EBADF);
    }
    if sqe.op_flags & !raw::IORING_FIXED_FD_NO_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    // A descriptor is the submitter's own affair: other credentials have no say in it.
    if sqe.personality != 0 { Err(Errno::EPERM) } else { Ok(()) }
}

fn install_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let stays_open = req.sqe.op_flags & raw::IORING_FIXED_FD_NO_CLOEXEC != 0;
    let installed = if stays_open {
        sys::fcntl(req.fd(), libc::F_DUPFD, 0)
    } else {
        sys::fcntl(req.fd(), libc::F_DUPFD_CLOEXEC, 0)
    };
    Outcome::Done(sys::as_res(installed), 0)
}
