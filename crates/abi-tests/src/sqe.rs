//! Submission entries by name: one function per operation, and the flags as chained methods.

use soloring_abi::raw;
use soloring_abi::{Opcode, Sqe, Timespec, sqe_flags};

/// Chained changes to an entry.
pub trait SqeExt: Sized {
    fn ud(self, user_data: u64) -> Self;
    fn with(self, change: impl FnOnce(&mut Sqe)) -> Self;
    fn flag(self, bits: u8) -> Self;
    fn link(self) -> Self {
        self.flag(sqe_flags::IO_LINK)
    }
    fn hardlink(self) -> Self {
        self.flag(sqe_flags::IO_HARDLINK)
    }
    fn drain(self) -> Self {
        self.flag(sqe_flags::IO_DRAIN)
    }
    fn skip(self) -> Self {
        self.flag(sqe_flags::CQE_SKIP_SUCCESS)
    }
    fn forced_async(self) -> Self {
        self.flag(sqe_flags::ASYNC)
    }
    fn fixed(self) -> Self {
        self.flag(sqe_flags::FIXED_FILE)
    }
}

impl SqeExt for Sqe {
    fn ud(mut self, user_data: u64) -> Sqe {
        self.user_data = user_data;
        self
    }
    fn with(mut self, change: impl FnOnce(&mut Sqe)) -> Sqe {
        change(&mut self);
        self
    }
    fn flag(mut self, bits: u8) -> Sqe {
        self.flags |= bits;
        self
    }
}

/// File position "the file's own".
pub const CURRENT: u64 = u64::MAX;

/// An entry with the fields that most operations name.
pub fn op(opcode: Opcode, fd: i32, addr: u64, len: u32, off: u64) -> Sqe {
    Sqe { opcode: opcode as u8, fd, addr, len, off, ..Sqe::default() }
}

