//! Provided buffers as the cases use them: entries for classic ones, and a buffer ring in memory.
#![allow(unsafe_code)]

use crate::res::Res;
use crate::ring::{Done, Ring};
use crate::sqe::{SqeExt, op};
use crate::sys;
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};
use std::sync::atomic::{AtomicU16, Ordering};

pub const REGISTER: u32 = raw::io_uring_register_op::IORING_REGISTER_PBUF_RING as u32;
pub const UNREGISTER: u32 = raw::io_uring_register_op::IORING_UNREGISTER_PBUF_RING as u32;
pub const STATUS: u32 = raw::io_uring_register_op::IORING_REGISTER_PBUF_STATUS as u32;
/// Flags of a buffer ring.
pub const MMAP: u16 = 1;
pub const INC: u16 = 2;

/// PROVIDE_BUFFERS: `nr` buffers of `len` bytes each from `addr` on, numbered from `bid` on.
pub fn provide(addr: u64, len: u32, nr: i32, group: u16, bid: u64) -> Sqe {
    op(Opcode::ProvideBuffers, nr, addr, len, bid).with(|s| s.buf_index = group)
}

pub fn remove(nr: i32, group: u16) -> Sqe {
    op(Opcode::RemoveBuffers, nr, 0, 0, 0).with(|s| s.buf_index = group)
}

/// The request takes its buffer from `group`.
pub fn select(sqe: Sqe, group: u16) -> Sqe {
    sqe.flag(sqe_flags::BUFFER_SELECT).with(|s| s.buf_index = group)
}

/// Number of the buffer that a completion used.
pub fn buffer_of(done: &Done) -> Option<u16> {
    (done.flags & raw::IORING_CQE_F_BUFFER != 0).then_some((done.flags >> 16) as u16)
}

/// Result and flags without "the socket has more", which is a hint.
pub fn plain(done: &Done) -> (Res, u32) {
    (done.res, done.flags & !raw::IORING_CQE_F_SOCK_NONEMPTY)
}

/// Fills a TCP connection until nothing moves any more: what was sent makes room a little later, when
/// the other side has taken it in. Returns the bytes that went in.
pub fn clog(fd: i32) -> i64 {
    let mut total = 0;
    loop {
        let n = sys::fill(fd);
        total += n as i64;
        if n == 0 {
            return total;
        }
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
}

/// Argument of the registration.
pub fn reg(addr: u64, entries: u32, group: u16, flags: u16) -> raw::io_uring_buf_reg {
    raw::io_uring_buf_reg {
        ring_addr: addr,
        ring_entries: entries,
        bgid: group,
        flags,
        resv: [0; 3],
    }
}

/// A registered buffer ring, filled by the case.
pub struct BufRing {
    at: *mut u8,
    entries: u32,
    group: u16,
    tail: u16,
}

impl BufRing {
    /// A ring in memory of the case's; it must come up.
    pub fn register(ring: &Ring, entries: u32, group: u16, flags: u16) -> BufRing {
        let at = sys::buffer((entries as usize * 16).next_multiple_of(4096)).as_mut_ptr();
        let res = ring.register(REGISTER, &reg(at as u64, entries, group, flags), 1);
        assert!(!res.is_err(), "registering a buffer ring = {res}");
        BufRing { at, entries, group, tail: 0 }
    }

    /// A ring in memory of the ring's (`IOU_PBUF_RING_MMAP`).
    pub fn mapped(ring: &Ring, entries: u32, group: u16, flags: u16) -> BufRing {
        let res = ring.register(REGISTER, &reg(0, entries, group, flags | MMAP), 1);
        assert!(!res.is_err(), "registering a buffer ring = {res}");
        let off = raw::IORING_OFF_PBUF_RING as i64 | (group as i64) << raw::IORING_OFF_PBUF_SHIFT;
        let at = ring.abi.mmap(ring.fd, entries as usize * 16, off);
        assert!(!at.is_err(), "mapping a buffer ring = {at}");
        BufRing { at: at.0 as usize as *mut u8, entries, group, tail: 0 }
    }

    /// A ring that the case registered itself.
    pub fn over(at: u64, entries: u32, group: u16) -> BufRing {
        BufRing { at: at as usize as *mut u8, entries, group, tail: 0 }
    }

    pub fn addr(&self) -> u64 {
        self.at as u64
    }

    /// Adds a buffer and publishes it.
    pub fn add(&mut self, buf: &[u8], bid: u16) {
        self.add_raw(buf.as_ptr() as u64, buf.len() as u32, bid);
    }

    pub fn add_raw(&mut self, addr: u64, len: u32, bid: u16) {
        let slot = (self.tail as u32 & (self.entries - 1)) as usize;
        // SAFETY: the slot lies inside the ring; its last two bytes are the tail's in slot 0 and are
        // left alone.
        unsafe {
            let entry = self.at.add(slot * 16);
            entry.cast::<u64>().write_volatile(addr);
            entry.add(8).cast::<u32>().write_volatile(len);
            entry.add(12).cast::<u16>().write_volatile(bid);
        }
        self.set_tail(self.tail.wrapping_add(1));
    }

    /// Publishes a tail, sensible or not.
    pub fn set_tail(&mut self, tail: u16) {
        self.tail = tail;
        // SAFETY: bytes 14 and 15 of the ring are its tail; mapped as long as the case runs.
        let word = unsafe { AtomicU16::from_ptr(self.at.add(14).cast()) };
        // Release: pairs with the ring's acquire load; the entries must be seen with the tail.
        word.store(tail, Ordering::Release);
    }

    /// Address, length and number in a slot.
    pub fn entry(&self, slot: usize) -> (u64, u32, u16) {
        assert!(slot < self.entries as usize);
        // SAFETY: inside the ring.
        unsafe {
            let entry = self.at.add(slot * 16);
            (
                entry.cast::<u64>().read_volatile(),
                entry.add(8).cast::<u32>().read_volatile(),
                entry.add(12).cast::<u16>().read_volatile(),
            )
        }
    }

    /// How many buffers were taken so far (PBUF_STATUS).
    pub fn head(&self, ring: &Ring) -> u32 {
        let mut status = [0u32; 10];
        status[0] = self.group as u32;
        let res = ring.register(STATUS, status.as_mut_ptr(), 1);
        assert!(!res.is_err(), "status of a buffer ring = {res}");
        status[1]
    }

    pub fn unregister(&self, ring: &Ring) -> Res {
        ring.register(UNREGISTER, &reg(0, 0, self.group, 0), 1)
    }
}
