//! READ_MULTISHOT: reads as often as there is something, each time into another provided buffer.

use super::rw::{RW, check_rw_flags, prep};
use super::rwcall::{RWF_NOWAIT, selects, transfer_anywhere};
use super::{Attempt, OpDef, Outcome, must_be_zero, no_run, rwrules};
use crate::req::{Req, flag};
use crate::state::State;
use crate::sys;
use soloring_abi::Errno;

pub const READ_MULTISHOT: OpDef = OpDef {
    prep: multishot_prep,
    issue: multishot_issue,
    run: no_run,
    has_run: false,
    buffer_select: true,
    pollable: true,
    ioprio: false,
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
    // Linux 6.18 takes one read's worth before it says that it would wait.
    let nowait = req.sqe.op_flags & RWF_NOWAIT != 0;
    if attempt == Attempt::First {
        let known = rwrules::status(req).and_then(|s| Ok((s, sys::file_kind(req.fd())?)));
        let (status, kind) = match known {
            Ok(known) => known,
            Err(e) => return Outcome::err(e),
        };
        if kind.is_storage() {
            return Outcome::err(Errno::EBADFD);
        }
        // A worker waits first.
        let waits = req.has(flag::FORCE_WORKER);
        if !waits && st.kbuf.peek(group, 0).is_none() {
            let pollable = rwrules::can_poll(req.fd());
            let e =
                pollable.map_or_else(|e| e, |yes| if yes { Errno::ENOBUFS } else { Errno::EBADFD });
            return Outcome::err(e);
        }
        let flags = if req.sqe.op_flags != 0 {
            check_rw_flags(st, req)
        } else if status & libc::O_ACCMODE == libc::O_WRONLY {
            Err(Errno::EBADF)
        } else {
            Ok(())
        };
        if let Err(e) = flags {
            return Outcome::err(e);
        }
        // Whether the file can be polled, which it must, shows when it is armed: that comes first, and
        // with it the question whether there is something to read already.
        req.flags |= flag::REQUEUE;
        // A socket can: it is asked at once, as one that only listens would never be ready.
        if !nowait && (!kind.is_socket() || waits) {
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
                if !st.post_more(req.sqe.user_data, n as i32, cflags) {
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

/// A read that does not block, also of a file that has no such form.
fn read_ready(req: &mut Req) -> Result<usize, Errno> {
    match transfer_anywhere(req, RWF_NOWAIT) {
        Err(Errno::EOPNOTSUPP) if sys::poll_now(req.fd(), libc::POLLIN) == 0 => Err(Errno::EAGAIN),
        Err(Errno::EOPNOTSUPP) => transfer_anywhere(req, 0),
        other => other,
    }
}