pub fn nop() -> Sqe {
    op(Opcode::Nop, -1, 0, 0, 0)
}
pub fn nop_result(result: i32) -> Sqe {
    op(Opcode::Nop, -1, 0, result as u32, 0).with(|s| s.op_flags = raw::IORING_NOP_INJECT_RESULT)
}
pub fn read(fd: i32, buf: &mut [u8], off: u64) -> Sqe {
    op(Opcode::Read, fd, buf.as_mut_ptr() as u64, buf.len() as u32, off)
}
pub fn write(fd: i32, buf: &[u8], off: u64) -> Sqe {
    op(Opcode::Write, fd, buf.as_ptr() as u64, buf.len() as u32, off)
}
pub fn readv(fd: i32, iov: &[libc::iovec], off: u64) -> Sqe {
    op(Opcode::Readv, fd, iov.as_ptr() as u64, iov.len() as u32, off)
}
pub fn writev(fd: i32, iov: &[libc::iovec], off: u64) -> Sqe {
    op(Opcode::Writev, fd, iov.as_ptr() as u64, iov.len() as u32, off)
}
pub fn read_fixed(fd: i32, addr: u64, len: u32, off: u64, buf_index: u16) -> Sqe {
    op(Opcode::ReadFixed, fd, addr, len, off).with(|s| s.buf_index = buf_index)
}
pub fn write_fixed(fd: i32, addr: u64, len: u32, off: u64, buf_index: u16) -> Sqe {
    op(Opcode::WriteFixed, fd, addr, len, off).with(|s| s.buf_index = buf_index)
}
pub fn fsync(fd: i32, flags: u32) -> Sqe {
    op(Opcode::Fsync, fd, 0, 0, 0).with(|s| s.op_flags = flags)
}
pub fn openat(dirfd: i32, path: &std::ffi::CStr, flags: i32, mode: u32) -> Sqe {
    op(Opcode::Openat, dirfd, path.as_ptr() as u64, mode, 0).with(|s| s.op_flags = flags as u32)
}
pub fn openat2(dirfd: i32, path: &std::ffi::CStr, how: &libc::open_how) -> Sqe {
    let how: *const libc::open_how = how;
    let size = size_of::<libc::open_how>() as u32;
    op(Opcode::Openat2, dirfd, path.as_ptr() as u64, size, how as u64)
}
pub fn close(fd: i32) -> Sqe {
    op(Opcode::Close, fd, 0, 0, 0)
}
/// CLOSE of a slot of the registered file table.
pub fn close_slot(slot: u32) -> Sqe {
    op(Opcode::Close, 0, 0, 0, 0).with(|s| s.file_index = slot + 1)
}
pub fn statx(
    dirfd: i32,
    path: &std::ffi::CStr,
    flags: i32,
    mask: u32,
    out: &mut libc::statx,
) -> Sqe {
    let out: *mut libc::statx = out;
    op(Opcode::Statx, dirfd, path.as_ptr() as u64, mask, out as u64)
        .with(|s| s.op_flags = flags as u32)
}
pub fn poll_add(fd: i32, events: u32) -> Sqe {
    op(Opcode::PollAdd, fd, 0, 0, 0).with(|s| s.op_flags = events)
}
pub fn poll_multi(fd: i32, events: u32) -> Sqe {
    poll_add(fd, events).with(|s| s.len = raw::IORING_POLL_ADD_MULTI)
}
pub fn poll_remove(target: u64) -> Sqe {
    op(Opcode::PollRemove, -1, target, 0, 0)
}
/// POLL_REMOVE as an update: `what` is `IORING_POLL_UPDATE_*`.
pub fn poll_update(target: u64, what: u32, new_user_data: u64, events: u32) -> Sqe {
    op(Opcode::PollRemove, -1, target, what, new_user_data).with(|s| s.op_flags = events)
}
pub fn timeout(ts: &Timespec, count: u64, flags: u32) -> Sqe {
    let ts: *const Timespec = ts;
    op(Opcode::Timeout, -1, ts as u64, 1, count).with(|s| s.op_flags = flags)
}
pub fn timeout_remove(target: u64) -> Sqe {
    op(Opcode::TimeoutRemove, -1, target, 0, 0)
}
pub fn timeout_update(target: u64, ts: &Timespec, flags: u32) -> Sqe {
    let ts: *const Timespec = ts;
    op(Opcode::TimeoutRemove, -1, target, 0, ts as u64)
        .with(|s| s.op_flags = flags | raw::IORING_TIMEOUT_UPDATE)
}
pub fn link_timeout(ts: &Timespec, flags: u32) -> Sqe {
    let ts: *const Timespec = ts;
    op(Opcode::LinkTimeout, -1, ts as u64, 1, 0).with(|s| s.op_flags = flags)
}
/// ASYNC_CANCEL; `key` is the user data (or 0) and `fd` the descriptor for the fd keys.
pub fn cancel(key: u64, fd: i32, flags: u32) -> Sqe {
    op(Opcode::AsyncCancel, fd, key, 0, 0).with(|s| s.op_flags = flags)
}
pub fn accept(fd: i32, flags: i32) -> Sqe {
    op(Opcode::Accept, fd, 0, 0, 0).with(|s| s.op_flags = flags as u32)
}
pub fn connect(fd: i32, addr: u64, addrlen: u32) -> Sqe {
    op(Opcode::Connect, fd, addr, 0, addrlen as u64)
}
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Sqe {
    op(Opcode::Socket, domain, 0, protocol as u32, kind as u64)
}
pub fn bind(fd: i32, addr: u64, addrlen: u32) -> Sqe {
    op(Opcode::Bind, fd, addr, 0, addrlen as u64)
}
pub fn listen(fd: i32, backlog: u32) -> Sqe {
    op(Opcode::Listen, fd, 0, backlog, 0)
}
pub fn shutdown(fd: i32, how: i32) -> Sqe {
    op(Opcode::Shutdown, fd, 0, how as u32, 0)
}
pub fn send(fd: i32, buf: &[u8], msg_flags: i32) -> Sqe {
    op(Opcode::Send, fd, buf.as_ptr() as u64, buf.len() as u32, 0)
        .with(|s| s.op_flags = msg_flags as u32)
}
pub fn recv(fd: i32, buf: &mut [u8], msg_flags: i32) -> Sqe {
    op(Opcode::Recv, fd, buf.as_mut_ptr() as u64, buf.len() as u32, 0)
        .with(|s| s.op_flags = msg_flags as u32)
}
pub fn sendmsg(fd: i32, msg: &libc::msghdr, msg_flags: i32) -> Sqe {
    let msg: *const libc::msghdr = msg;
    op(Opcode::Sendmsg, fd, msg as u64, 1, 0).with(|s| s.op_flags = msg_flags as u32)
}
pub fn recvmsg(fd: i32, msg: &mut libc::msghdr, msg_flags: i32) -> Sqe {
    let msg: *mut libc::msghdr = msg;
    op(Opcode::Recvmsg, fd, msg as u64, 1, 0).with(|s| s.op_flags = msg_flags as u32)
}

/// A span of time for a request, in milliseconds.
pub const fn ms(millis: i64) -> Timespec {
    Timespec { tv_sec: millis / 1000, tv_nsec: (millis % 1000) * 1_000_000 }
}
