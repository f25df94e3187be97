//! A ring in this process, used by its words alone: nothing here allocates once it is made.
#![allow(unsafe_code)]

use soloring_abi::{Params, Sqe, raw};
use soloring_engine::uapi;
use std::sync::atomic::{AtomicU32, Ordering};

/// A ring, its descriptor as the calls take it, and its two mappings.
pub struct Ring {
    pub fd: u32,
    pub rings: usize,
    pub sqes: usize,
    pub p: Params,
}

impl Ring {
    /// At most 16 entries: each mapping is a page.
    pub fn new(entries: u32, flags: u32) -> Ring {
        // SAFETY: all-zero parameters are valid.
        let mut p: Params = unsafe { std::mem::zeroed() };
        p.flags = flags;
        // SAFETY: `p` is ours; rings of this size fit in the page that is mapped.
        unsafe {
            let fd = uapi::io_uring_setup(entries, &raw mut p) as i32;
            assert!(fd >= 0, "setup: {fd}");
            let map = |at: u32| {
                let both = libc::PROT_READ | libc::PROT_WRITE;
                let at = at as i64;
                uapi::ring_mmap(0, 4096, both, libc::MAP_SHARED, fd, at).unwrap() as usize
            };
            let (rings, sqes) = (map(raw::IORING_OFF_SQ_RING), map(raw::IORING_OFF_SQES));
            Ring { fd: fd as u32, rings, sqes, p }
        }
    }

    pub fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: an offset that setup gave, inside the mapping.
        unsafe { AtomicU32::from_ptr((self.rings + offset as usize) as *mut u32) }
    }

    /// An entry, submitted by nobody yet.
    pub fn push(&self, sqe: Sqe) {
        let tail = self.word(self.p.sq_off.tail);
        let at = tail.load(Ordering::Relaxed);
        let slot = at & (self.p.sq_entries - 1);
        self.word(self.p.sq_off.array + slot * 4).store(slot, Ordering::Relaxed);
        // SAFETY: the masked slot lies in the mapped entries.
        unsafe { (self.sqes as *mut Sqe).add(slot as usize).write_volatile(sqe) };
        // Release: pairs with the engine's acquire load of the tail.
        tail.store(at.wrapping_add(1), Ordering::Release);
    }
}
