//! READ_MULTISHOT: reads as often as there is something, each time into another provided buffer.

use super::rw::{RW, check_rw_flags, prep};
use super::rwcall::{RWF_NOWAIT, selects, transfer_anywhere};
use super::{Attempt, OpDef, Outcome, must_be_zero, no_run, rwrules};
use crate::req::{Req, flag};
use crate::state::State;
use crate::sys::{self, FileKind};
use soloring_abi::Errno;

pub const READ_MULTISHOT: OpDef = OpDef {
    prep: multishot_prep,
    issue: multishot_issue,
    run: no_run,
    has_run: false,
    buffer_select: true,
    pollable: true,
    ioprio: false,
    iopoll: false,
    ..RW
};

/// Reads in a row for one READ_MULTISHOT.
const ROUNDS_MAX: u32 = 32;

fn multishot_prep(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    if !selects(req) {
        return Err(Errno::EINVAL);
    }
    prep(st, req)?;
    must_be_zero(&[req.sqe.addr, req.sqe.len as u64])?;
    req.flags |= flag::MULTISHOT;
    Ok(())
}

/// Reads as often as there is something, at most [`ROUNDS_MAX`] times before the others get their turn.
fn multishot_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    const POLLIN: u32 = libc::POLLIN as u32;
    let group = req.sqe.buf_index;
    let by_worker = req.has(flag::FORCE_WORKER);
    // Linux 6.18 takes one read's worth before it says that it would wait. Who has waited first never hears it.
    let nowait = req.sqe.op_flags & RWF_NOWAIT != 0 && !req.has(flag::POLLED);
    if attempt == Attempt::First || by_worker {
        req.flags &= !flag::FORCE_WORKER;
        let kind = match check(st, req) {
            Ok(kind) => kind,
            Err(e) => return Outcome::err(e),
        };
        req.flags |= flag::REQUEUE;
        // What can be asked without blocking is asked at once. Of other files it shows when they are armed whether they
        // can be polled, which they must, and whether there is something to read already.
        let device = kind.mode & libc::S_IFMT == libc::S_IFCHR;
        let asked = kind.is_socket() || !device && rwrules::has_nowait(req);
        if attempt == Attempt::First && !nowait && !asked {
            return Outcome::Arm(POLLIN);
        }
    }
    for _ in 0..ROUNDS_MAX {
        let Some(buf) = st.kbuf.peek(group, 0) else {
            let wanted = sys::poll_now(req.fd(), libc::POLLIN) != 0;
            return if wanted { Outcome::err(Errno::ENOBUFS) } else { Outcome::Arm(POLLIN) };
        };
        (req.sqe.addr, req.sqe.len) = (buf.addr, buf.len);
        let got = read_ready(req);
        (req.sqe.addr, req.sqe.len) = (0, 0);
        match got {
            Ok(0) => return Outcome::Done(0, 0),
            Ok(n) => {
                let cflags = st.kbuf.commit(group, n as u64);
                let goes_on = req.has(flag::MULTISHOT);
                if !goes_on || !st.post_more(req.sqe.user_data, n as i32, cflags) {
                    return Outcome::Done(n as i32, cflags);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) if nowait => {}
            Err(Errno::EAGAIN | Errno::EINTR) => return Outcome::Arm(POLLIN),
            Err(e) => return Outcome::err(e),
        }
        if nowait {
            return Outcome::err(Errno::EAGAIN);
        }
    }
    req.flags |= flag::REQUEUE;
    Outcome::Arm(POLLIN)
}

/// What is said before the first read, in the kernel's order.
fn check(st: &mut State, req: &mut Req) -> Result<FileKind, Errno> {
    let status = rwrules::status(req)?;
    let kind = sys::file_kind(req.fd())?;
    let (flags, pos) = (req.sqe.op_flags, req.sqe.off as i64);
    let no_buffer = st.kbuf.peek(req.sqe.buf_index, 0).is_none();
    let odd = flags != 0 || pos < -1 || no_buffer;
    if kind.is_storage() || odd && !rwrules::can_poll(req.fd())? {
        return Err(Errno::EBADFD);
    }
    if no_buffer {
        return Err(Errno::ENOBUFS);
    }
    if flags != 0 {
        check_rw_flags(st, req)?;
    } else if status & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(Errno::EBADF);
    }
    // A file that can only be read when it is ready is not asked before that.
    if pos < -1 && rwrules::has_nowait(req) {
        return Err(Errno::EINVAL);
    }
    Ok(kind)
}

/// A read that does not block, also of a file that has no such form.
fn read_ready(req: &mut Req) -> Result<usize, Errno> {
    match transfer_anywhere(req, RWF_NOWAIT) {
        Err(Errno::EOPNOTSUPP) if sys::poll_now(req.fd(), libc::POLLIN) == 0 => Err(Errno::EAGAIN),
        Err(Errno::EOPNOTSUPP) => transfer_anywhere(req, 0),
        other => other,
    }
}
