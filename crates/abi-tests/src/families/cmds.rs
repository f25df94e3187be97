//! URING_CMD on sockets.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, nop, op};
use crate::sys;
use libc::{
    EBADF, ECANCELED, EFAULT, EINVAL, ENOPROTOOPT, EOPNOTSUPP, SO_REUSEADDR, SO_TYPE, SOL_SOCKET,
};
use soloring_abi::{Opcode, Sqe, raw};
use std::sync::atomic::{AtomicU32, Ordering};

const INQ: u32 = 0;
const OUTQ: u32 = 1;
const GET: u32 = 2;
const SET: u32 = 3;
const TX_TIMESTAMP: u32 = 4;
const GETSOCKNAME: u32 = 5;

fn cmd(fd: i32, what: u32) -> Sqe {
    op(Opcode::UringCmd, fd, 0, 0, what as u64)
}

fn option(fd: i32, what: u32, level: i32, name: i32, value: u64, len: u32) -> Sqe {
    cmd(fd, what).with(|s| {
        s.addr = (name as u32 as u64) << 32 | level as u32 as u64;
        s.addr3 = value;
        s.file_index = len;
    })
}

fn udp() -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    assert!(fd >= 0);
    fd
}

fn queue_sizes(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    check_eq!(ring.res(cmd(a, INQ)), Res(0));
    check_eq!(ring.res(cmd(a, OUTQ)), Res(0));
    sys::write(b, b"abcde");
    std::thread::sleep(std::time::Duration::from_millis(20));
    check_eq!(ring.res(cmd(a, INQ)), Res(5));
    check_eq!(ring.res(cmd(a, INQ).forced_async()), Res(5), "IOSQE_ASYNC");
    let full = sys::fill(b);
    check!(ring.res(cmd(b, OUTQ)).0 > 0, "{full} bytes were sent and not read");
    let (listener, _) = sys::tcp_listener();
    check_eq!(ring.res(cmd(listener, INQ)), err(EINVAL), "a listener");
    let u = udp();
    check_eq!(ring.res(cmd(u, INQ)), Res(0), "UDP");
}

fn options(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::tcp_socket();
    let value = [const { AtomicU32::new(0) }; 4];
    let at = value.as_ptr() as u64;
    check_eq!(ring.res(option(fd, GET, SOL_SOCKET, SO_TYPE, at, 4)), Res(4));
    check_eq!(value[0].load(Ordering::Relaxed), libc::SOCK_STREAM as u32);
    check_eq!(ring.res(option(fd, GET, SOL_SOCKET, SO_TYPE, at, 16)), Res(4), "more room");
    value[0].store(0xffff_ffff, Ordering::Relaxed);
    check_eq!(ring.res(option(fd, GET, SOL_SOCKET, SO_TYPE, at, 1)), Res(1), "less room");
    check_eq!(value[0].load(Ordering::Relaxed), 0xffff_ff00 | libc::SOCK_STREAM as u32);
    value[0].store(1, Ordering::Relaxed);
    check_eq!(ring.res(option(fd, SET, SOL_SOCKET, SO_REUSEADDR, at, 4)), Res(0));
    value[0].store(9, Ordering::Relaxed);
    check_eq!(ring.res(option(fd, GET, SOL_SOCKET, SO_REUSEADDR, at, 4)), Res(4));
    check_eq!(value[0].load(Ordering::Relaxed), 1);
    value[0].store(1, Ordering::Relaxed);
    check_eq!(ring.res(option(fd, SET, libc::IPPROTO_TCP, libc::TCP_NODELAY, at, 4)), Res(0));
    let other = option(fd, GET, libc::IPPROTO_TCP, libc::TCP_NODELAY, at, 4);
    check_eq!(ring.res(other), err(EOPNOTSUPP), "only SOL_SOCKET can be asked");
}

