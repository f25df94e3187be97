//! RENAMEAT, UNLINKAT, MKDIRAT, SYMLINKAT, LINKAT: names, copied at submission, changed on a worker.
#![allow(unsafe_code)]

use super::fs::{no_fixed_file, punt_bounded};
use super::{BASE, OpDef, must_be_zero, retry_eintr, unfailing};
use crate::creds::sys_as;
use crate::fds;
use crate::req::{AsyncData, Req, flag};
use crate::state::State;
use crate::usercopy;
use soloring_abi::Errno;
use soloring_iowq::Interrupt;
use std::ffi::CString;

const PATH_OP: OpDef = OpDef { issue: punt_bounded, has_run: true, always_async: true, ..BASE };

pub const RENAMEAT: OpDef = OpDef { prep: rename_prep, run: rename_run, ..PATH_OP };
pub const UNLINKAT: OpDef = OpDef { prep: unlink_prep, run: unlink_run, ..PATH_OP };
pub const MKDIRAT: OpDef = OpDef { prep: mkdir_prep, run: mkdir_run, ..PATH_OP };
pub const SYMLINKAT: OpDef = OpDef { prep: symlink_prep, run: symlink_run, ..PATH_OP };
pub const LINKAT: OpDef = OpDef { prep: link_prep, run: link_run, ..PATH_OP };

/// Copies the name of a file that must not be empty.
///
/// # Errors
/// EFAULT, ENAMETOOLONG, ENOENT for the empty name.
pub fn read_name(addr: u64) -> Result<CString, Errno> {
    let name = usercopy::read_path(addr)?;
    if name.is_empty() { Err(Errno::ENOENT) } else { Ok(name) }
}

/// A directory descriptor as the program sees it: what is ours is not open there.
fn dir(fd: i32) -> i32 {
    if fds::is_private(fd) { -1 } else { fd }
}

fn keep(req: &mut Req, first: CString, second: CString) {
    req.data = AsyncData::Paths(Box::new((first, second)));
    req.flags |= flag::STABLE;
}

/// Addresses of the two copied names.
fn kept(req: &Req) -> (usize, usize) {
    match &req.data {
        AsyncData::Paths(p) => (p.0.as_ptr() as usize, p.1.as_ptr() as usize),
        _ => unreachable!("prep copied the names"),
    }
}

fn rename_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.buf_index as u64, req.sqe.file_index as u64])?;
    no_fixed_file(req)?;
    let old = read_name(req.sqe.addr)?;
    let new = read_name(req.sqe.off)?;
    keep(req, old, new);
    Ok(())
}

fn rename_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let ((old, new), sqe) = (kept(req), &req.sqe);
    // SAFETY: both names are our copies.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, renameat2, dir(sqe.fd), old, dir(sqe.len as i32), new, sqe.op_flags)
    });
    unfailing(req, done)
}

fn unlink_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.off, sqe.len as u64, sqe.buf_index as u64, sqe.file_index as u64])?;
    no_fixed_file(req)?;
    if req.sqe.op_flags & !(libc::AT_REMOVEDIR as u32) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_name(req.sqe.addr)?;
    keep(req, name, CString::default());
    Ok(())
}

fn unlink_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let ((name, _), sqe) = (kept(req), &req.sqe);
    // SAFETY: the name is our copy.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, unlinkat, dir(sqe.fd), name, sqe.op_flags)
    });
    unfailing(req, done)
}

fn mkdir_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.off, sqe.op_flags as u64, sqe.buf_index as u64, sqe.file_index as u64])?;
    no_fixed_file(req)?;
    let name = read_name(req.sqe.addr)?;
    keep(req, name, CString::default());
    Ok(())
}

fn mkdir_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let ((name, _), sqe) = (kept(req), &req.sqe);
    // SAFETY: the name is our copy.
    let done =
        retry_eintr(interrupt, || unsafe { sys_as!(req, mkdirat, dir(sqe.fd), name, sqe.len) });
    unfailing(req, done)
}

fn symlink_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    let unused = [sqe.len as u64, sqe.op_flags as u64, sqe.buf_index as u64, sqe.file_index as u64];
    must_be_zero(&unused)?;
    no_fixed_file(req)?;
    let target = read_name(req.sqe.addr)?;
    let name = read_name(req.sqe.off)?;
    keep(req, target, name);
    Ok(())
}

fn symlink_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let ((target, name), sqe) = (kept(req), &req.sqe);
    // SAFETY: both names are our copies.
    let done =
        retry_eintr(interrupt, || unsafe { sys_as!(req, symlinkat, target, dir(sqe.fd), name) });
    unfailing(req, done)
}

fn link_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.buf_index as u64, req.sqe.file_index as u64])?;
    no_fixed_file(req)?;
    // AT_EMPTY_PATH: the old name may be empty, and is then the descriptor itself.
    let of_descriptor = req.sqe.op_flags & libc::AT_EMPTY_PATH as u32 != 0;
    let read_old = if of_descriptor { usercopy::read_path } else { read_name };
    let old = read_old(req.sqe.addr)?;
    let new = read_name(req.sqe.off)?;
    keep(req, old, new);
    Ok(())
}

fn link_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let ((old, new), sqe) = (kept(req), &req.sqe);
    // SAFETY: both names are our copies.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, linkat, dir(sqe.fd), old, dir(sqe.len as i32), new, sqe.op_flags)
    });
    unfailing(req, done)
}
