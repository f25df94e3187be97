//! ACCEPT, CONNECT, SOCKET, BIND, LISTEN, SHUTDOWN.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, retry_eintr, unfailing, wants_alloc};
use crate::creds::sys_as;
use crate::ops::fs::publish_fd;
use crate::req::{AddrData, AsyncData, Req, flag};
use crate::state::State;
use crate::sys::{self, sys};
use crate::usercopy;
use soloring_abi::{Errno, raw};
use soloring_iowq::{Class, Interrupt};

pub const ACCEPT: OpDef = OpDef {
    prep: accept_prep,
    issue: accept_issue,
    needs_file: true,
    ioprio: true,
    pollable: true,
    ..BASE
};
pub const CONNECT: OpDef = OpDef {
    prep: connect_prep,
    issue: connect_issue,
    run: connect_run,
    has_run: true,
    stabilise: addr_kept,
    needs_file: true,
    pollable: true,
    ..BASE
};
pub const SOCKET: OpDef = OpDef { prep: socket_prep, issue: socket_issue, ..BASE };
pub const BIND: OpDef = OpDef { prep: bind_prep, issue: bind_issue, needs_file: true, ..BASE };
pub const LISTEN: OpDef =
    OpDef { prep: listen_prep, issue: listen_issue, needs_file: true, ..BASE };
pub const SHUTDOWN: OpDef =
    OpDef { prep: shutdown_prep, issue: shutdown_issue, needs_file: true, ..BASE };

const POLLOUT: u32 = libc::POLLOUT as u32;
const ECONNABORTED: Errno = Errno(libc::ECONNABORTED);
const EISCONN: Errno = Errno(libc::EISCONN);
const SOCK_FLAGS: u32 = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u32;

/// Runs `call` with O_NONBLOCK set on the file description.
///
/// accept(2) and connect(2) have no per-call flag for it. Setting it for the length of one call is
/// seen by other users of the same description only if they start a blocking call in that window.
fn with_nonblock<T>(fd: i32, call: impl FnOnce() -> T) -> T {
    let flags = sys::fcntl(fd, libc::F_GETFL, 0).unwrap_or(0) as i32;
    if flags & libc::O_NONBLOCK != 0 {
        return call();
    }
    let _ = sys::fcntl(fd, libc::F_SETFL, (flags | libc::O_NONBLOCK) as usize);
    let result = call();
    let _ = sys::fcntl(fd, libc::F_SETFL, flags as usize);
    result
}

fn accept_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.len as u64, sqe.buf_index as u64])?;
    let known =
        raw::IORING_ACCEPT_MULTISHOT | raw::IORING_ACCEPT_DONTWAIT | raw::IORING_ACCEPT_POLL_FIRST;
    let how = sqe.ioprio as u32;
    let multishot = how & raw::IORING_ACCEPT_MULTISHOT != 0;
    if how & !known != 0 {
        return Err(Errno::EINVAL);
    }
    if sqe.file_index != 0
        && (sqe.op_flags & libc::SOCK_CLOEXEC as u32 != 0
            || multishot && !wants_alloc(sqe.file_index))
    {
        return Err(Errno::EINVAL);
    }
    if sqe.op_flags & !SOCK_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if multishot {
        req.flags |= flag::MULTISHOT;
    }
    if how & raw::IORING_ACCEPT_DONTWAIT != 0 {
        req.flags |= flag::NOWAIT;
    }
    Ok(())
}

fn accept_issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    let how = req.sqe.ioprio as u32;
    if attempt == Attempt::First
        && how & raw::IORING_ACCEPT_POLL_FIRST != 0
        && how & raw::IORING_ACCEPT_DONTWAIT == 0
    {
        return Outcome::Arm(libc::POLLIN as u32);
    }
    loop {
        let (fd, addr, addr_len) = (req.fd(), req.sqe.addr, req.sqe.off);
        let mut sock_flags = req.sqe.op_flags;
        if req.sqe.file_index != 0 {
            sock_flags |= libc::SOCK_CLOEXEC as u32;
        }
        // SAFETY: the kernel checks the program's address buffers.
        let accepted =
            with_nonblock(fd, || unsafe { sys_as!(req, accept4, fd, addr, addr_len, sock_flags) });
        let low = match accepted {
            Ok(fd) => fd as i32,
            Err(Errno::EAGAIN) if !req.has(flag::NOWAIT) => {
                return Outcome::Arm(libc::POLLIN as u32);
            }
            Err(Errno::EINTR | Errno::ERESTART) => continue,
            Err(e) => return Outcome::err(e),
        };
        let res = match publish_fd(st, req, low) {
            Ok(res) => res,
            Err(e) => return Outcome::err(e),
        };
        // More connections wait: the program may accept again without polling.
        let more = sys::poll_now(fd, libc::POLLIN) & libc::POLLIN != 0;
        let cflags = if more { raw::IORING_CQE_F_SOCK_NONEMPTY } else { 0 };
        if !req.has(flag::MULTISHOT) {
            return Outcome::Done(res, cflags);
        }
        if !st.post_more(req.sqe.user_data, res, cflags) {
            return Outcome::Done(res, cflags);
        }
        if !more {
            return Outcome::Arm(libc::POLLIN as u32);
        }
    }
}

