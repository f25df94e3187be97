//! Waiting for readiness: a request's own duplicate of its file in the ring's epoll instance.

use crate::req::{File, Req, flag};
use crate::slab::Where;
use crate::state::State;
use crate::{fds, sys};
use soloring_abi::{Errno, sqe_flags};
use std::sync::Arc;

/// Registers a request that was taken out of `slot` for `events`, edge-triggered, and stores it there.
///
/// The registration survives re-issues: an edge after the attempt that saw -EAGAIN wakes it again.
///
/// # Errors
/// EPERM when the file cannot be polled, EMFILE, ENOMEM; the request comes back.
pub fn arm(st: &mut State, slot: u32, mut req: Req, events: u32) -> Result<(), (Req, Errno)> {
    if !req.has(flag::POLLED) {
        hold_file(st, &mut req);
        if !matches!(req.file, File::Own(_)) {
            match fds::dup_private(req.fd()) {
                Ok(own) => req.file = File::Own(own),
                Err(e) => return Err((req, e)),
            }
        }
        let edge = events | libc::EPOLLET as u32;
        let data = st.slab.id(slot).to_u64();
        if let Err(e) = sys::epoll_ctl(st.shared.epfd, libc::EPOLL_CTL_ADD, req.fd(), edge, data) {
            return Err((req, e));
        }
        req.flags |= flag::POLLED;
        st.recheck |= req.has(flag::MULTISHOT);
    } else if req.has(flag::REQUEUE) {
        requeue(st, slot, &req, events);
    }
    req.flags &= !flag::REQUEUE;
    st.slab.put(slot, req, Where::Armed);
    st.index(slot);
    st.armed += 1;
    Ok(())
}

/// Registers anew: what is ready now is told again, after what is told already.
#[cold]
fn requeue(st: &mut State, slot: u32, req: &Req, events: u32) {
    let edge = events | libc::EPOLLET as u32;
    let data = st.slab.id(slot).to_u64();
    let _ = sys::epoll_ctl(st.shared.epfd, libc::EPOLL_CTL_MOD, req.fd(), edge, data);
    st.recheck = true;
}

/// Keeps a registered file (and its tag) alive for a request that outlives its attempt.
pub fn hold_file(st: &State, req: &mut Req) {
    if req.sqe.flags & sqe_flags::FIXED_FILE != 0 && req.held_file.is_none() {
        let node = st.files.as_ref().and_then(|t| t.get(req.sqe.fd as u32));
        req.held_file = node.map(|n| Arc::clone(&n.item));
    }
}
