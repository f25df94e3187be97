//! What READ and WRITE answer where preadv2(2) and pwritev2(2) answer otherwise: the ring looks at the file's
//! mode and at `rw_flags` before the offset, and asks the file also when the length is 0.
//!
//! All of it stands behind a refusal, an empty transfer or `rw_flags`; none is on the way of a plain one.
#![allow(unsafe_code)]

use super::Outcome;
use crate::creds::sys_as;
use crate::eventfds::is_anonymous;
use crate::req::{Req, flag};
use crate::sys::{self, FileKind, sys};
use soloring_abi::Errno;
use soloring_iowq::Class;

/// HIPRI, DSYNC, SYNC, NOWAIT, APPEND, NOAPPEND, ATOMIC, DONTCACHE, NOSIGNAL (Linux 6.18).
const KNOWN: u32 = 0x1ff;
const NOWAIT: u32 = 0x8;
const APPEND: u32 = 0x10;
const NOAPPEND: u32 = 0x20;
const ATOMIC: u32 = 0x40;
const DONTCACHE: u32 = 0x80;
const NOSIGNAL: u32 = 0x100;
/// Flags that mean nothing to a file which only has read(2) and write(2).
const INDIFFERENT: u32 = 0x2 | 0x4 | APPEND | NOAPPEND | NOSIGNAL;

/// The file's status flags.
///
/// # Errors
/// EBADF, also for a mere place in the tree.
pub fn status(req: &Req) -> Result<i32, Errno> {
    match sys::fcntl(req.fd(), libc::F_GETFL, 0)? as i32 {
        flags if flags & libc::O_PATH != 0 => Err(Errno::EBADF),
        flags => Ok(flags),
    }
}

/// Whether there is a file at all.
///
/// # Errors
/// EBADF.
#[cold]
pub fn check_open(req: &Req) -> Result<(), Errno> {
    status(req).map(drop)
}

/// Whether the file was opened for this, and its status flags.
///
/// # Errors
/// EBADF.
#[cold]
pub fn check_mode(req: &Req, write: bool) -> Result<i32, Errno> {
    let flags = status(req)?;
    let other = if write { libc::O_RDONLY } else { libc::O_WRONLY };
    if flags & libc::O_ACCMODE == other { Err(Errno::EBADF) } else { Ok(flags) }
}