/// Copies a socket address of `len` bytes.
///
/// # Errors
/// EINVAL when longer than any address, EFAULT.
pub fn read_addr(addr: u64, len: u64) -> Result<Box<AddrData>, Errno> {
    if len as i32 as i64 != len as i64 || len > 128 {
        return Err(Errno::EINVAL);
    }
    let mut data = Box::new(AddrData { bytes: [0; 128], len: len as u32 });
    if len > 0 {
        data.bytes[..len as usize].copy_from_slice(&usercopy::read_vec::<u8>(addr, len as usize)?);
    }
    Ok(data)
}

/// The address was copied in prep.
fn addr_kept(_: &mut Req) -> Result<(), Errno> {
    Ok(())
}

fn copied_addr(req: &Req) -> (*const u8, u32) {
    match &req.data {
        AsyncData::Addr(a) => (a.bytes.as_ptr(), a.len),
        _ => (std::ptr::null(), 0),
    }
}

fn connect_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    copy_addr_prep(req)
}

fn copy_addr_prep(req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        sqe.len as u64,
        sqe.buf_index as u64,
        sqe.op_flags as u64,
        sqe.file_index as u64,
    ])?;
    // The length is an int in the low half of `addr2`.
    req.data = AsyncData::Addr(read_addr(sqe.addr, sqe.off as u32 as i32 as u64)?);
    req.flags |= flag::STABLE;
    Ok(())
}

fn socket_error(fd: i32) -> Result<i32, Errno> {
    let (mut error, mut len) = (0i32, 4u32);
    // SAFETY: writes one int and one length on our stack.
    unsafe {
        sys!(getsockopt, fd, libc::SOL_SOCKET, libc::SO_ERROR, &raw mut error, &raw mut len)
    }?;
    Ok(-error)
}

fn connect_issue(_: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    connect_once(req, attempt)
}

fn connect_once(req: &mut Req, attempt: Attempt) -> Outcome {
    let fd = req.fd();
    let started = req.has(flag::IN_PROGRESS);
    if let (true, Attempt::Ready(events)) = (started, attempt)
        && events & libc::POLLERR as u32 != 0
    {
        return socket_error(fd).into();
    }
    let (addr, len) = copied_addr(req);
    // SAFETY: the address is our copy of `len` bytes.
    match with_nonblock(fd, || unsafe { sys_as!(req, connect, fd, addr, len) }) {
        Ok(_) => Outcome::Done(0, 0),
        Err(Errno::EINPROGRESS | Errno::EALREADY) if started => Outcome::Arm(POLLOUT),
        Err(Errno::EINPROGRESS) => {
            req.flags |= flag::IN_PROGRESS;
            Outcome::Arm(POLLOUT)
        }
        // A UNIX listener whose backlog is full: its space cannot be polled for, only waited for.
        Err(Errno::EAGAIN) => Outcome::Punt(Class::Unbounded),
        // A UNIX peer that was torn down meanwhile: once more, as the kernel does.
        Err(ECONNABORTED) if !req.has(flag::RETRIED) => {
            req.flags |= flag::RETRIED;
            connect_once(req, attempt)
        }
        // The connection of the earlier attempt stands, or says why not.
        Err(Errno::EBADFD | EISCONN) if started => socket_error(fd).into(),
        Err(e) => Outcome::err(e),
    }
}

/// Waits for room in a listener's backlog.
fn connect_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (addr, len) = copied_addr(req);
    let fd = req.fd();
    loop {
        // SAFETY: the address is our copy of `len` bytes.
        let connected = retry_eintr(interrupt, || unsafe { sys_as!(req, connect, fd, addr, len) });
        // A descriptor with O_NONBLOCK set cannot wait in the call: look again, slowly.
        if connected != Err(Errno::EAGAIN) || interrupt.cancelled() {
            return sys::as_res(connected);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn socket_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.addr, sqe.op_flags as u64, sqe.buf_index as u64])?;
    let flags = sqe.off as u32 & !0xf;
    if sqe.file_index != 0 && flags & libc::SOCK_CLOEXEC as u32 != 0 || flags & !SOCK_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn socket_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let sqe = &req.sqe;
    // SAFETY: no memory involved.
    match unsafe { sys_as!(req, socket, sqe.fd, sqe.off as u32, sqe.len) } {
        Ok(fd) => {
            // There is a socket. That its slot refuses it does not count as a failure in Linux 6.18.
            req.flags |= flag::NO_FAIL;
            publish_fd(st, req, fd as i32).into()
        }
        Err(e) => Outcome::err(e),
    }
}

fn bind_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    copy_addr_prep(req)
}

fn bind_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let (addr, len) = copied_addr(req);
    // SAFETY: the address is our copy of `len` bytes.
    Outcome::Done(sys::as_res(unsafe { sys_as!(req, bind, req.fd(), addr, len) }), 0)
}

fn listen_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        sqe.addr,
        sqe.buf_index as u64,
        sqe.op_flags as u64,
        sqe.file_index as u64,
        sqe.off,
    ])
}

fn listen_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    // SAFETY: no memory involved.
    Outcome::Done(sys::as_res(unsafe { sys_as!(req, listen, req.fd(), req.sqe.len) }), 0)
}

fn shutdown_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[
        sqe.off,
        sqe.addr,
        sqe.op_flags as u64,
        sqe.buf_index as u64,
        sqe.file_index as u64,
    ])
}

fn shutdown_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    // SAFETY: no memory involved.
    match unsafe { sys_as!(req, shutdown, req.fd(), req.sqe.len) } {
        // Found before the work begins: these count as failures.
        Err(e @ (Errno::EBADF | Errno::ENOTSOCK)) => Outcome::err(e),
        done => Outcome::Done(unfailing(req, done), 0),
    }
}
