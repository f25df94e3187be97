//! The lock's own source files, compiled over loom's atomics instead of the machine's.
#![allow(dead_code)]

#[path = "../../../lock/src/bias.rs"]
mod bias;
#[path = "../../../lock/src/cells.rs"]
mod cells;
#[path = "../../../lock/src/ctx.rs"]
mod ctx;
#[path = "../../../lock/src/guard.rs"]
mod guard;
#[path = "../../../lock/src/hold.rs"]
mod hold;
#[path = "../../../lock/src/mutex.rs"]
mod mutex;
#[path = "../../../lock/src/policy.rs"]
mod policy;
mod prims;
#[path = "../../../lock/src/raw.rs"]
mod raw;
#[path = "../../../lock/src/slot.rs"]
mod slot;
#[path = "../../../lock/src/stats.rs"]
mod stats;
#[path = "../../../lock/src/token.rs"]
mod token;
#[path = "../../../lock/src/tuning.rs"]
mod tuning;

pub(crate) use bias::{BiasWord, SlotIndex};
pub use ctx::CtxLock;
pub use guard::Guard;
pub use hold::{Mode, Reentered};
pub use policy::Policy;
pub use prims::{
    Fences, Tuned, end_of_signals, expect_signal, owner_gone, set_fences, set_gates, set_signal_at,
    set_thread, set_tuning, signal_came,
};
pub use stats::{LockMode, LockStats};
pub use token::ThreadToken;

/// The token that [`set_thread`] gave the calling thread.
pub fn current_thread() -> ThreadToken {
    prims::current_thread()
}