fn options_that_are_refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::tcp_socket();
    let mut value = [1u32; 4];
    let at = value.as_mut_ptr() as u64;
    check_eq!(ring.res(option(fd, GET, SOL_SOCKET, SO_TYPE, 1, 4)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(option(fd, SET, SOL_SOCKET, SO_REUSEADDR, 1, 4)), err(EFAULT));
    check_eq!(ring.res(option(fd, SET, SOL_SOCKET, SO_REUSEADDR, at, 2)), err(EINVAL), "short");
    check_eq!(ring.res(option(fd, GET, SOL_SOCKET, 9999, at, 4)), err(ENOPROTOOPT));
    check_eq!(ring.res(option(fd, SET, SOL_SOCKET, 9999, at, 4)), err(ENOPROTOOPT));
    let negative = option(fd, GET, SOL_SOCKET, SO_TYPE, at, u32::MAX);
    check_eq!(ring.res(negative), err(EINVAL), "negative length");
    let negative = option(fd, SET, SOL_SOCKET, SO_REUSEADDR, at, u32::MAX);
    check_eq!(ring.res(negative), err(EINVAL), "negative length");
    ring.submit_all(&[option(fd, GET, SOL_SOCKET, 9999, at, 4).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(ENOPROTOOPT)), (2, err(ECANCELED))], "a broken chain");
}

fn commands_and_files_that_are_refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::tcp_socket();
    check_eq!(ring.res(cmd(fd, 99)), err(EOPNOTSUPP), "unknown command");
    let mut addr = [0u8; 32];
    let mut len = 32u32;
    let name = cmd(fd, GETSOCKNAME).with(|s| {
        s.addr = addr.as_mut_ptr() as u64;
        s.addr3 = std::ptr::from_mut(&mut len) as u64;
    });
    check_eq!(ring.res(name), err(EOPNOTSUPP), "of a later kernel");
    check_eq!(ring.res(cmd(fd, TX_TIMESTAMP)), err(EINVAL), "without 32-byte completions");
    let (r, _w) = sys::pipe();
    for (what, other) in
        [("a pipe", r), ("a file", sys::file_with(b"")), ("an eventfd", sys::eventfd(0, 0))]
    {
        check_eq!(ring.res(cmd(other, INQ)), err(EOPNOTSUPP), "{what}");
    }
    check_eq!(ring.res(cmd(-1, INQ)), err(EBADF));
    check_eq!(ring.res(cmd(sys::unused_fd(), INQ)), err(EBADF));
    let (a, _b) = sys::socketpair(libc::SOCK_STREAM);
    let mut value = [1u32; 4];
    let at = value.as_mut_ptr() as u64;
    check_eq!(ring.res(cmd(a, INQ)), err(EOPNOTSUPP), "a local socket");
    check_eq!(
        ring.res(option(a, GET, SOL_SOCKET, SO_TYPE, at, 4)),
        Res(4),
        "its options are there"
    );
    check_eq!(ring.res(option(a, SET, SOL_SOCKET, SO_REUSEADDR, at, 4)), Res(0));
    check_eq!(ring.res(cmd(sys::open("/dev/null", 0), 77)), Res(0), "swallows commands as well");
}

fn fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::tcp_socket();
    let sqe = cmd(udp(), INQ);
    check_eq!(ring.res(sqe.with(|s| s.off |= 1 << 32)), err(EINVAL), "padding behind the command");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 4)), err(EINVAL), "unknown flag");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1 << 31)), err(EINVAL), "unknown flag");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 2)), err(EINVAL), "multishot without buffers");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 3)), err(EINVAL), "multishot, registered buffer");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), Res(0), "a registered buffer, not used");
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), Res(0), "buf_index is not looked at");
    check_eq!(ring.res(sqe.with(|s| s.len = 1)), Res(0), "len is not looked at");
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [fd].as_ptr(), 1), Res(0));
    let mut value = 0u32;
    let at = std::ptr::from_mut(&mut value) as u64;
    check_eq!(ring.res(option(0, GET, SOL_SOCKET, SO_TYPE, at, 4).fixed()), Res(4), "a slot");
    check_eq!(ring.res(option(1, GET, SOL_SOCKET, SO_TYPE, at, 4).fixed()), err(EBADF));
}

family!["cmds", modes;
    queue_sizes,
    options,
    options_that_are_refused,
    commands_and_files_that_are_refused,
    fields,
];
