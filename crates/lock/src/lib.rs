//! The ring lock: state inside the lock, an owner who pays no locked instruction, guards as proof.
//!
//! **What it is for.** Every ring has one [`CtxLock`], and the ring's mutable state is inside it: the
//! only way to that state is a [`Guard`]. A ring that one thread drives is *biased* to this thread
//! ([`Guard::bias_to`]): the owner then locks and unlocks with plain loads and stores, and every other
//! thread (a foreign locker) takes the lock away from it with one `membarrier` call, without needing
//! the owner to do anything.
//!
//! **Its price.** Owner: two stores, four loads. Foreign locker: a mutex, one `membarrier(2)`, and the rest of
//! the owner's critical section. Without an owner, or where `membarrier` is refused, it is a futex
//! mutex and says so ([`LockStats::mode`]).
//!
//! **What must not be done with it.** A holder must never wait for anything but another `CtxLock`
//! (in address order, [`CtxLock::lock_two`]): call [`assert_may_block`] before whatever may sleep.
//! A guard must not live across `fork`. The lock does not keep its own memory alive: whoever locks
//! holds a reference to the ring until the guard is gone.
//!
//! Everything here may be called from a signal handler in an arbitrary program: nothing allocates,
//! nothing touches `errno`, nothing goes through an interposable libc function. A handler that
//! interrupts its own thread inside the lock gets [`Reentered`].
//!
//! `LOCKING.md` at the root of the repository has the ordering argument. All files but `fence.rs`,
//! `futex.rs`, `prims.rs` and `tls.rs` reach the machine only through `prims`, so that the model
//! checker compiles the very same source over its own atomics.

mod bias;
mod cells;
mod ctx;
mod fence;
mod futex;
mod guard;
mod hold;
mod mutex;
mod policy;
mod prims;
mod raw;
mod slot;
mod stats;
mod tls;
mod token;
mod tuning;
mod words;

pub use ctx::CtxLock;
pub use fence::{FenceSupport, fence_support, full_fence_for_all, light_fence};
pub use guard::Guard;
pub use hold::{Mode, Reentered};
pub use policy::Policy;
pub use prims::current_thread;
pub use stats::{LockMode, LockStats};
pub use token::ThreadToken;

/// Panics, in debug builds, when the calling thread holds any [`CtxLock`]; does nothing in release
/// builds. To be called at the head of every function that may sleep: the owner of a biased lock is
/// waited for by foreign lockers, so "a holder never waits" is what makes their wait finite.
#[inline]
#[track_caller]
pub fn assert_may_block() {
    let held = prims::held_count();
    debug_assert!(held == 0, "about to block while holding {held} ring lock(s)");
}

/// Does what must be done early and once per process: reads `SOLORING_LOCK` and registers for
/// `membarrier`. Registration waits for a grace period (milliseconds) once the process has a second
/// thread, so a library constructor is the right place; otherwise the first [`CtxLock::new`] does it.
pub fn init() {
    prims::prepare();
}

/// To be called in the child after `fork`, before any lock is used: the registration for
/// `membarrier` is made anew. Locks that the parent's other threads may have held need
/// [`CtxLock::reset_after_fork`] besides.
pub fn after_fork_child() {
    fence::forget_registration();
    prims::prepare();
}

#[cfg(test)]
mod tests {
    use super::bias::BiasWord;
    use super::slot::OwnerSlot;

    /// The child of a fork may have got an old number of closings and a new answer.
    #[test]
    fn a_forked_child_takes_no_answer_of_the_parent_for_its_own() {
        let (parent, child, slot) = (BiasWord::new(), BiasWord::new(), OwnerSlot::new());
        slot.acknowledge(parent.number_closing());
        let closing = child.number_closing();
        assert!(slot.has_acknowledged(closing), "the two words of the child do not fit");
        slot.reset();
        assert!(!slot.has_acknowledged(closing));
    }
}
