//! The end of a ring: its last descriptor is closed.

use crate::cancel::cancel_slot;
use crate::complete::fail_chain;
use crate::creds::Personalities;
use crate::ctx::Ctx;
use crate::kbuf::Groups;
use crate::registry;
use crate::req::flag;
use crate::slab::Where;
use crate::state::State;
use crate::{fds, procs};
use soloring_abi::Opcode;
use soloring_ringmem::Rings;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Gives up one reference of the program's to a ring; the last one closes it.
pub fn put(ctx: &Arc<Ctx>) {
    // AcqRel: pairs with other closers; the last one sees what they did.
    // Out of the table once: a thread that found the ring before may count itself in and out again after this.
    if ctx.open_fds.fetch_sub(1, Ordering::AcqRel) == 1 && registry::remove(ctx.id).is_some() {
        close(ctx);
        registry::forget(ctx.id);
    }
    finish_interrupted();
}

/// A ring was closed by a signal handler that interrupted its own thread inside.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Sees to the end of such rings. As rings are made and closed: the call that was interrupted pays nothing for it.
#[inline]
pub fn finish_interrupted() {
    if INTERRUPTED.load(Ordering::Relaxed) {
        INTERRUPTED.store(false, Ordering::Relaxed);
        registry::closing().iter().for_each(|ctx| close(ctx));
    }
}

/// Closes a ring. A thread that still waits in it keeps it alive, and the last one finishes the job as it leaves.
pub fn close(ctx: &Ctx) {
    if let Some(thread) = &ctx.sq_thread {
        thread.detach(ctx.id);
    }
    let Ok(mut st) = ctx.lock.lock() else {
        // A signal handler closes the ring that its own thread is inside.
        INTERRUPTED.store(true, Ordering::Relaxed);
        return;
    };
    st.dying = true;
    finish_if_left(ctx, &mut st);
}

/// The end of a closed ring, unless a thread still waits in it (the last of them comes here as it leaves) or this
/// has been done.
pub fn finish_if_left(ctx: &Ctx, st: &mut State) {
    if !st.leader.present && st.followers.is_empty() && st.ring_fd >= 0 {
        // The ends of its requests are told to those processes that go on with it.
        if st.multi {
            let _ = procs::enter(ctx, st);
        }
        finish(ctx, st);
        procs::leave(st);
    }
}

/// Cancels everything and gives back what the ring held.
fn finish(ctx: &Ctx, st: &mut State) {
    cancel_everything(st);
    if let Some(fd) = st.spare_eventfd.take() {
        fds::close_private(fd);
    }
    st.watches.clear();
    for fd in st.timer_fds {
        fds::close_private(fd);
    }
    st.timer_fds = [-1; 3];
    if let Some(e) = st.eventfd.take() {
        fds::close_private(e.fd);
    }
    st.files = None;
    st.bufs = None;
    st.kbuf = Groups::default();
    st.personalities = Personalities::default();
    st.retired.clear();
    st.region = None;
    close_memory(&st.rings);
    st.ring_fd = -1;
    registry::account_closed(ctx.id, ctx.lock.stats());
}

/// Gives up the memory files of a ring. Mappings of them, ours and the program's, stay.
pub fn close_memory(rings: &Rings) {
    fds::close_private(rings.mapping().memfd());
    if let Some(sqes) = rings.sqe_mapping() {
        fds::close_private(sqes.memfd());
    }
}

fn cancel_everything(st: &mut State) {
    st.drain_active = false;
    loop {
        let slots: Vec<u32> = st.slab.indices().collect();
        let mut progress = false;
        for slot in slots {
            match st.slab.at(slot) {
                // Interrupted; the pool may be other rings' too (ATTACH_WQ).
                Where::Punted(_) if !st.slab.get(slot).has(flag::INTERRUPTED) => {
                    let _ = cancel_slot(st, slot);
                }
                // Goes with the request that it limits, whose chain still names it.
                Where::Timer(_) if st.slab.get(slot).sqe.opcode == Opcode::LinkTimeout as u8 => {}
                Where::Armed | Where::Timer(_) => {
                    let _ = cancel_slot(st, slot);
                    fail_chain(st, slot);
                    progress = true;
                }
                Where::Ready | Where::Deferred => {
                    fail_chain(st, slot);
                    progress = true;
                }
                _ => {}
            }
        }
        st.ready.clear();
        st.deferred.clear();
        if !progress {
            return;
        }
    }
}
