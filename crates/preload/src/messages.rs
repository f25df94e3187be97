//! `sendmsg` and `sendmmsg`: a ring cannot be passed to another process, as in the kernel.
//!
//! Linux refuses to send an io_uring descriptor over a UNIX socket (EINVAL since 6.7); ours would arrive as
//! the eventfd that it is. What the library opened for itself is no descriptor of the program: EBADF.
#![allow(unsafe_code)]

use crate::next::{missing, next};
use libc::{c_int, c_uint, mmsghdr, msghdr, ssize_t};
use soloring_engine::uapi;
use soloring_intercept::dispatch::rings_made;

/// The errno for sending `message`, if a descriptor in it may not be sent.
///
/// # Safety
/// `message` is as for `sendmsg`.
unsafe fn refusal(message: *const msghdr) -> Option<c_int> {
    if message.is_null() || !rings_made() {
        return None;
    }
    // SAFETY: as the caller promises; the macros stay within the control buffer's length.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = part.as_ref() {
            if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
                let end = (*message).msg_control as usize + (*message).msg_controllen;
                let data = libc::CMSG_DATA(part).cast::<c_int>();
                let room = end.saturating_sub(data as usize);
                let len = header.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize).min(room);
                for i in 0..len / size_of::<c_int>() {
                    match data.add(i).read_unaligned() {
                        fd if uapi::is_ring_fd(fd) => return Some(libc::EINVAL),
                        fd if uapi::is_private_fd(fd) => return Some(libc::EBADF),
                        _ => {}
                    }
                }
            }
            part = libc::CMSG_NXTHDR(message, part);
        }
    }
    None
}

fn refuse(errno: c_int) -> c_int {
    // SAFETY: errno's address is valid for the life of the thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the program's own message.
    if let Some(errno) = unsafe { refusal(message) } {
        return refuse(errno) as ssize_t;
    }
    match next!(c"sendmsg" as fn(c_int, *const msghdr, c_int) -> ssize_t) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(fd, message, flags) },
        None => missing() as ssize_t,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    len: c_uint,
    flags: c_int,
) -> c_int {
    // Those before the first that is refused are sent, as the kernel does it.
    let mut may = 0;
    while may < len && !messages.is_null() {
        // SAFETY: the program's own array of that length.
        match unsafe { refusal(&raw const (*messages.add(may as usize)).msg_hdr) } {
            Some(errno) if may == 0 => return refuse(errno),
            Some(_) => break,
            None => may += 1,
        }
    }
    let len = if messages.is_null() { len } else { may };
    match next!(c"sendmmsg" as fn(c_int, *mut mmsghdr, c_uint, c_int) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(fd, messages, len, flags) },
        None => missing(),
    }
}
