//! A ring context: the lock with everything it guards, and what needs no lock.

use crate::sqthread::SqThread;
use crate::state::State;
use soloring_iowq::Wq;
use soloring_lock::CtxLock;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// One ring.
pub struct Ctx {
    /// Names the ring in the descriptor table; never reused.
    pub id: u64,
    pub lock: CtxLock<State>,
    /// The thread that submits for this ring (SQPOLL), shared by the rings attached to it.
    pub sq_thread: Option<Arc<SqThread>>,
    pub wq: Arc<Wq>,
    /// Descriptors (dups included) that stand for this ring.
    pub open_fds: AtomicU32,
    /// IORING_SETUP_* as the engine honours them; R_DISABLED lives in the state.
    pub setup_flags: u32,
}
