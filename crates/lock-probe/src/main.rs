//! The smallest program with an owner's critical section in it, for the check of the emitted code.

use soloring_lock::{CtxLock, current_thread};
use std::hint::black_box;

/// Locks, counts, unlocks. Kept apart so that its instructions can be found by name.
#[inline(never)]
fn owner_path_probe(lock: &CtxLock<u64>) -> bool {
    match lock.lock() {
        Ok(mut guard) => {
            *guard += 1;
            true
        }
        Err(_) => false,
    }
}

/// The same as a try.
#[inline(never)]
fn owner_try_path_probe(lock: &CtxLock<u64>) -> bool {
    match lock.try_lock() {
        Ok(Some(mut guard)) => {
            *guard += 1;
            true
        }
        _ => false,
    }
}

fn main() {
    let lock = black_box(CtxLock::new(0));
    if let Ok(mut guard) = lock.lock() {
        guard.bias_to(current_thread());
    }
    let held = owner_path_probe(&lock) && owner_try_path_probe(&lock);
    println!("{held} {:?}", lock.stats());
}
