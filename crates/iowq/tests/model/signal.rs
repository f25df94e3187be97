//! The reserved signal, always available.

const SIGNO: i32 = 61;

pub(crate) fn reserve() -> Option<i32> {
    Some(SIGNO)
}

pub(crate) fn current() -> i32 {
    SIGNO
}

pub(crate) fn worker_mask(_signo: i32) -> u64 {
    0
}
