//! A ring context: the lock with everything it guards, and what needs no lock.

use crate::state::State;
use soloring_lock::CtxLock;
use std::sync::atomic::AtomicU32;

/// One ring.
pub struct Ctx {
    /// Names the ring in the descriptor table; never reused.
    pub id: u64,
    pub lock: CtxLock<State>,
    /// Descriptors (dups included) that stand for this ring.
    pub open_fds: AtomicU32,
    /// IORING_SETUP_* as the engine honours them; R_DISABLED lives in the state.
    pub setup_flags: u32,
}
