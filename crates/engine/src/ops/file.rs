//! FALLOCATE, FTRUNCATE, SYNC_FILE_RANGE, FADVISE, MADVISE.
#![allow(unsafe_code)]

use super::fs::punt_bounded;
use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, retry_eintr, unfailing};
use crate::creds::sys_as;
use crate::req::Req;
use crate::state::State;
use crate::sys;
use soloring_abi::Errno;
use soloring_iowq::{Class, Interrupt};

const FILE_OP: OpDef =
    OpDef { issue: punt_bounded, has_run: true, needs_file: true, always_async: true, ..BASE };

pub const FALLOCATE: OpDef = OpDef { prep: fallocate_prep, run: fallocate_run, ..FILE_OP };
pub const FTRUNCATE: OpDef = OpDef { prep: ftruncate_prep, run: ftruncate_run, ..FILE_OP };
pub const SYNC_FILE_RANGE: OpDef = OpDef { prep: sync_prep, run: sync_run, ..FILE_OP };
pub const FADVISE: OpDef = OpDef {
    prep: advise_prep,
    issue: fadvise_issue,
    run: fadvise_run,
    always_async: false,
    ..FILE_OP
};
pub const MADVISE: OpDef =
    OpDef { prep: advise_prep, run: madvise_run, needs_file: false, ..FILE_OP };

fn fallocate_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.buf_index as u64, sqe.op_flags as u64, sqe.file_index as u64])
}

fn fallocate_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (fd, sqe) = (req.fd(), &req.sqe);
    // SAFETY: no memory involved. The length is where other operations have their address.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, fallocate, fd, sqe.len, sqe.off, sqe.addr)
    });
    unfailing(req, done)
}

fn ftruncate_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        sqe.op_flags as u64,
        sqe.addr,
        sqe.len as u64,
        sqe.buf_index as u64,
        sqe.file_index as u64,
        sqe.addr3,
    ])
}

fn ftruncate_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (fd, len) = (req.fd(), req.sqe.off);
    // SAFETY: no memory involved.
    let done = retry_eintr(interrupt, || unsafe { sys_as!(req, ftruncate, fd, len) });
    unfailing(req, done)
}

fn sync_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.addr, req.sqe.buf_index as u64, req.sqe.file_index as u64])
}

fn sync_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (fd, sqe) = (req.fd(), &req.sqe);
    // SAFETY: no memory involved.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, sync_file_range, fd, sqe.off, sqe.len as u64, sqe.op_flags)
    });
    unfailing(req, done)
}

fn advise_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.buf_index as u64, req.sqe.file_index as u64])
}

/// A 64-bit length, or the 32-bit one where that is zero.
fn long_or(long: u64, short: u32) -> u64 {
    if long != 0 { long } else { short as u64 }
}

fn fadvise(req: &Req) -> Result<usize, Errno> {
    let (fd, sqe) = (req.fd(), &req.sqe);
    // SAFETY: no memory involved. The 64-bit length is where other operations have their address.
    unsafe { sys_as!(req, fadvise64, fd, sqe.off, long_or(sqe.addr, sqe.len), sqe.op_flags) }
}

/// Advice that only sets the file's read-ahead is given inline, the rest may touch storage.
fn fadvise_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    match req.sqe.op_flags as i32 {
        libc::POSIX_FADV_NORMAL | libc::POSIX_FADV_RANDOM | libc::POSIX_FADV_SEQUENTIAL => {
            Outcome::Done(sys::as_res(fadvise(req)), 0)
        }
        _ => Outcome::Punt(Class::Bounded),
    }
}

fn fadvise_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    sys::as_res(retry_eintr(interrupt, || fadvise(req)))
}

fn madvise_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let sqe = &req.sqe;
    // SAFETY: the advice is the program's, about its own pages, as if it called madvise(2) itself.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, madvise, sqe.addr, long_or(sqe.off, sqe.len), sqe.op_flags)
    });
    unfailing(req, done)
}
