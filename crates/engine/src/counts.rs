//! Operations that the rings of this process were asked for: readable at any moment, without a lock and without
//! allocating, so also by an exit in a signal handler that interrupted the engine.
//!
//! Each ring counts in a block of its own, and the next ring goes on in a block that one has left. So the sum of
//! all blocks is that of all rings, closed ones included, and never becomes less. Blocks are never freed.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// By opcode number, as far as there are such; what is beyond counts with a smaller one.
pub const KINDS: usize = 64;

/// A ring's counts. Written by whoever holds that ring's lock.
#[repr(align(64))]
pub struct Block {
    ops: [AtomicU64; KINDS],
    taken: AtomicBool,
    /// Set before the block can be found, and never changed.
    next: *const Block,
}

// SAFETY: `next` is null or a block that is never freed, and does not change once the block is shared.
unsafe impl Sync for Block {}

/// Calls of setup and register.
static CALLS: AtomicU64 = AtomicU64::new(0);
static FIRST: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());

impl Block {
    /// One more. No read-modify-write: there is one writer at a time.
    #[inline(always)]
    pub fn note(&self, opcode: u8) {
        let count = &self.ops[opcode as usize % KINDS];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn blocks() -> impl Iterator<Item = &'static Block> {
    // Acquire: pairs with the release in `Own::new`; a block that is found is whole.
    let mut at: *const Block = FIRST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: null, or a block that was leaked.
        let block = unsafe { at.as_ref() }?;
        at = block.next;
        Some(block)
    })
}

/// A block while a ring counts in it.
pub struct Own(&'static Block);

impl Own {
    /// A block that is free, or a new one.
    pub fn new() -> Own {
        // Acquire: pairs with the release in `drop`; what the ring before counted is counted on from.
        let free = blocks().find(|b| !b.taken.swap(true, Ordering::Acquire));
        Own(free.unwrap_or_else(|| {
            let block = Box::leak(Box::new(Block {
                ops: [const { AtomicU64::new(0) }; KINDS],
                taken: AtomicBool::new(true),
                next: ptr::null(),
            }));
            let mut first = FIRST.load(Ordering::Relaxed);
            loop {
                block.next = first;
                // Release: pairs with the acquire in `blocks`; the block is whole when it is found.
                match FIRST.compare_exchange(first, block, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => return &*block,
                    Err(other) => first = other,
                }
            }
        }))
    }
}

impl Deref for Own {
    type Target = Block;

    #[inline(always)]
    fn deref(&self) -> &Block {
        self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `new`.
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Operations of all rings that this process had, by opcode number.
pub fn sums() -> [u64; KINDS] {
    let mut sums = [0; KINDS];
    for block in blocks() {
        for (sum, count) in sums.iter_mut().zip(&block.ops) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
    sums
}

/// One more call of setup or register, whatever becomes of it.
pub fn note_call() {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// In a forked child: it has done nothing yet.
pub fn reset() {
    CALLS.store(0, Ordering::Relaxed);
    for count in blocks().flat_map(|b| &b.ops) {
        count.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_and_loses_nothing() {
        let kind = KINDS - 1;
        let before = sums()[kind];
        for i in 1..=20 {
            let own = Own::new();
            own.note(kind as u8);
            own.note((kind + KINDS) as u8);
            assert_eq!(sums()[kind], before + 2 * i);
        }
        let held: Vec<Own> = (0..5).map(|_| Own::new()).collect();
        for own in &held {
            own.note(kind as u8);
        }
        drop(held);
        assert_eq!(sums()[kind], before + 45);
    }
}
