//! What the kernel's worker answers when it begins a request that may complete more than once.
//!
//! Such a request is never carried out by a worker: it must be able to wait for its file, and waits for it before the
//! first attempt. On a file that knows no attempt without blocking it is done once, as any other.

use super::sockio::receive_events;
use super::{Outcome, rwrules};
use crate::req::{Req, flag};
use crate::sys;
use soloring_abi::{Errno, Opcode, raw};

/// The events that a request of this kind waits for; `None` for all others.
fn events(req: &Req) -> Option<u32> {
    let bundle = req.sqe.ioprio as u32 & raw::IORING_RECVSEND_BUNDLE != 0;
    match Opcode::from_raw(req.sqe.opcode)? {
        Opcode::Send if bundle => Some(libc::POLLOUT as u32),
        Opcode::Recv | Opcode::Recvmsg if req.has(flag::MULTISHOT) => Some(receive_events(req)),
        Opcode::Accept | Opcode::ReadMultishot if req.has(flag::MULTISHOT) => {
            Some(libc::POLLIN as u32)
        }
        _ => None,
    }
}

/// The outcome of a first attempt that a worker would make (IOSQE_ASYNC, drained), where that is settled before it.
pub fn by_worker(req: &mut Req) -> Option<Outcome> {
    let events = events(req)?;
    match settle(req, events) {
        Ok(outcome) => outcome,
        Err(e) => {
            req.flags |= flag::FAIL;
            Some(Outcome::err(e))
        }
    }
}

fn settle(req: &mut Req, events: u32) -> Result<Option<Outcome>, Errno> {
    let status = rwrules::status(req)?;
    if !rwrules::can_poll(req.fd())? {
        return Err(Errno::EBADFD);
    }
    if status & libc::O_NONBLOCK == 0 && !rwrules::has_nowait(req) {
        req.flags &= !flag::MULTISHOT;
        return Ok(None);
    }
    // A send repeats itself without being armed for it: one whose file is ready is given up.
    let send = req.sqe.opcode == Opcode::Send as u8;
    if send && sys::poll_now(req.fd(), libc::POLLOUT) != 0 {
        return Err(Errno::ECANCELED);
    }
    req.flags |= flag::REQUEUE;
    Ok(Some(Outcome::Arm(events)))
}
