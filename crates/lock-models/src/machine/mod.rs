//! The lock's own source files on the machine itself, with a heavy fence that can be spoiled.
#![allow(dead_code)]

#[path = "../../../lock/src/bias.rs"]
mod bias;
#[path = "../../../lock/src/cells.rs"]
mod cells;
#[path = "../../../lock/src/ctx.rs"]
mod ctx;
mod fence;
#[path = "../../../lock/src/futex.rs"]
mod futex;
#[path = "../../../lock/src/guard.rs"]
mod guard;
#[path = "../../../lock/src/hold.rs"]
mod hold;
#[path = "../../../lock/src/mutex.rs"]
mod mutex;
#[path = "../../../lock/src/policy.rs"]
mod policy;
#[path = "../../../lock/src/prims.rs"]
mod prims;
#[path = "../../../lock/src/raw.rs"]
mod raw;
#[path = "../../../lock/src/slot.rs"]
mod slot;
#[path = "../../../lock/src/stats.rs"]
mod stats;
#[path = "../../../lock/src/tls.rs"]
mod tls;
#[path = "../../../lock/src/token.rs"]
mod token;
#[path = "../../../lock/src/tuning.rs"]
mod tuning;
#[path = "../../../lock/src/words.rs"]
mod words;

pub use ctx::CtxLock;
pub use fence::{Heavy, heavy_fence, set_heavy};
pub(crate) use fence::{heavy_available, light_fence};
pub use hold::Mode;
pub use prims::current_thread;