/// What is said of `rw_flags` whatever the length is.
///
/// # Errors
/// EOPNOTSUPP, EINVAL.
#[cold]
fn check_flags(req: &Req, write: bool) -> Result<(), Errno> {
    let flags = req.sqe.op_flags;
    if flags & !KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & (APPEND | NOAPPEND) == APPEND | NOAPPEND {
        return Err(Errno::EINVAL);
    }
    // Writes are left to the call where there is storage: it depends on the device.
    let storage = || sys::file_kind(req.fd()).is_ok_and(FileKind::is_storage);
    if flags & NOWAIT != 0 && !has_nowait(req) {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & ATOMIC != 0 && (!write || !storage()) || flags & DONTCACHE != 0 && !storage() {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}

/// What comes before the transfer when there are `rw_flags`.
///
/// # Errors
/// EBADF, EOPNOTSUPP, EINVAL.
#[cold]
pub fn check_all(req: &Req, write: bool) -> Result<(), Errno> {
    let status = check_mode(req, write)?;
    check_flags(req, write)?;
    // It knows the flag, and has no write with it.
    let blocks = status & libc::O_NONBLOCK == 0 && req.sqe.off as i64 >= -1;
    let asks = write && req.sqe.op_flags & NOWAIT != 0 && blocks;
    if asks && is_anonymous(req.fd(), &["eventfd"]) { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// Whether a refused call may have been refused for flags that this file does not look at.
#[cold]
pub fn is_indifferent(req: &Req) -> bool {
    req.sqe.op_flags != 0 && req.sqe.op_flags & !INDIFFERENT == 0
}

/// Whether RWF_NOWAIT is one of the file's own: asked by a read behind its end, where nothing is. Who may only write
/// is taken to have it.
#[cold]
pub fn knows_nowait(req: &Req) -> bool {
    read_behind_the_end(req) != Err(Errno::EOPNOTSUPP)
}

fn read_behind_the_end(req: &Req) -> Result<usize, Errno> {
    let mut byte = 0u8;
    let (vector, pos) = ([&raw mut byte as usize, 1], i64::MAX - 1);
    // SAFETY: writes at most a byte of our stack.
    unsafe { sys!(preadv2, req.fd(), vector.as_ptr(), 1, pos, 0, libc::RWF_NOWAIT) }
}

/// Whether there is an attempt at this file that does not block (FMODE_NOWAIT), as far as it can be told.
#[cold]
pub fn has_nowait(req: &Req) -> bool {
    let Ok(kind) = sys::file_kind(req.fd()) else { return false };
    match kind.mode & libc::S_IFMT {
        libc::S_IFSOCK | libc::S_IFIFO => true,
        libc::S_IFREG | libc::S_IFBLK => knows_nowait(req),
        // Devices without positions are terminals and the like.
        libc::S_IFCHR => {
            ![Err(Errno::EOPNOTSUPP), Err(Errno::ESPIPE)].contains(&read_behind_the_end(req))
        }
        libc::S_IFDIR => false,
        _ => is_anonymous(req.fd(), &["eventfd", "timerfd", "signalfd", "userfaultfd"]),
    }
}

/// The call gave EINVAL: for the offset, for the length, or because the file cannot be read (written) at all.
/// One of the last kind that can be polled is waited for first.
#[cold]
pub fn invalid(req: &Req, write: bool, first: bool) -> Outcome {
    let status = match check_mode(req, write) {
        Ok(status) => status,
        Err(e) => return Outcome::err(e),
    };
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    // One that knows such an attempt is never waited for before it refuses.
    let waits = first && status & libc::O_NONBLOCK == 0 && !has_nowait(req);
    if waits && sys::poll_now(req.fd(), events) == 0 {
        return Outcome::Arm(events as u32);
    }
    Outcome::err(Errno::EINVAL)
}

/// Nothing is to be transferred. preadv2(2) does not ask the file then, the ring does: an eventfd finds
/// that too short, a datagram socket sends an empty datagram.
#[cold]
pub fn empty(req: &mut Req, write: bool) -> Outcome {
    let kind = match sys::file_kind(req.fd()) {
        Ok(kind) => kind,
        Err(e) => return Outcome::err(e),
    };
    let format = kind.mode & libc::S_IFMT;
    let nowait = req.sqe.op_flags & libc::RWF_NOWAIT as u32 != 0;
    if nowait && kind.is_storage() && !knows_nowait(req) {
        return Outcome::err(Errno::EOPNOTSUPP);
    }
    let indifferent = [libc::S_IFDIR, libc::S_IFIFO].contains(&format) || kind.is_storage();
    if indifferent || write != kind.is_socket() {
        return Outcome::Done(0, 0);
    }
    if kind.is_socket() {
        return match empty_send(req) {
            Err(Errno::EAGAIN) if !nowait => Outcome::Arm(libc::POLLOUT as u32),
            sent => Outcome::Done(sys::as_res(sent), 0),
        };
    }
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    if sys::poll_now(req.fd(), events) != 0 {
        return match empty_call(req, write) {
            Ok(n) => Outcome::Done(n as i32, 0),
            Err(e) => Outcome::err(e),
        };
    }
    if !has_nowait(req) {
        return Outcome::Arm(events as u32);
    }
    // Most refuse at once, but who does not would wait.
    Outcome::Punt(Class::Unbounded)
}

/// write(2) of nothing to a socket, in the form that does not wait.
fn empty_send(req: &Req) -> Result<usize, Errno> {
    let silent = if req.sqe.op_flags & NOSIGNAL != 0 { libc::MSG_NOSIGNAL } else { 0 };
    // SAFETY: no bytes and no address, so no memory.
    unsafe { sys_as!(req, sendto, req.fd(), 0, 0, libc::MSG_DONTWAIT | silent, 0, 0) }
}

/// read(2) or write(2) of nothing. May block.
pub fn empty_call(req: &Req, write: bool) -> Result<usize, Errno> {
    let (fd, pos) = (req.fd(), req.sqe.off);
    let here = req.has(flag::STREAM) || pos == u64::MAX;
    // SAFETY: no bytes, so no memory.
    unsafe {
        match (write, here) {
            (false, true) => sys_as!(req, read, fd, 0, 0),
            (false, false) => sys_as!(req, pread64, fd, 0, 0, pos),
            (true, _) => sys_as!(req, write, fd, 0, 0),
        }
    }
}

/// Whether the file can be waited for. One that cannot is always ready to poll(2), and refused by epoll.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
#[cold]
pub fn can_poll(fd: i32) -> Result<bool, Errno> {
    let epoll = sys::epoll_create()?;
    let tried = sys::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, 0, 0);
    sys::close(epoll);
    Ok(tried != Err(Errno::EPERM))
}
