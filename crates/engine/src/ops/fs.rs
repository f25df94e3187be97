//! FSYNC, OPENAT, OPENAT2, CLOSE, STATX.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero, retry_eintr, unfailing};
use crate::closes::note_close;
use crate::creds::sys_as;
use crate::fds::{self, Watchers};
use crate::req::{AsyncData, OpenHow, Req, flag};
use crate::state::State;
use crate::sys::{self, sys};
use crate::{lent, usercopy};
use soloring_abi::{Errno, Opcode, raw, sqe_flags};
use soloring_iowq::{Class, Interrupt};

pub const FSYNC: OpDef = OpDef {
    prep: fsync_prep,
    issue: punt_bounded,
    run: fsync_run,
    has_run: true,
    needs_file: true,
    always_async: true,
    ..BASE
};
pub const OPENAT: OpDef = OpDef {
    prep: open_prep,
    issue: open_issue,
    run: open_run,
    has_run: true,
    stabilise: open_stabilise,
    ..BASE
};
pub const OPENAT2: OpDef = OpDef { ..OPENAT };
pub const CLOSE: OpDef = OpDef {
    prep: close_prep,
    issue: close_issue,
    run: close_run,
    has_run: true,
    block_when: names_descriptor,
    ..BASE
};
pub const STATX: OpDef = OpDef {
    prep: statx_prep,
    issue: punt_unbounded,
    run: statx_run,
    has_run: true,
    stabilise: path_stabilise,
    always_async: true,
    ..BASE
};

pub fn punt_bounded(_: &mut State, _: &mut Req, _: Attempt) -> Outcome {
    Outcome::Punt(Class::Bounded)
}

pub fn punt_unbounded(_: &mut State, _: &mut Req, _: Attempt) -> Outcome {
    Outcome::Punt(Class::Unbounded)
}

fn fsync_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.addr, sqe.buf_index as u64, sqe.file_index as u64])?;
    // The range is not used otherwise: fsync(2) has none.
    if sqe.op_flags & !raw::IORING_FSYNC_DATASYNC != 0 || (sqe.off as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn fsync_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let fd = req.fd();
    let data_only = req.sqe.op_flags & raw::IORING_FSYNC_DATASYNC != 0;
    // SAFETY: no memory involved.
    let done = retry_eintr(interrupt, || unsafe {
        if data_only { sys_as!(req, fdatasync, fd) } else { sys_as!(req, fsync, fd) }
    });
    unfailing(req, done)
}

/// Refuses what no path operation takes: a registered file as directory.
pub fn no_fixed_file(req: &Req) -> Result<(), Errno> {
    if req.sqe.flags & sqe_flags::FIXED_FILE != 0 { Err(Errno::EBADF) } else { Ok(()) }
}

/// Copies the path at `sqe->addr`.
pub fn path_stabilise(req: &mut Req) -> Result<(), Errno> {
    req.data = AsyncData::Path(usercopy::read_path(req.sqe.addr)?);
    Ok(())
}

/// Address of the path: our copy, or still the program's during the inline attempt.
pub fn path_ptr(req: &Req) -> u64 {
    match &req.data {
        AsyncData::Path(p) => p.as_ptr() as u64,
        AsyncData::OpenHow(b) => b.0.as_ptr() as u64,
        _ => req.sqe.addr,
    }
}

/// What makes or empties a file waits for storage: O_TRUNC, O_CREAT, and the own bit of O_TMPFILE.
const NEEDS_WORKER: u64 = (libc::O_TRUNC | libc::O_CREAT | 0o20000000) as u64;

/// The open parameters first, then the path, then what depends on both: the kernel's order.
fn open_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let how = read_how(req)?;
    if req.sqe.buf_index != 0 {
        return Err(Errno::EINVAL);
    }
    no_fixed_file(req)?;
    let plain = req.has(flag::PLAIN) && req.sqe.opcode == Opcode::Openat as u8;
    if plain && req.sqe.file_index == 0 && how.flags & NEEDS_WORKER == 0 {
        req.flags |= flag::LENT;
        return Ok(());
    }
    let path = read_name(req.sqe.addr)?;
    if req.sqe.file_index != 0 && how.flags & libc::O_CLOEXEC as u64 != 0 {
        return Err(Errno::EINVAL);
    }
    req.data = AsyncData::OpenHow(Box::new((path, how)));
    req.flags |= flag::STABLE;
    Ok(())
}

