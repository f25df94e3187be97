//! `close_range` over descriptors that may include rings and descriptors of ours.
//!
//! Programs sweep "everything from 3 up" before they run another program or become a daemon. Rings in
//! the range are closed as rings, our private descriptors survive, the rest goes to the kernel.
#![allow(unsafe_code)]

use crate::raw;
use soloring_engine::uapi;
use syscalls::Sysno;

const EINVAL: isize = -(libc::EINVAL as isize);

/// Upper bound of a brute-force walk where `/proc` is not mounted.
const WALK_MAX: u32 = 1 << 20;

/// As the system call: 0 or `-errno`. `note` is told which of the program's own numbers go; `close` is
/// called for each open descriptor at or above the base.
pub(crate) fn close_range(
    first: u32,
    last: u32,
    flags: u32,
    note: fn(u32, u32),
    close: fn(i32),
) -> isize {
    let known = libc::CLOSE_RANGE_UNSHARE | libc::CLOSE_RANGE_CLOEXEC;
    if flags & !known != 0 || first > last {
        return EINVAL;
    }
    let real = |first: u32, last: u32, flags: u32| {
        let args = [first as usize, last as usize, flags as usize, 0, 0];
        // SAFETY: the range holds no descriptor of ours, or is only marked close-on-exec, which ours are.
        unsafe { raw::marked(Sysno::close_range, args) }
    };
    if flags & libc::CLOSE_RANGE_CLOEXEC != 0 {
        return real(first, last, flags);
    }
    if flags & libc::CLOSE_RANGE_UNSHARE != 0 {
        // SAFETY: gives this thread its own descriptor table, as the program asked.
        let ret =
            unsafe { raw::any(Sysno::unshare.id() as usize, [libc::CLONE_FILES as usize; 6]) };
        if ret < 0 {
            return ret;
        }
    }
    let base = uapi::fd_base() as u32;
    if first < base {
        note(first, last.min(base - 1));
        let ret = real(first, last.min(base - 1), 0);
        if ret < 0 {
            return ret;
        }
    }
    if last >= base {
        close_high(first.max(base), last, close);
    }
    0
}

/// Closes what is the program's in `first..=last`, all at or above the base.
fn close_high(first: u32, last: u32, close: fn(i32)) {
    let listed = for_each_open(|fd| {
        if (first..=last).contains(&fd) {
            close(fd as i32);
        }
    });
    if !listed {
        (first..=last.min(WALK_MAX)).for_each(|fd| close(fd as i32));
    }
}

/// Calls `visit` for every open descriptor of this process, ours included; false when `/proc/self/fd` cannot be read. Allocates nothing.
pub fn for_each_open(mut visit: impl FnMut(u32)) -> bool {
    #[repr(C, align(8))]
    struct Entries([u8; 1024]);
    let path = c"/proc/thread-self/fd";
    let open = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the path is a NUL-terminated constant.
    let dir = unsafe { raw::any(Sysno::openat.id() as usize, open) };
    if dir < 0 {
        return false;
    }
    let mut buf = Entries([0; 1024]);
    loop {
        let args = [dir as usize, buf.0.as_mut_ptr() as usize, buf.0.len(), 0, 0, 0];
        // SAFETY: the kernel writes at most `len` bytes into the buffer.
        let n = unsafe { raw::any(Sysno::getdents64.id() as usize, args) };
        if n <= 0 {
            break;
        }
        let mut rest = &buf.0[..n as usize];
        // struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name (NUL-terminated)
        while rest.len() > 19 {
            let reclen = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..reclen].split(|b| *b == 0).next().unwrap_or_default();
            let number = std::str::from_utf8(name).ok().and_then(|s| s.parse::<u32>().ok());
            if let Some(fd) = number
                && fd as isize != dir
            {
                visit(fd);
            }
            rest = &rest[reclen..];
        }
    }
    // SAFETY: closes the directory opened above.
    unsafe { raw::marked(Sysno::close, [dir as usize, 0, 0, 0, 0]) };
    true
}

#[cfg(test)]
mod tests {
    use super::for_each_open;
    use std::os::fd::AsRawFd;

    #[test]
    fn every_open_descriptor_is_visited_once() {
        let files: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let mut seen = Vec::new();
        assert!(for_each_open(|fd| seen.push(fd)));
        for file in &files {
            let fd = file.as_raw_fd() as u32;
            assert_eq!(seen.iter().filter(|s| **s == fd).count(), 1, "descriptor {fd}");
        }
    }
}
