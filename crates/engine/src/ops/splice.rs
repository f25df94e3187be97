//! SPLICE and TEE: on a worker, with a second file that is looked up when they are issued.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, retry_eintr};
use crate::creds::sys_as;
use crate::opdata::Input;
use crate::req::{AsyncData, Req, flag};
use crate::state::State;
use crate::sys;
use crate::{fds, opdata};
use soloring_abi::{Errno, Opcode, raw};
use soloring_iowq::{Class, Interrupt};
use std::sync::Arc;

/// IOSQE_ASYNC makes no difference: `issue` only looks up the input, whatever led to it.
pub const SPLICE: OpDef =
    OpDef { prep, issue, run, has_run: true, needs_file: true, pollable: true, ..BASE };
pub const TEE: OpDef = OpDef { prep: tee_prep, ..SPLICE };

/// SPLICE_F_MOVE to SPLICE_F_GIFT, and io_uring's own.
const FLAGS: u32 = 0xf | raw::SPLICE_F_FD_IN_FIXED;
/// "At the file's own position".
const CURRENT: u64 = u64::MAX;

fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    if req.sqe.op_flags & !FLAGS != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn tee_prep(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.addr, req.sqe.off])?;
    prep(st, req)
}

/// Holds the input file for as long as the request lives.
fn find_input(st: &State, req: &Req) -> Result<Input, Errno> {
    let fd = req.sqe.file_index as i32;
    if req.sqe.op_flags & raw::SPLICE_F_FD_IN_FIXED != 0 {
        let node = st.files.as_ref().and_then(|t| t.get(fd as u32)).ok_or(Errno::EBADF)?;
        return Ok(Input::Fixed(Arc::clone(&node.item)));
    }
    if fds::is_private(fd) {
        return Err(Errno::EBADF);
    }
    // A ring's descriptor is a file without methods, as an epoll instance is.
    let fd = if fds::ring_id(fd).is_some() { st.shared.epfd } else { fd };
    fds::dup_private(fd).map(|own| Input::Own(opdata::Own(own)))
}

fn issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let input = match find_input(st, req) {
        Ok(input) => input,
        Err(e) => return Outcome::err(e),
    };
    if req.sqe.len == 0 {
        return if sys::is_open(req.fd()) {
            Outcome::Done(0, 0)
        } else {
            Outcome::err(Errno::EBADF)
        };
    }
    req.data = AsyncData::Splice(Box::new(input));
    req.flags |= flag::STABLE;
    // The other end may keep it waiting for ever, whatever this one is.
    Outcome::Punt(Class::Unbounded)
}

/// Whether a file is open for more than `other`, which is one of O_RDONLY and O_WRONLY.
fn open_beyond(fd: i32, other: i32) -> bool {
    sys::fcntl(fd, libc::F_GETFL, 0).is_ok_and(|f| f as i32 & libc::O_ACCMODE != other)
}

fn run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let AsyncData::Splice(input) = &req.data else { unreachable!("issue put it there") };
    let (from, to, len) = (input.fd(), req.fd(), req.sqe.len);
    let flags = req.sqe.op_flags & !raw::SPLICE_F_FD_IN_FIXED;
    let (mut off_in, mut off_out) = (req.sqe.addr, req.sqe.off);
    let at = |offset: &mut u64| if *offset == CURRENT { 0 } else { &raw mut *offset as usize };
    let (at_in, at_out) = (at(&mut off_in), at(&mut off_out));
    let done = retry_eintr(interrupt, || {
        if req.sqe.opcode == Opcode::Tee as u8 {
            // SAFETY: no memory involved.
            return unsafe { sys_as!(req, tee, from, to, len, flags) };
        }
        // SAFETY: the offsets are null or two words on our stack.
        unsafe { sys_as!(req, splice, from, at_in, to, at_out, len, flags) }
    });
    // splice(2) looks at the offsets first, the ring at what the files are open for.
    let res = match done {
        Err(Errno::ESPIPE)
            if !open_beyond(from, libc::O_WRONLY) || !open_beyond(to, libc::O_RDONLY) =>
        {
            Errno::EBADF.neg()
        }
        done => sys::as_res(done),
    };
    if res != len as i32 {
        req.flags |= flag::FAIL;
    }
    res
}
