//! The shim's other side: shuttle's primitives.

pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
