//! A ring of provided buffers in memory of ours, which the program maps and fills.
#![allow(unsafe_code)]

use crate::map::Mapping;
use soloring_abi::Errno;
use std::sync::atomic::{AtomicU16, Ordering};

/// One slot of a buffer ring: `struct io_uring_buf` without its last two bytes, which in slot 0 are
/// the tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BufEntry {
    /// Address in the program.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// The program's number for this buffer.
    pub bid: u16,
    /// `struct io_uring_buf_ring`'s tail in slot 0, unused in the others.
    pub tail: u16,
}

/// Bytes of one slot.
pub const BUF_ENTRY_BYTES: usize = 16;
/// Byte at which the tail (16 bits) lies, in slot 0.
pub const BUF_TAIL_AT: usize = 14;

const _: () = {
    assert!(size_of::<BufEntry>() == BUF_ENTRY_BYTES);
    assert!(std::mem::offset_of!(BufEntry, tail) == BUF_TAIL_AT);
};

/// A buffer ring of a power-of-two number of slots (IOU_PBUF_RING_MMAP).
pub struct BufRingMem {
    mapping: Mapping,
    mask: u16,
}

impl BufRingMem {
    /// An empty ring.
    ///
    /// # Errors
    /// What [`Mapping::create`] gives.
    ///
    /// # Panics
    /// When `entries` is no power of two below 65536: registration checks it.
    pub fn create(
        entries: u32,
        keep_fd: impl Fn(i32) -> Result<i32, Errno>,
    ) -> Result<Self, Errno> {
        assert!(entries.is_power_of_two() && entries < 1 << 16);
        let bytes = (entries as usize * BUF_ENTRY_BYTES).next_multiple_of(4096);
        let mapping = Mapping::create(bytes, keep_fd)?;
        Ok(BufRingMem { mapping, mask: (entries - 1) as u16 })
    }

    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    #[inline]
    fn slot(&self, pos: u16) -> usize {
        self.mapping.addr() + (pos & self.mask) as usize * BUF_ENTRY_BYTES
    }

    /// Number of buffers that the program has added so far, wrapping.
    #[inline]
    pub fn tail(&self) -> u16 {
        let at = self.mapping.addr() + BUF_TAIL_AT;
        // SAFETY: inside slot 0, which every mapping holds; two-byte aligned; only accessed atomically
        // from our side.
        let word = unsafe { AtomicU16::from_ptr(at as *mut u16) };
        // Acquire: pairs with the program's release store, after it wrote the entries.
        word.load(Ordering::Acquire)
    }

    /// The entry at ring position `pos`, whatever the program wrote there.
    #[inline]
    pub fn entry(&self, pos: u16) -> BufEntry {
        // SAFETY: the masked slot lies in the mapping that `self` owns; volatile, since the program
        // maps it too; any bytes are a `BufEntry`.
        unsafe { std::ptr::read_volatile(self.slot(pos) as *const BufEntry) }
    }

    /// Rewrites address and length at ring position `pos` (incremental consumption).
    #[inline]
    pub fn set_rest(&self, pos: u16, addr: u64, len: u32) {
        let at = self.slot(pos);
        // SAFETY: as in `entry`; the number and the tail behind the length are left alone.
        unsafe {
            std::ptr::write_volatile(at as *mut u64, addr);
            std::ptr::write_volatile((at + 8) as *mut u32, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_masked_and_the_tail_is_left_alone() {
        let ring = BufRingMem::create(4, Ok).unwrap();
        ring.set_rest(4, 0x1000, 64);
        assert_eq!(ring.entry(0), BufEntry { addr: 0x1000, len: 64, bid: 0, tail: 0 });
        assert_eq!(ring.entry(u16::MAX - 3), ring.entry(0));
        assert_eq!(ring.tail(), 0);
    }
}
