//! The shim: what the pool takes from the machine to synchronise. The model puts its own file here.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};
