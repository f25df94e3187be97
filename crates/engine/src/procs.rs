//! Rings that several processes use: taking turns on the shared words.
//!
//! A ring in one process never comes here: one load per enter says so. In the others the ring lock of
//! the process is joined by a lock word in ring memory, and the private cursors are brought up to date.

use crate::ctx::Ctx;
use crate::fds;
use crate::shared::{self, Shared};
use crate::state::State;
use crate::sys;
use soloring_abi::Errno;
use std::sync::Arc;

/// After the ring lock was taken.
///
/// # Errors
/// What [`renew`] gives.
#[inline]
pub fn enter(ctx: &Ctx, st: &mut State) -> Result<(), Errno> {
    if st.inherited || st.rings.is_shared_by_processes() { enter_shared(ctx, st) } else { Ok(()) }
}

#[cold]
fn enter_shared(ctx: &Ctx, st: &mut State) -> Result<(), Errno> {
    if st.inherited {
        renew(ctx, st)?;
        st.multi = true;
    }
    if !st.multi {
        st.multi = true;
        // Whoever is inside without the lock word holds the ring lock, which is ours now.
        st.rings.answer_sharing();
        st.shared.wake_for_ring_fd();
        // What was posted before this process took notice of the others: one may sleep already.
        sys::eventfd_signal(st.ring_fd);
    }
    if !st.process_locked {
        st.rings.process_lock();
        st.process_locked = true;
        st.sq_head = st.rings.sq_head();
        st.cq.resync(&st.rings);
    }
    Ok(())
}

/// Before the ring lock is given up.
#[inline]
pub fn leave(st: &mut State) {
    if st.process_locked {
        st.process_locked = false;
        st.rings.process_unlock();
    }
}

/// First use of an inherited ring in this process: an epoll instance of its own.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
#[cold]
fn renew(ctx: &Ctx, st: &mut State) -> Result<(), Errno> {
    let fresh = Arc::new(Shared::new(Arc::clone(&st.rings), st.ring_fd)?);
    fresh.wake_for_ring_fd();
    // The parent's side: its lock may be held by nobody who is here, so only its descriptors are given up.
    let old = std::mem::replace(&mut st.shared, Arc::clone(&fresh));
    st.ring_fd = fresh.ring_fd;
    st.rings.set_shared_by_processes();
    // Who sleeps there has to take notice of this process, and look at what it posts; and so has the thread that serves
    // this ring elsewhere, which says then what it posted meanwhile.
    sys::eventfd_signal(old.wake_fd);
    if let Some(thread) = &ctx.sq_thread {
        thread.wake();
    }
    st.rings.await_sharing();
    for fd in [old.epfd, old.wake_fd, old.ring_fd] {
        fds::close_private(fd);
    }
    std::mem::forget(old);
    shared::publish(ctx.id, &fresh);
    st.inherited = false;
    Ok(())
}
