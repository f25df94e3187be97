//! WAITID: asks without waiting, then waits on a pidfd where that tells what is asked for, else on a worker.
//!
//! A worker never takes the child: it waits with WNOWAIT, and the request asks again under the lock. So a
//! wait can be cancelled, and completed, while its worker is still on the way out.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, retry_eintr};
use crate::childinfo::ChildInfo;
use crate::fds;
use crate::req::{File, Req, flag};
use crate::state::State;
use crate::sys::sys;
use soloring_abi::Errno;
use soloring_iowq::{Class, Interrupt};

/// IOSQE_ASYNC makes no difference: `issue` decides how to wait.
pub const WAITID: OpDef = OpDef { prep, issue, run, has_run: true, pollable: true, ..BASE };

const ECHILD: Errno = Errno(libc::ECHILD);
const WNOHANG: u32 = libc::WNOHANG as u32;
const WNOTHREAD: u32 = libc::__WNOTHREAD as u32;

/// The id type, where others have their length.
fn which(req: &Req) -> u32 {
    req.sqe.len
}

fn options(req: &Req) -> u32 {
    req.sqe.file_index
}

fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.addr, sqe.buf_index as u64, sqe.addr3, sqe.op_flags as u64])?;
    req.flags |= flag::STABLE;
    Ok(())
}

/// One waitid(2). A child that was found by its number is asked for by the pidfd that the request holds: the number
/// may be another's by now.
fn ask(req: &Req, options: u32) -> Result<ChildInfo, Errno> {
    let (which, id, options) = match req.file {
        // Whoever runs this may be another thread than the one that looked the child up.
        File::Own(fd) => (libc::P_PIDFD, fd, options & !WNOTHREAD),
        _ if which(req) == libc::P_PIDFD && fds::is_private(req.sqe.fd) => {
            return Err(Errno::EBADF);
        }
        _ => (which(req), req.sqe.fd, options),
    };
    let mut info = [0u32; 32];
    // SAFETY: the kernel writes one siginfo, 128 bytes, to our stack.
    unsafe { sys!(waitid, which, id, info.as_mut_ptr(), options, 0usize) }?;
    Ok(ChildInfo::of(&info))
}

fn issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let (info, result) = match ask(req, options(req) | WNOHANG) {
        Ok(info) if info.is_some() || options(req) & WNOHANG != 0 => (info, Ok(0)),
        Ok(_) => return wait_for_it(req),
        Err(ECHILD) => (ChildInfo::default(), Err(ECHILD)),
        // Nothing was looked for, so nothing is told.
        Err(e) => return Outcome::err(e),
    };
    match info.tell(req.sqe.off) {
        Ok(()) => result.into(),
        Err(e) => Outcome::err(e),
    }
}

fn wait_for_it(req: &mut Req) -> Outcome {
    if req.file == File::None {
        let by_descriptor = which(req) == libc::P_PIDFD;
        if by_descriptor && is_nonblocking(req.sqe.fd) {
            let told = ChildInfo::default().tell(req.sqe.off);
            return told.map(|()| 0).into();
        }
        // EMFILE is an answer; any other failure leaves the worker, which needs no descriptor.
        match hold_child(req) {
            Ok(fd) => req.file = File::Own(fd),
            Err(Errno::EMFILE) => return Outcome::err(Errno::EMFILE),
            Err(_) if options(req) & WNOTHREAD != 0 => {
                // Its children are this thread's alone: no worker can wait for them.
                return Outcome::err(Errno::EOPNOTSUPP);
            }
            Err(_) => {}
        }
    }
    req.flags |= flag::WAITS;
    // A pidfd is ready when the process has ended, and for nothing else.
    let stops = (libc::WSTOPPED | libc::WCONTINUED) as u32;
    if req.file != File::None && options(req) & stops == 0 {
        return Outcome::Arm(libc::POLLIN as u32);
    }
    Outcome::Punt(Class::Unbounded)
}

/// A private pidfd of the one child that is asked for.
///
/// # Errors
/// EINVAL when it may be one of several; as pidfd_open(2).
fn hold_child(req: &Req) -> Result<i32, Errno> {
    match which(req) {
        libc::P_PIDFD => fds::dup_private(req.sqe.fd),
        libc::P_PID => {
            // SAFETY: no memory involved.
            let fd = unsafe { sys!(pidfd_open, req.sqe.fd, 0) }?;
            fds::make_private(fd as i32)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn is_nonblocking(fd: i32) -> bool {
    crate::sys::fcntl(fd, libc::F_GETFL, 0).is_ok_and(|f| f as i32 & libc::O_NONBLOCK != 0)
}

fn run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let wait = options(req) & !WNOHANG | libc::WNOWAIT as u32;
    if let Err(Errno::EINTR) = retry_eintr(interrupt, || ask(req, wait).map(|_| 0)) {
        return Errno::ECANCELED.neg();
    }
    // Whatever it came to, an error included: `issue` asks again and says so.
    req.flags |= flag::REISSUE;
    0
}
