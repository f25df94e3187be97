//! `install()` in a process of its own, where the kernel's ring is denied: an ordinary client then works.
#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, types};
use soloring_engine::uapi;
use soloring_intercept::filter;
use std::os::fd::AsRawFd;
use std::time::Instant;

fn main() {
    filter::install(&filter::deny_program()).unwrap();
    let refused = IoUring::new(8).map(drop).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "the container's filter is in force");

    let installed = soloring_intercept::install().unwrap();
    assert!(!installed.inherited);
    assert!(soloring_intercept::install().unwrap().inherited, "once is enough");

    let mut ring = IoUring::new(8).unwrap();
    assert!(uapi::is_ring_fd(ring.as_raw_fd()));
    let mut buf = [0u8; 16];
    let zero = std::fs::File::open("/dev/zero").unwrap();
    buf.fill(7);
    let read = opcode::Read::new(types::Fd(zero.as_raw_fd()), buf.as_mut_ptr(), 16).build();
    // SAFETY: the buffer outlives the request, which is waited for.
    unsafe { ring.submission().push(&read).unwrap() };
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
    assert_eq!(ring.completion().next().unwrap().result(), 16);
    assert_eq!(buf, [0; 16]);

    by_stop_and_by_entry(ring.as_raw_fd());
    from_a_thread();
    in_a_child();

    let fd = ring.as_raw_fd();
    drop(ring);
    assert!(!uapi::is_ring_fd(fd), "close was seen");
    assert!(uapi::op_count() > 0);
    println!("install: ok");
}

/// The C library's `syscall()` no longer stops; its other numbers and its errno are as before.
fn by_stop_and_by_entry(ring: i32) {
    // SAFETY: calls without memory of ours; the text of a function longer than what is read.
    unsafe {
        let entry = std::slice::from_raw_parts(libc::syscall as *const () as *const u8, 8);
        let entry = entry.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(entry);
        assert_eq!(entry[0], 0xe9, "a jump: this process has one thread");
        assert_eq!(libc::syscall(libc::SYS_getpid), i64::from(libc::getpid()));
        assert_eq!(libc::syscall(libc::SYS_io_uring_enter, -1, 0, 0, 0, 0, 0), -1);
        assert_eq!(*libc::__errno_location(), libc::EBADF);
        assert_eq!(libc::syscall(libc::SYS_io_uring_enter, ring, 0, 0, 0, 0, 0), 0);
        let map = libc::syscall(libc::SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
        assert!(map > 0 && libc::munmap(map as *mut _, 4096) == 0, "the sixth argument arrives");
        let rounds = 1000;
        let time = |call: &dyn Fn() -> i64| {
            let begun = Instant::now();
            (0..rounds).for_each(|_| assert_eq!(call(), 0));
            begun.elapsed() / rounds
        };
        let entry = time(&|| libc::syscall(libc::SYS_io_uring_enter, ring, 0, 0, 0, 0, 0));
        let stop = time(&|| {
            let args = [ring as usize, 0, 0, 0, 0, 0];
            soloring_intercept::raw::any(libc::SYS_io_uring_enter as usize, args) as i64
        });
        println!("enter through syscall(): {entry:?}, through a stop: {stop:?}");
    }
}

fn from_a_thread() {
    std::thread::spawn(|| {
        let mut ring = IoUring::new(4).unwrap();
        // SAFETY: a NOP refers to no memory.
        unsafe { ring.submission().push(&opcode::Nop::new().build()).unwrap() };
        assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
    })
    .join()
    .unwrap();
}

fn in_a_child() {
    // SAFETY: the child uses a ring and leaves without returning into this program.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let works = IoUring::new(4).is_ok_and(|mut ring| {
                ring.submission().push(&opcode::Nop::new().build()).is_ok()
                    && ring.submit_and_wait(1).is_ok_and(|n| n == 1)
            });
            libc::_exit(if works { 0 } else { 1 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        assert_eq!(status, 0, "a forked child has it too");
    }
}