/// Copies the path of an OPENAT.
fn copy_open(req: &mut Req) -> Result<(), Errno> {
    let (path, how) = (read_name(req.sqe.addr)?, read_how(req)?);
    req.data = AsyncData::OpenHow(Box::new((path, how)));
    req.flags |= flag::STABLE;
    Ok(())
}

fn open_stabilise(req: &mut Req) -> Result<(), Errno> {
    if req.has(flag::LENT) { lent::take(req, copy_open) } else { Ok(()) }
}

/// A path that must not be empty.
///
/// # Errors
/// EFAULT, ENAMETOOLONG, ENOENT.
pub fn read_name(addr: u64) -> Result<std::ffi::CString, Errno> {
    let path = usercopy::read_path(addr)?;
    if path.is_empty() { Err(Errno::ENOENT) } else { Ok(path) }
}

/// The open parameters of OPENAT and OPENAT2 in one form.
fn read_how(req: &Req) -> Result<OpenHow, Errno> {
    let sqe = &req.sqe;
    if sqe.opcode == Opcode::Openat as u8 {
        return Ok(OpenHow { flags: sqe.op_flags as u64, mode: sqe.len as u64, resolve: 0 });
    }
    const SIZE: u64 = size_of::<OpenHow>() as u64;
    let size = sqe.len as u64;
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    usercopy::access_ok(sqe.off, size)?;
    // A longer structure is a newer program's: fine as long as what we do not know is zero. Page by page,
    // as what is not zero comes before what cannot be read.
    let (mut at, end) = (sqe.off + SIZE, sqe.off + size);
    while at < end {
        let chunk = (end - at).min(4096 - at % 4096);
        let rest: Vec<u8> = usercopy::read_vec(at, chunk as usize)?;
        if rest.iter().any(|b| *b != 0) {
            return Err(Errno::E2BIG);
        }
        at += chunk;
    }
    let [flags, mode, resolve] = usercopy::read::<[u64; 3]>(sqe.off)?;
    Ok(OpenHow { flags, mode, resolve })
}

fn open_how(req: &Req) -> Result<OpenHow, Errno> {
    match &req.data {
        AsyncData::OpenHow(b) => Ok(b.1),
        _ => read_how(req),
    }
}

/// One open with the request's own call, so that each answers what the kernel answers for it.
fn open_call(req: &Req, how: OpenHow, plain: bool) -> Result<usize, Errno> {
    let path = path_ptr(req);
    // SAFETY: the path is ours or checked by the kernel; `how` is on our stack and only read.
    unsafe {
        if plain {
            sys_as!(req, openat, req.sqe.fd, path, how.flags, how.mode)
        } else {
            sys_as!(req, openat2, req.sqe.fd, path, &raw const how, size_of::<OpenHow>())
        }
    }
}

/// Gives the new descriptor to the program, or to the file table (direct descriptor).
pub fn publish_fd(st: &mut State, req: &Req, low: i32) -> Result<i32, Errno> {
    if req.sqe.file_index == 0 {
        return Ok(low);
    }
    let high = fds::make_private(low)?;
    st.install_file(high, req.sqe.file_index)
}

fn open_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    if req.res > 0 {
        // A worker opened it for the file table: install it under the lock.
        return publish_fd(st, req, req.res - 1).into();
    }
    let how = match open_how(req) {
        Ok(how) => how,
        Err(e) => return Outcome::err(e),
    };
    const RESOLVE_CACHED: u64 = 0x20;
    if how.flags & NEEDS_WORKER != 0 {
        return Outcome::Punt(Class::Unbounded);
    }
    let non_block = libc::O_NONBLOCK as u64;
    let is_openat = req.sqe.opcode == Opcode::Openat as u8;
    let mut try_how = how;
    if is_openat {
        // openat(2) ignores what openat2(2) refuses.
        const VALID: u64 = 0o37777703 | libc::O_CLOEXEC as u64;
        try_how.flags &= VALID;
        try_how.mode = 0;
    }
    try_how.resolve |= RESOLVE_CACHED;
    let path_only = how.flags & libc::O_PATH as u64 != 0;
    if !path_only {
        try_how.flags |= non_block;
    }
    let opened = open_call(req, try_how, false);
    if opened.is_err()
        && req.has(flag::LENT)
        && let Err(e) = lent::take(req, copy_open)
    {
        return Outcome::err(e);
    }
    match opened {
        Ok(fd) => {
            if !path_only && how.flags & non_block == 0 {
                clear_nonblock(fd as i32);
            }
            publish_fd(st, req, fd as i32).into()
        }
        Err(Errno::EAGAIN) if how.resolve & RESOLVE_CACHED == 0 => Outcome::Punt(Class::Unbounded),
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Outcome::Punt(Class::Unbounded),
        Err(e) => Outcome::err(e),
    }
}

