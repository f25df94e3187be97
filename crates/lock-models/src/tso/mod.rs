//! The lock's own source files once more, over a simulated x86: store buffers, and membarrier as it is.
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

pub use ctx::CtxLock;
pub use prims::{AtomicU64, Fences, Ordering, Steps, boot, drain_own, set_thread};
pub use token::ThreadToken;
