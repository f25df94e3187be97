//! Threads are shuttle's tasks, numbered; creation may fail.

use crate::machine::{chance, machine};
use shuttle::rand::{Rng, thread_rng};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static NEXT_TID: Cell<i32> = const { Cell::new(1) };
}

pub(crate) fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), i32> {
    if machine().short_of_threads.get() && chance(2) {
        // It takes its time to fail; others may do a good deal meanwhile.
        for _ in 0..thread_rng().gen_range(0..40) {
            shuttle::thread::yield_now();
        }
        return Err(libc::EAGAIN);
    }
    let tid = NEXT_TID.get();
    NEXT_TID.set(tid + 1);
    shuttle::thread::spawn(move || {
        machine().begin_thread(tid);
        body();
        machine().end_thread();
    });
    Ok(())
}

pub(crate) fn sleep(_: Duration) {
    shuttle::thread::yield_now();
}
