//! POLL_ADD and POLL_REMOVE (which also updates).

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero};
use crate::cancel::{cancel_slot, find_poll};
use crate::complete::complete;
use crate::deliver;
use crate::fds;
use crate::notify::refresh_ring_fd;
use crate::req::{Req, flag};
use crate::state::State;
use crate::sys;
use soloring_abi::{Errno, raw, sqe_flags};
use std::sync::Arc;

pub const POLL_ADD: OpDef =
    OpDef { prep: add_prep, issue: add_issue, needs_file: true, pollable: true, ..BASE };
pub const POLL_REMOVE: OpDef = OpDef { prep: remove_prep, issue: remove_issue, ..BASE };

/// Always reported, wanted or not. The end of what the other side sends is one of them here, unlike in poll(2).
const ALWAYS: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL | libc::POLLRDHUP) as u32;

fn add_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.buf_index as u64, sqe.off, sqe.addr])?;
    let flags = sqe.len;
    if flags & !(raw::IORING_POLL_ADD_MULTI | raw::IORING_POLL_ADD_LEVEL) != 0 {
        return Err(Errno::EINVAL);
    }
    let multi = flags & raw::IORING_POLL_ADD_MULTI != 0;
    // Level-triggered polling is a property of multishot polls.
    if !multi && flags & raw::IORING_POLL_ADD_LEVEL != 0 {
        return Err(Errno::EINVAL);
    }
    if multi && sqe.flags & sqe_flags::CQE_SKIP_SUCCESS != 0 {
        return Err(Errno::EINVAL);
    }
    // The word holds the flags of epoll as well, and one of them says that once is enough.
    if multi && sqe.op_flags & libc::EPOLLONESHOT as u32 == 0 {
        req.flags |= flag::MULTISHOT;
    }
    Ok(())
}

/// The 16 bits of poll events that the request waits for.
pub fn wanted(req: &Req) -> u32 {
    req.sqe.op_flags & 0xffff | ALWAYS
}

/// Before a ring's descriptor is asked whether it is ready: its program may have taken completions without a
/// call, and then it says what was. Programs that sleep in one ring and watch another (glommio) would never sleep.
#[cold]
fn refresh_ring(st: &mut State, fd: i32) {
    let Ok(ring) = deliver::target(fd) else { return };
    if Arc::ptr_eq(&ring.shared, &st.shared) {
        return refresh_ring_fd(st);
    }
    if ring.shared.is_multi() {
        return;
    }
    // Whoever is inside refreshes it as they leave.
    if let Ok(Some(mut other)) = ring.ctx.lock.try_lock() {
        refresh_ring_fd(&mut other);
    }
}

fn add_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if attempt == Attempt::First && req.sqe.fd >= fds::base() {
        refresh_ring(st, req.sqe.fd);
    }
    match attempt {
        // A multishot poll reports what is ready now as its first shot, from the epoll instance.
        Attempt::First if req.has(flag::MULTISHOT) => Outcome::Arm(wanted(req)),
        Attempt::First => {
            let mask = sys::poll_now(req.fd(), wanted(req) as i16) as u16 as u32;
            if mask & libc::POLLNVAL as u32 != 0 {
                return Outcome::err(Errno::EBADF);
            }
            if mask & wanted(req) != 0 {
                return Outcome::Done((mask & wanted(req)) as i32, 0);
            }
            Outcome::Arm(wanted(req))
        }
        Attempt::Ready(events) => {
            let mask = events & wanted(req);
            if mask == 0 {
                return Outcome::Arm(wanted(req));
            }
            if req.has(flag::MULTISHOT) && st.post_more(req.sqe.user_data, mask as i32, 0) {
                return Outcome::Arm(wanted(req));
            }
            Outcome::Done(mask as i32, 0)
        }
    }
}

/// What a poll on a file that epoll refuses (always ready) comes to.
pub fn always_ready(req: &Req) -> Outcome {
    let mask = sys::poll_now(req.fd(), wanted(req) as i16) as u16 as u32 & wanted(req);
    if mask != 0 { Outcome::Done(mask as i32, 0) } else { Outcome::err(Errno::EINVAL) }
}

fn remove_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.buf_index as u64, sqe.file_index as u64])?;
    let flags = sqe.len;
    let update = raw::IORING_POLL_UPDATE_EVENTS | raw::IORING_POLL_UPDATE_USER_DATA;
    if flags & !(update | raw::IORING_POLL_ADD_MULTI) != 0
        || flags == raw::IORING_POLL_ADD_MULTI
        || flags & raw::IORING_POLL_UPDATE_USER_DATA == 0 && sqe.off != 0
        || flags & raw::IORING_POLL_UPDATE_EVENTS == 0 && sqe.op_flags != 0
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn remove_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let Some(slot) = find_poll(st, req.sqe.addr) else { return Outcome::err(Errno::ENOENT) };
    let flags = req.sqe.len;
    if flags & (raw::IORING_POLL_UPDATE_EVENTS | raw::IORING_POLL_UPDATE_USER_DATA) == 0 {
        return cancel_slot(st, slot).map(|()| 0).into();
    }
    st.unindex(slot);
    let target = st.slab.get_mut(slot);
    if flags & raw::IORING_POLL_UPDATE_EVENTS != 0 {
        target.sqe.op_flags = target.sqe.op_flags & !0xffff | req.sqe.op_flags & 0xffff;
    }
    if flags & raw::IORING_POLL_UPDATE_USER_DATA != 0 {
        target.sqe.user_data = req.sqe.off;
    }
    let (fd, events, target_fd) = (target.fd(), wanted(target), target.sqe.fd);
    let one_shot = !target.has(flag::MULTISHOT);
    st.index(slot);
    // The updated poll starts anew: what is ready now counts.
    if target_fd >= fds::base() {
        refresh_ring(st, target_fd);
    }
    let mask = sys::poll_now(fd, events as i16) as u16 as u32 & events;
    if one_shot && mask != 0 {
        let target = st.take(slot);
        complete(st, Some(slot), target, mask as i32, 0);
        return Outcome::Done(0, 0);
    }
    match st.watches.update(st.shared.epfd, slot, events) {
        Ok(()) => {
            st.recheck = true;
            Outcome::Done(0, 0)
        }
        Err(e) => Outcome::err(e),
    }
}
