//! URING_CMD: the commands of sockets. What only a driver in the kernel can serve is refused.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, stamps};
use crate::creds::sys_as;
use crate::req::Req;
use crate::state::State;
use crate::sys::{self, sys};
use soloring_abi::{Errno, raw, sqe_flags};

pub const URING_CMD: OpDef =
    OpDef { prep, issue, needs_file: true, buffer_select: true, iopoll: true, ..BASE };

/// A registered buffer goes with the command.
const FIXED: u32 = raw::IORING_URING_CMD_FIXED;
/// The command completes more than once, into provided buffers (Linux 6.18).
const MULTISHOT: u32 = 1 << 1;

const SIOCINQ: u32 = raw::io_uring_socket_op::SOCKET_URING_OP_SIOCINQ as u32;
const SIOCOUTQ: u32 = raw::io_uring_socket_op::SOCKET_URING_OP_SIOCOUTQ as u32;
const GETSOCKOPT: u32 = raw::io_uring_socket_op::SOCKET_URING_OP_GETSOCKOPT as u32;
const SETSOCKOPT: u32 = raw::io_uring_socket_op::SOCKET_URING_OP_SETSOCKOPT as u32;
const TX_TIMESTAMP: u32 = raw::io_uring_socket_op::SOCKET_URING_OP_TX_TIMESTAMP as u32;

fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    let flags = sqe.op_flags;
    let multishot = flags & MULTISHOT != 0;
    let selects = sqe.flags & sqe_flags::BUFFER_SELECT != 0;
    if sqe.off >> 32 != 0
        || flags & !(FIXED | MULTISHOT) != 0
        || multishot && flags & FIXED != 0
        || multishot != selects
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    let fd = req.fd();
    if st.setup_has(raw::IORING_SETUP_IOPOLL) {
        return Outcome::err(if sys::is_open(fd) { Errno::EOPNOTSUPP } else { Errno::EBADF });
    }
    match sys::file_kind(fd).map(|k| k.mode & libc::S_IFMT) {
        Ok(libc::S_IFSOCK) => {}
        Ok(libc::S_IFCHR) if is_null_device(fd) => return Outcome::Done(0, 0),
        Ok(_) if !sys::is_open(fd) => return Outcome::err(Errno::EBADF),
        Ok(_) => return Outcome::err(Errno::EOPNOTSUPP),
        Err(e) => return Outcome::err(e),
    }
    match req.sqe.off as u32 {
        SIOCINQ => queue_size(fd, libc::FIONREAD).into(),
        SIOCOUTQ => queue_size(fd, libc::TIOCOUTQ).into(),
        GETSOCKOPT => get_option(fd, req).into(),
        SETSOCKOPT => set_option(fd, req).into(),
        TX_TIMESTAMP => stamps::issue(st, req, attempt),
        _ => Outcome::err(Errno::EOPNOTSUPP),
    }
}

/// /dev/null takes commands, too, and does nothing with them.
#[cold]
fn is_null_device(fd: i32) -> bool {
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: writes one `struct stat` on our stack.
    let asked = unsafe { sys!(fstat, fd, st.as_mut_ptr()) };
    // SAFETY: zeroed before, perhaps filled by the kernel: all fields are integers.
    asked.is_ok() && unsafe { st.assume_init() }.st_rdev == libc::makedev(1, 3)
}

/// Bytes in a socket's receive or send queue.
///
/// # Errors
/// EOPNOTSUPP for families other than the Internet's, whose protocols do not answer the command.
fn queue_size(fd: i32, what: libc::Ioctl) -> Result<i32, Errno> {
    let (mut family, mut len) = (0i32, 4u32);
    let at = (&raw mut family, &raw mut len);
    // SAFETY: the kernel writes one int and one length to our stack.
    unsafe { sys!(getsockopt, fd, libc::SOL_SOCKET, libc::SO_DOMAIN, at.0, at.1) }?;
    if !matches!(family, libc::AF_INET | libc::AF_INET6) {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut size = 0i32;
    // SAFETY: both commands write one int, to our stack.
    unsafe { sys!(ioctl, fd, what, &raw mut size) }?;
    Ok(size)
}

/// Level and name of an option, where other operations have their address.
fn option(req: &Req) -> (u32, u32) {
    (req.sqe.addr as u32, (req.sqe.addr >> 32) as u32)
}

/// Returns the length of the value.
fn get_option(fd: i32, req: &Req) -> Result<i32, Errno> {
    let (level, name) = option(req);
    if level != libc::SOL_SOCKET as u32 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut len = req.sqe.file_index;
    // SAFETY: the length is on our stack; the kernel checks the program's buffer.
    unsafe { sys!(getsockopt, fd, level, name, req.sqe.addr3, &raw mut len) }?;
    Ok(len as i32)
}

fn set_option(fd: i32, req: &Req) -> Result<i32, Errno> {
    let (level, name) = option(req);
    // SAFETY: the kernel checks the program's buffer.
    let done =
        unsafe { sys_as!(req, setsockopt, fd, level, name, req.sqe.addr3, req.sqe.file_index) };
    done.map(|n| n as i32)
}
