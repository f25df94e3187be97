//! Submission entries by name: one function for each common operation, modifiers as chained methods.
//!
//! An operation that has no function here is made from its fields with [`Entry::from`]. The fields are those of
//! `struct io_uring_sqe`, described in io_uring_enter(2).

use soloring_abi::{Opcode, Sqe, Timespec, raw, sqe_flags};
use std::ffi::CStr;
use std::os::fd::RawFd;

/// A request to be pushed to a [`crate::Ring`]. Making one is safe; pushing it is where its pointers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry(pub(crate) Sqe);

impl From<Sqe> for Entry {
    fn from(sqe: Sqe) -> Entry {
        Entry(sqe)
    }
}

impl From<Entry> for Sqe {
    fn from(entry: Entry) -> Sqe {
        entry.0
    }
}

impl Entry {
    /// A number that comes back in the completion.
    pub fn user_data(mut self, data: u64) -> Entry {
        self.0.user_data = data;
        self
    }

    /// The next entry starts when this one has succeeded (IOSQE_IO_LINK).
    pub fn link(self) -> Entry {
        self.flag(sqe_flags::IO_LINK)
    }

    /// The next entry starts when this one has ended, however (IOSQE_IO_HARDLINK).
    pub fn hardlink(self) -> Entry {
        self.flag(sqe_flags::IO_HARDLINK)
    }

    /// Starts when everything submitted before has ended (IOSQE_IO_DRAIN).
    pub fn drain(self) -> Entry {
        self.flag(sqe_flags::IO_DRAIN)
    }

    /// No attempt by the submitting thread (IOSQE_ASYNC).
    pub fn force_async(self) -> Entry {
        self.flag(sqe_flags::ASYNC)
    }

    /// The descriptor is an index into the registered files (IOSQE_FIXED_FILE).
    pub fn fixed_file(self) -> Entry {
        self.flag(sqe_flags::FIXED_FILE)
    }

    /// No completion if it succeeds (IOSQE_CQE_SKIP_SUCCESS).
    pub fn skip_success(self) -> Entry {
        self.flag(sqe_flags::CQE_SKIP_SUCCESS)
    }

    fn flag(mut self, flag: u8) -> Entry {
        self.0.flags |= flag;
        self
    }
}

fn new(op: Opcode, fd: RawFd, addr: u64, len: u32, off: u64) -> Sqe {
    Sqe { opcode: op as u8, fd, addr, len, off, ..Sqe::default() }
}

/// Does nothing, and completes with 0.
pub fn nop() -> Entry {
    Entry(new(Opcode::Nop, -1, 0, 0, 0))
}

/// pread(2) of `len` bytes at byte `offset`; `u64::MAX` means the file's own position.
pub fn read(fd: RawFd, buf: *mut u8, len: u32, offset: u64) -> Entry {
    Entry(new(Opcode::Read, fd, buf as u64, len, offset))
}

/// pwrite(2) of `len` bytes at byte `offset`; `u64::MAX` means the file's own position.
pub fn write(fd: RawFd, buf: *const u8, len: u32, offset: u64) -> Entry {
    Entry(new(Opcode::Write, fd, buf as u64, len, offset))
}

/// As [`read`], into registered buffer `index`.
pub fn read_fixed(fd: RawFd, buf: *mut u8, len: u32, offset: u64, index: u16) -> Entry {
    Entry(Sqe { buf_index: index, ..new(Opcode::ReadFixed, fd, buf as u64, len, offset) })
}

/// As [`write()`], from registered buffer `index`.
pub fn write_fixed(fd: RawFd, buf: *const u8, len: u32, offset: u64, index: u16) -> Entry {
    Entry(Sqe { buf_index: index, ..new(Opcode::WriteFixed, fd, buf as u64, len, offset) })
}

/// preadv(2) with `count` vectors.
pub fn readv(fd: RawFd, iov: *const libc::iovec, count: u32, offset: u64) -> Entry {
    Entry(new(Opcode::Readv, fd, iov as u64, count, offset))
}

/// pwritev(2) with `count` vectors.
pub fn writev(fd: RawFd, iov: *const libc::iovec, count: u32, offset: u64) -> Entry {
    Entry(new(Opcode::Writev, fd, iov as u64, count, offset))
}

/// fsync(2), or fdatasync(2).
pub fn fsync(fd: RawFd, data_only: bool) -> Entry {
    let flags = if data_only { raw::IORING_FSYNC_DATASYNC } else { 0 };
    Entry(Sqe { op_flags: flags, ..new(Opcode::Fsync, fd, 0, 0, 0) })
}

/// openat(2). Completes with the new descriptor. The path has to live until the entry is submitted.
pub fn openat(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> Entry {
    let sqe = new(Opcode::Openat, dir, path.as_ptr() as u64, mode, 0);
    Entry(Sqe { op_flags: flags as u32, ..sqe })
}

/// close(2).
pub fn close(fd: RawFd) -> Entry {
    Entry(new(Opcode::Close, fd, 0, 0, 0))
}

/// accept4(2) without the peer's address. Completes with the new descriptor.
pub fn accept(fd: RawFd, flags: i32) -> Entry {
    Entry(Sqe { op_flags: flags as u32, ..new(Opcode::Accept, fd, 0, 0, 0) })
}

/// One completion for each connection, until it fails or is cancelled.
pub fn accept_multishot(fd: RawFd, flags: i32) -> Entry {
    let mut entry = accept(fd, flags);
    entry.0.ioprio = raw::IORING_ACCEPT_MULTISHOT as u16;
    entry
}

/// connect(2). The address has to live until the entry is submitted.
pub fn connect(fd: RawFd, addr: *const libc::sockaddr, len: libc::socklen_t) -> Entry {
    Entry(new(Opcode::Connect, fd, addr as u64, 0, len as u64))
}

/// send(2).
pub fn send(fd: RawFd, buf: *const u8, len: u32, flags: i32) -> Entry {
    Entry(Sqe { op_flags: flags as u32, ..new(Opcode::Send, fd, buf as u64, len, 0) })
}

/// recv(2).
pub fn recv(fd: RawFd, buf: *mut u8, len: u32, flags: i32) -> Entry {
    Entry(Sqe { op_flags: flags as u32, ..new(Opcode::Recv, fd, buf as u64, len, 0) })
}

/// shutdown(2).
pub fn shutdown(fd: RawFd, how: i32) -> Entry {
    Entry(new(Opcode::Shutdown, fd, 0, how as u32, 0))
}

/// Completes with the poll events that are there, once some of `events` (`POLLIN`, ...) are.
pub fn poll_add(fd: RawFd, events: u32) -> Entry {
    Entry(Sqe { op_flags: events, ..new(Opcode::PollAdd, fd, 0, 0, 0) })
}

/// Completes with -ETIME after the time in `ts`, or with 0 after `count` other completions if `count` is not 0.
/// The timespec has to live until the entry is submitted.
pub fn timeout(ts: &Timespec, count: u32) -> Entry {
    Entry(new(Opcode::Timeout, -1, std::ptr::from_ref(ts) as u64, 1, count as u64))
}

/// Cancels the entry before it, which must be linked to it, after the time in `ts`.
/// The timespec has to live until the entry is submitted.
pub fn link_timeout(ts: &Timespec) -> Entry {
    Entry(new(Opcode::LinkTimeout, -1, std::ptr::from_ref(ts) as u64, 1, 0))
}

/// Cancels the request that was pushed with this user data.
pub fn cancel(user_data: u64) -> Entry {
    Entry(new(Opcode::AsyncCancel, -1, user_data, 0, 0))
}
