//! Eventfds of the program: whether a descriptor is one, whether two are the same, and whether one is readable.
#![allow(unsafe_code)]

use crate::sys::{self, sys};
use soloring_abi::Errno;
use std::ffi::CString;

/// Whether `fd` is an eventfd.
pub fn is_eventfd(fd: i32) -> bool {
    is_anonymous(fd, &["eventfd"])
}

/// Whether `fd` is one of these files without a place in any tree.
pub fn is_anonymous(fd: i32, kinds: &[&str]) -> bool {
    let Ok(path) = CString::new(format!("/proc/self/fd/{fd}")) else { return false };
    let mut name = [0u8; 40];
    // SAFETY: writes at most 40 bytes to our stack.
    let n =
        unsafe { sys!(readlinkat, libc::AT_FDCWD, path.as_ptr(), name.as_mut_ptr(), name.len()) };
    let Ok(Ok(name)) = n.map(|n| std::str::from_utf8(&name[..n])) else { return false };
    let kind = name.strip_prefix("anon_inode:[").and_then(|rest| rest.strip_suffix(']'));
    kind.is_some_and(|kind| kinds.contains(&kind))
}

/// Whether both are descriptors of one eventfd. False where the kernel (before 5.2) does not number them.
pub fn are_one(a: i32, b: i32) -> bool {
    id_of(a).is_some_and(|id| id_of(b) == Some(id))
}

/// Whether its count is above zero.
pub fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let at_once = [0u64; 2];
    // SAFETY: pollfd and timespec live on our stack for the length of the call.
    let ready = unsafe { sys!(ppoll, &raw mut poll, 1, at_once.as_ptr(), 0usize, 0) };
    ready == Ok(1) && poll.revents & libc::POLLIN != 0
}

fn id_of(fd: i32) -> Option<u64> {
    let mut info = [0u8; 512];
    let len = read_start(&format!("/proc/self/fdinfo/{fd}"), &mut info).ok()?;
    let text = std::str::from_utf8(&info[..len]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("eventfd-id:"))?.trim().parse().ok()
}

/// As much of a file of the kernel's as one read gives.
fn read_start(path: &str, buffer: &mut [u8]) -> Result<usize, Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path ends with a NUL and lives for the length of the call.
    let fd = unsafe { sys!(openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) }? as i32;
    // SAFETY: writes at most the length of the buffer.
    let got = unsafe { sys!(read, fd, buffer.as_mut_ptr(), buffer.len()) };
    sys::close(fd);
    got
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_told_apart() {
        let (a, b) = (sys::eventfd().unwrap(), sys::eventfd().unwrap());
        // SAFETY: no memory involved.
        let same = unsafe { libc::dup(a) };
        assert!(is_eventfd(a) && is_eventfd(same) && !is_eventfd(0) && !is_eventfd(-1));
        assert!(are_one(a, same) && !are_one(a, b) && !are_one(a, -1) && !are_one(-1, -1));
        assert!(!is_readable(a));
        sys::eventfd_signal(a);
        assert!(is_readable(same) && !is_readable(b));
        [a, b, same].into_iter().for_each(sys::close);
    }
}
