//! A minimal ring over a [`Backend`]: what the measurements drive, the same code for all of them.
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::sync::atomic::{AtomicU32, Ordering};

use soloring_abi::{Cqe, Params, Sqe, raw};

use crate::backend::Backend;

/// The flags of the fast path: one thread submits, completions are made while it waits.
pub const DEFERRED: u32 = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;

pub struct Ring<B: Backend> {
    backend: B,
    fd: u32,
    /// Submission and completion ring, then the entries: address and length in bytes.
    maps: [(usize, usize); 2],
    sqes: *mut Sqe,
    sq_tail: *const AtomicU32,
    cq_head: *const AtomicU32,
    cq_tail: *const AtomicU32,
    cqes: *const Cqe,
    sq_mask: u32,
    cq_mask: u32,
    tail: u32,
    head: u32,
    queued: u32,
}

/// Turns a raw result into a value or the error it stands for.
pub fn checked(result: isize, what: &str) -> io::Result<u32> {
    if result >= 0 {
        return Ok(result as u32);
    }
    let e = io::Error::from_raw_os_error(-result as i32);
    Err(io::Error::new(e.kind(), format!("{what}: {e}")))
}

impl<B: Backend> Ring<B> {
    /// A ring of `entries` submission and `2 * entries` completion entries.
    ///
    /// # Errors
    /// What `io_uring_setup` or the mapping of its memory answers.
    pub fn new(backend: B, entries: u32, flags: u32) -> io::Result<Ring<B>> {
        // SAFETY: all-zero bytes are valid parameters.
        let mut params: Params = unsafe { zeroed() };
        params.flags = flags;
        // SAFETY: `params` is a local and the flags make it name no memory.
        let fd = checked(unsafe { backend.setup(entries, &mut params) }, "io_uring_setup")?;
        let entry_bytes = params.sq_entries as usize * size_of::<Sqe>();
        let ring_bytes = (params.cq_off.cqes as usize
            + params.cq_entries as usize * size_of::<Cqe>())
        .max(params.sq_off.array as usize + params.sq_entries as usize * 4);
        let mut maps = [(0, ring_bytes), (0, entry_bytes)];
        let offsets = [raw::IORING_OFF_SQ_RING, raw::IORING_OFF_SQES];
        for (map, offset) in maps.iter_mut().zip(offsets) {
            // SAFETY: unmapped in `drop` only.
            let at = unsafe { backend.map(fd as i32, map.1, offset as i64) };
            if at < 0 {
                backend.close(fd as i32);
                return Err(io::Error::from_raw_os_error(-at as i32));
            }
            map.0 = at as usize;
        }
        let base = maps[0].0;
        let at = |offset: u32| (base + offset as usize) as *const AtomicU32;
        let (sq, cq) = (&params.sq_off, &params.cq_off);
        for index in 0..params.sq_entries {
            // SAFETY: the array lies within the mapping and nobody reads it before the first submission.
            unsafe {
                (base as *mut u32).byte_add(sq.array as usize + 4 * index as usize).write(index)
            };
        }
        Ok(Ring {
            backend,
            fd,
            maps,
            sqes: maps[1].0 as *mut Sqe,
            sq_tail: at(sq.tail),
            cq_head: at(cq.head),
            cq_tail: at(cq.tail),
            cqes: (base + cq.cqes as usize) as *const Cqe,
            sq_mask: params.sq_entries - 1,
            cq_mask: params.cq_entries - 1,
            tail: 0,
            head: 0,
            queued: 0,
        })
    }

    /// Writes one entry.
    ///
    /// # Safety
    /// Fewer entries than the ring has are queued, and what the entry points to stays valid until it
    /// has completed.
    #[inline]
    pub unsafe fn push(&mut self, sqe: Sqe) {
        debug_assert!(self.queued <= self.sq_mask);
        // SAFETY: the masked index lies within the mapped entries; the other side does not read the
        // slot before the tail below says so.
        unsafe { self.sqes.add((self.tail & self.sq_mask) as usize).write(sqe) };
        self.tail = self.tail.wrapping_add(1);
        self.queued += 1;
    }

    /// Submits everything queued and waits until `want` completions are there, taken or not.
    ///
    /// # Errors
    /// What `io_uring_enter` answers, or that it took fewer entries than were queued.
    #[inline]
    pub fn enter(&mut self, want: u32) -> io::Result<()> {
        let count = self.queued;
        self.queued = 0;
        // Release: pairs with the acquire load of the tail in the side that consumes the entries.
        // SAFETY: within the mapping, aligned as the ABI has it, live until `drop`.
        unsafe { (*self.sq_tail).store(self.tail, Ordering::Release) };
        let flags = raw::IORING_ENTER_GETEVENTS;
        // SAFETY: `push` had its callers vouch for the entries; there is no argument.
        let result =
            unsafe { self.backend.enter(self.fd, count, want, flags, std::ptr::null(), 0) };
        if result != count as isize {
            let taken = checked(result, "io_uring_enter")?;
            return Err(io::Error::other(format!(
                "io_uring_enter took {taken} of {count} entries"
            )));
        }
        Ok(())
    }

    /// Takes all completions there are; returns how many.
    #[inline]
    pub fn reap(&mut self, mut each: impl FnMut(Cqe)) -> u32 {
        // Acquire: pairs with the release store of the tail in the side that posts completions.
        // SAFETY: within the mapping, aligned as the ABI has it, live until `drop`.
        let tail = unsafe { (*self.cq_tail).load(Ordering::Acquire) };
        let count = tail.wrapping_sub(self.head);
        for _ in 0..count {
            // SAFETY: the masked index lies within the mapping, and the entry was posted before the tail.
            each(unsafe { self.cqes.add((self.head & self.cq_mask) as usize).read() });
            self.head = self.head.wrapping_add(1);
        }
        // Release: pairs with the acquire load of the head in the side that reuses the entries.
        // SAFETY: as for the tail.
        unsafe { (*self.cq_head).store(self.head, Ordering::Release) };
        count
    }

    /// Registers one file and a list of buffers.
    ///
    /// # Safety
    /// The buffers stay valid for the ring's life.
    pub unsafe fn register(&self, file: i32, buffers: &mut [libc::iovec]) -> io::Result<()> {
        use raw::io_uring_register_op::{IORING_REGISTER_BUFFERS, IORING_REGISTER_FILES};
        let mut fd = file;
        // SAFETY: one descriptor, as the count says.
        let result = unsafe {
            let files = (&raw mut fd).cast();
            self.backend.register(self.fd, IORING_REGISTER_FILES as u32, files, 1)
        };
        checked(result, "register files")?;
        // SAFETY: as many entries as the count says; the caller vouches for what they name.
        let result = unsafe {
            let list = buffers.as_mut_ptr().cast();
            let count = buffers.len() as u32;
            self.backend.register(self.fd, IORING_REGISTER_BUFFERS as u32, list, count)
        };
        checked(result, "register buffers").map(drop)
    }
}

impl<B: Backend> Drop for Ring<B> {
    fn drop(&mut self) {
        for (at, len) in self.maps {
            // SAFETY: mapped in `new`, and the pointers into them end with `self`.
            unsafe { self.backend.unmap(at, len) };
        }
        self.backend.close(self.fd as i32);
    }
}