fn clear_nonblock(fd: i32) {
    if let Ok(flags) = sys::fcntl(fd, libc::F_GETFL, 0) {
        let _ = sys::fcntl(fd, libc::F_SETFL, flags & !(libc::O_NONBLOCK as usize));
    }
}

fn open_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let how = match open_how(req) {
        Ok(how) => how,
        Err(e) => return e.neg(),
    };
    let plain = req.sqe.opcode == Opcode::Openat as u8;
    let opened = retry_eintr(interrupt, || open_call(req, how, plain));
    if let (Ok(fd), true) = (opened, req.sqe.file_index != 0) {
        // `issue` runs once more, under the lock, and installs it.
        req.res = fd as i32 + 1;
        req.flags |= flag::REISSUE;
        return 0;
    }
    sys::as_res(opened)
}

fn close_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.off, sqe.addr, sqe.len as u64, sqe.op_flags as u64, sqe.buf_index as u64])?;
    no_fixed_file(req)?;
    if sqe.file_index != 0 && sqe.fd != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Only the program's descriptors can be closed without the ring lock.
fn names_descriptor(req: &Req) -> bool {
    req.sqe.file_index == 0
}

fn close_issue(st: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    if req.sqe.file_index != 0 {
        return close_fixed(st, req.sqe.file_index - 1).into();
    }
    let fd = req.sqe.fd;
    if fds::ring_id(fd).is_some() || fds::is_private(fd) {
        return Outcome::err(Errno::EBADF);
    }
    match fds::watchers(fd) {
        Watchers::None => {}
        Watchers::One(ring) if ring == st.watches.ring() => {
            st.watches.closing(st.shared.epfd, fd, &mut st.slab);
        }
        // Another ring has to be told first, and its lock may not be waited for with this one held.
        _ => return Outcome::Punt(Class::Unbounded),
    }
    Outcome::Done(sys::as_res(close_now(fd)), 0)
}

fn close_run(req: &mut Req, _: &Interrupt) -> i32 {
    let fd = req.sqe.fd;
    if fds::ring_id(fd).is_some() || fds::is_private(fd) {
        return Errno::EBADF.neg();
    }
    note_close(fd);
    sys::as_res(close_now(fd))
}

fn close_now(fd: i32) -> Result<usize, Errno> {
    // SAFETY: the program asks for its own descriptor to be closed.
    unsafe { sys!(close, fd) }
}

/// Empties a slot of the file table.
///
/// # Errors
/// ENXIO without a table, EINVAL beyond it, EBADF for an empty slot.
pub fn close_fixed(st: &mut State, slot: u32) -> Result<i32, Errno> {
    let table = st.files.as_mut().ok_or(Errno::ENXIO)?;
    if slot as usize >= table.len() {
        return Err(Errno::EINVAL);
    }
    let node = table.replace(slot, None).ok_or(Errno::EBADF)?;
    st.retire_file(node);
    st.post_retired();
    Ok(0)
}

fn statx_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.buf_index as u64, req.sqe.file_index as u64])?;
    no_fixed_file(req)?;
    // A null or empty path with AT_EMPTY_PATH is the descriptor itself (null: Linux 6.11).
    let empty_allowed = req.sqe.op_flags & libc::AT_EMPTY_PATH as u32 != 0;
    if req.sqe.addr != 0 || !empty_allowed {
        let path = usercopy::read_path(req.sqe.addr)?;
        if path.is_empty() && !empty_allowed {
            return Err(Errno::ENOENT);
        }
        req.data = AsyncData::Path(path);
        req.flags |= flag::STABLE;
    }
    Ok(())
}

fn statx_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (path, sqe) = (path_ptr(req), req.sqe);
    // SAFETY: the path is our copy; the kernel checks the program's buffer.
    let done = retry_eintr(interrupt, || unsafe {
        sys_as!(req, statx, sqe.fd, path, sqe.op_flags, sqe.len, sqe.off)
    });
    unfailing(req, done)
}
