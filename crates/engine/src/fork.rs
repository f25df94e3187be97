//! fork: what a child keeps of its parent's rings, and how the two share one.
//!
//! Ring memory, descriptors, registered files and buffers follow the child. Requests, armed polls,
//! workers and timers belong to the process that submitted them: they start empty here. The child's own
//! epoll instance is made at its first use of the ring.
#![allow(unsafe_code)]

use crate::req::{File, NIL};
use crate::state::{Leader, State, SubmitLink, Watch};
use crate::{counts, fds, reactor, registry, ringtable, shared};
use std::cell::RefCell;
use std::sync::{MutexGuard, Once};

thread_local! {
    /// Held by the thread that forks, from before to after.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// That no other thread is inside what all rings share: the child could never enter it.
struct Held {
    /// `None` when a signal handler forks that interrupted this very thread there.
    _registry: Option<registry::Held>,
    _by_id: MutexGuard<'static, shared::ById>,
    _reactor: MutexGuard<'static, ()>,
}

/// Has the three hooks called around every fork of this process. Idempotent.
pub fn install_hooks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the three functions live as long as the library; glibc calls them on the thread that forks.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}

extern "C" fn prepare() {
    // Nobody takes one of the three inside another.
    let held =
        Held { _registry: registry::hold(), _by_id: shared::hold(), _reactor: reactor::hold() };
    HELD.with(|h| *h.borrow_mut() = Some(held));
}

extern "C" fn parent() {
    HELD.with(|h| drop(h.borrow_mut().take()));
}

extern "C" fn child() {
    HELD.with(|h| drop(h.borrow_mut().take()));
    soloring_lock::after_fork_child();
    reactor::reset_after_fork();
    registry::reset_totals();
    counts::reset();
    for ctx in registry::all() {
        // SAFETY: the child has one thread, which is in fork and in no ring; a state that another thread
        // of the parent was changing is emptied below without being read, as far as it is private.
        unsafe { ctx.lock.reset_after_fork() };
        if let Ok(mut st) = ctx.lock.lock() {
            st.unbias();
            forget_private(&mut st);
        }
        ctx.lock.forget_counts();
    }
    ringtable::reset_after_fork();
}

/// Leaves behind everything that belongs to the parent. Its memory is leaked where another thread may
/// have been changing it.
fn forget_private(st: &mut State) {
    for slot in st.slab.indices().collect::<Vec<_>>() {
        if let File::Own(fd) = st.slab.get(slot).file {
            // The duplicate only; the entry in the parent's epoll instance is the parent's.
            fds::close_private(fd);
        }
    }
    st.watches.forget_after_fork();
    if let Some(fd) = st.spare_eventfd.take() {
        fds::close_private(fd);
    }
    std::mem::forget(std::mem::take(&mut st.slab));
    std::mem::forget(std::mem::take(&mut st.by_user_data));
    std::mem::forget(std::mem::take(&mut st.by_file));
    std::mem::forget(std::mem::take(&mut st.timers));
    std::mem::forget(std::mem::take(&mut st.counted));
    std::mem::forget(std::mem::take(&mut st.ready));
    std::mem::forget(std::mem::take(&mut st.deferred));
    std::mem::forget(std::mem::take(&mut st.followers));
    // The threads that keep the credentials are the parent's.
    std::mem::forget(std::mem::take(&mut st.personalities));
    st.wq.reset_after_fork();
    for fd in st.timer_fds {
        fds::close_private(fd);
    }
    st.timer_fds = [-1; 3];
    st.timer_set = [0; 3];
    st.link = SubmitLink { head: NIL, last: NIL };
    st.drained = 0;
    st.drain_active = false;
    st.drain_next = false;
    st.leader = Leader::default();
    st.watch = Watch::Off;
    st.armed = 0;
    st.punted = 0;
    st.submitter_elsewhere = st.submitter.is_some();
    st.inherited = true;
    st.shared.set_inherited();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// A child that finds a table taken, by a thread which it does not have, waits for ever.
    #[test]
    fn a_fork_waits_for_those_who_are_inside_a_table() {
        install_hooks();
        for inside in [0, 1, 2] {
            let (tell, told) = channel();
            let thread = std::thread::spawn(move || {
                let _held: Box<dyn std::any::Any> = match inside {
                    0 => Box::new(registry::hold()),
                    1 => Box::new(shared::hold()),
                    _ => Box::new(reactor::hold()),
                };
                tell.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            });
            told.recv().unwrap();
            // SAFETY: the child looks into the tables and leaves; an alarm ends it otherwise.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: no memory involved.
                unsafe { libc::alarm(10) };
                let empty = registry::by_id(1).is_none() && shared::by_id(1).is_none();
                drop(reactor::hold());
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!empty)) };
            }
            let mut status = -1;
            // SAFETY: writes one int on our stack.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "table {inside}");
            thread.join().unwrap();
        }
    }
}
