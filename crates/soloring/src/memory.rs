//! The program's side of a ring's memory: mapped, read and written as the ABI has it.
#![allow(unsafe_code)]

use soloring_abi::{Cqe, Params, Sqe, raw};
use soloring_engine::uapi;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// One mapped region.
struct Map {
    at: usize,
    len: usize,
}

impl Map {
    fn new(fd: i32, len: usize, offset: u32) -> io::Result<Map> {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: no address is asked for, so nothing of the program's is replaced.
        let at = unsafe { uapi::ring_mmap(0, len, prot, flags, fd, i64::from(offset)) };
        match at {
            Some(at) if at >= 0 => Ok(Map { at: at as usize, len }),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno as i32)),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `new` and everything that points into it is owned by the
        // `Memory` that is being dropped.
        unsafe { libc::munmap(self.at as *mut _, self.len) };
    }
}

/// Both rings and the entries of one ring descriptor. Positions are free-running counts, masked here.
pub(crate) struct Memory {
    rings: Map,
    entries: Map,
    off: Offsets,
    sq_mask: u32,
    cq_mask: u32,
}

/// Offsets into the ring region, bytes.
struct Offsets {
    sq_head: u32,
    sq_tail: u32,
    sq_flags: u32,
    cq_head: u32,
    cq_tail: u32,
    cqes: u32,
}

impl Memory {
    /// Maps the ring that `params` came back for: 64-byte entries, 16-byte completions.
    ///
    /// # Errors
    /// What mmap(2) gives.
    pub fn map(fd: i32, params: &Params) -> io::Result<Memory> {
        let (sq, cq) = (&params.sq_off, &params.cq_off);
        let array = params.flags & raw::IORING_SETUP_NO_SQARRAY == 0;
        let completions = cq.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        let indices = if array { sq.array as usize + params.sq_entries as usize * 4 } else { 0 };
        let rings = Map::new(fd, completions.max(indices), raw::IORING_OFF_SQ_RING)?;
        let bytes = params.sq_entries as usize * size_of::<Sqe>();
        let entries = Map::new(fd, bytes, raw::IORING_OFF_SQES)?;
        let memory = Memory {
            rings,
            entries,
            off: Offsets {
                sq_head: sq.head,
                sq_tail: sq.tail,
                sq_flags: sq.flags,
                cq_head: cq.head,
                cq_tail: cq.tail,
                cqes: cq.cqes,
            },
            sq_mask: params.sq_entries - 1,
            cq_mask: params.cq_entries - 1,
        };
        if array {
            // Entry i is always named by index i.
            for index in 0..params.sq_entries {
                memory.word(sq.array + 4 * index).store(index, Ordering::Relaxed);
            }
        }
        Ok(memory)
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: `offset` came from `params` of this very ring: inside the mapping that `self` owns, and
        // 4-byte aligned. The other side only uses atomics on it as well.
        unsafe { AtomicU32::from_ptr((self.rings.at + offset as usize) as *mut u32) }
    }

    /// Entries in the submission queue.
    pub fn sq_entries(&self) -> u32 {
        self.sq_mask + 1
    }

    /// How far entries were consumed.
    pub fn sq_head(&self) -> u32 {
        // Acquire: pairs with the engine's release store; an entry is overwritten only after it was read.
        self.word(self.off.sq_head).load(Ordering::Acquire)
    }

    /// Makes entries up to `tail` visible.
    pub fn set_sq_tail(&mut self, tail: u32) {
        // Release: pairs with the engine's acquire load of the tail before it reads the entries.
        self.word(self.off.sq_tail).store(tail, Ordering::Release);
    }

    /// `IORING_SQ_*`.
    pub fn sq_flags(&self) -> u32 {
        self.word(self.off.sq_flags).load(Ordering::Relaxed)
    }

    /// Writes the entry at position `tail`, which must not be visible yet.
    pub fn write_entry(&mut self, tail: u32, sqe: Sqe) {
        let slot = (tail & self.sq_mask) as usize;
        // SAFETY: the masked slot lies in the mapped entries, and volatile since the engine maps them too;
        // it does not read the slot before the tail says so.
        unsafe { std::ptr::write_volatile((self.entries.at as *mut Sqe).add(slot), sqe) };
    }

    /// How far this side has taken completions. Written by this side alone.
    pub fn cq_head(&self) -> u32 {
        self.word(self.off.cq_head).load(Ordering::Relaxed)
    }

    /// Gives taken completions back to the ring.
    pub fn set_cq_head(&mut self, head: u32) {
        // Release: pairs with the engine's acquire load of the head before it overwrites a completion.
        self.word(self.off.cq_head).store(head, Ordering::Release);
    }

    /// How far completions are there.
    pub fn cq_tail(&self) -> u32 {
        // Acquire: pairs with the engine's release store of the tail, after it wrote the completions.
        self.word(self.off.cq_tail).load(Ordering::Acquire)
    }

    /// The completion at position `head`, which must be there.
    pub fn cqe(&self, head: u32) -> Cqe {
        let slot = (head & self.cq_mask) as usize;
        let first = (self.rings.at + self.off.cqes as usize) as *const Cqe;
        // SAFETY: the masked slot lies in the mapped completions; any bytes are a `Cqe`.
        unsafe { std::ptr::read_volatile(first.add(slot)) }
    }
}
