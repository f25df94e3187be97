//! The system calls that the pool makes, answered by the model's machine.

use crate::machine::{chance, current_tid, machine};
use crate::prims::AtomicU32;
use shuttle::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct ErrnoGuard;

impl ErrnoGuard {
    pub(crate) fn new() -> Self {
        Self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FutexWait {
    Again,
    TimedOut,
}

pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, _: Option<Duration>) -> FutexWait {
    if machine().futex_wait(word, expected) { FutexWait::TimedOut } else { FutexWait::Again }
}

pub(crate) fn futex_wake_one(_word: &AtomicU32) {
    machine().futex_wake();
}

pub(crate) fn getpid() -> i32 {
    machine().deliver();
    1
}

pub(crate) fn gettid() -> i32 {
    current_tid()
}

pub(crate) fn tgkill(tid: i32, _signo: i32) -> Result<(), i32> {
    assert!(machine().signal(tid), "thread {tid} was signalled after its end");
    Ok(())
}

pub(crate) fn set_sigmask(_new: u64) -> u64 {
    machine().deliver();
    0
}

/// Repeats until dropped; no signal comes after that.
pub(crate) struct ThreadTimer(Arc<Mutex<bool>>);

impl ThreadTimer {
    pub(crate) fn start(tid: i32, _: i32, _: Duration, _: Duration) -> Result<Self, i32> {
        if machine().short_of_timers.get() && chance(2) {
            return Err(libc::EAGAIN);
        }
        let stopped = Arc::new(Mutex::new(false));
        let inner = Arc::clone(&stopped);
        shuttle::thread::spawn(move || {
            loop {
                let stopped = inner.lock().unwrap();
                // A timer whose thread has ended hits nobody, and fires on.
                if *stopped {
                    return;
                }
                machine().signal(tid);
                drop(stopped);
                shuttle::thread::yield_now();
            }
        });
        Ok(Self(stopped))
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = true;
        machine().deliver();
    }
}

pub(crate) fn sched_getaffinity(_tid: i32) -> Result<Vec<u8>, i32> {
    Ok(vec![1])
}

pub(crate) fn rlimit_nproc() -> u64 {
    1000
}
