//! SOCKET, BIND, LISTEN, ACCEPT, CONNECT, SHUTDOWN.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, accept, connect};
use crate::sys;
use libc::{
    AF_INET, AF_UNIX, EADDRINUSE, EAFNOSUPPORT, EAGAIN, EBADF, ECONNREFUSED, EFAULT, EINVAL,
    EISCONN, ENFILE, ENOTCONN, ENOTSOCK, ENXIO, EOPNOTSUPP, SOCK_CLOEXEC, SOCK_NONBLOCK,
    SOCK_STREAM,
};
use soloring_abi::{Sqe, raw};
use std::net::SocketAddr;

const MULTI: u16 = raw::IORING_ACCEPT_MULTISHOT as u16;
const DONTWAIT: u16 = raw::IORING_ACCEPT_DONTWAIT as u16;
const POLL_FIRST: u16 = raw::IORING_ACCEPT_POLL_FIRST as u16;
const ALLOC: u32 = u32::MAX;

/// An address that lives as long as the process.
fn address(port: u16) -> u64 {
    std::ptr::from_ref::<libc::sockaddr_in>(Box::leak(Box::new(sys::loopback(port)))) as u64
}

fn connect_to(fd: i32, addr: SocketAddr) -> Sqe {
    connect(fd, address(addr.port()), 16)
}

/// A port of loopback that nobody listens on.
fn refused_port() -> u16 {
    let (listener, addr) = sys::tcp_listener();
    sys::close(listener);
    addr.port()
}

fn socket_like_the_call(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = ring.res(sqe::socket(AF_INET, SOCK_STREAM, 0));
    check!(fd.0 >= 0, "socket = {fd}");
    check_eq!(sys::fcntl(fd.0 as i32, libc::F_GETFD, 0), Res(0), "no SOCK_CLOEXEC");
    let flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    let fd = ring.res(sqe::socket(AF_UNIX, flags, 0)).0 as i32;
    check_eq!(sys::fcntl(fd, libc::F_GETFD, 0), Res(1), "SOCK_CLOEXEC");
    let status = sys::fcntl(fd, libc::F_GETFL, 0).0 as i32;
    check!(status & libc::O_NONBLOCK != 0, "SOCK_NONBLOCK");
    check_eq!(ring.res(sqe::socket(9999, SOCK_STREAM, 0)), err(EAFNOSUPPORT), "family");
    check_eq!(ring.res(sqe::socket(AF_INET, 99, 0)), err(EINVAL), "type");
    check_eq!(ring.res(sqe::socket(AF_INET, SOCK_STREAM | 1 << 20, 0)), err(EINVAL), "type flags");
    let protocol = ring.res(sqe::socket(AF_INET, SOCK_STREAM, 250));
    check_eq!(protocol, err(libc::EPROTONOSUPPORT), "protocol");
    let bad = sqe::socket(AF_INET, SOCK_STREAM, 0).with(|s| s.op_flags = 1);
    check_eq!(ring.res(bad), err(EINVAL), "rw_flags");
}

fn socket_into_a_slot(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 2);
    let tcp = sqe::socket(AF_INET, SOCK_STREAM, 0);
    check_eq!(ring.res(tcp.with(|s| s.file_index = 1)), Res(0), "slot 0");
    check_eq!(ring.res(tcp.with(|s| s.file_index = ALLOC)), Res(1), "any slot");
    check_eq!(ring.res(tcp.with(|s| s.file_index = ALLOC)), err(ENFILE), "a full table");
    check_eq!(ring.res(tcp.with(|s| s.file_index = 9)), err(EINVAL), "beyond the table");
    let cloexec = sqe::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check_eq!(ring.res(cloexec.with(|s| s.file_index = 1)), err(EINVAL), "SOCK_CLOEXEC");
    check_eq!(ring.res(sqe::listen(0, 4).fixed()), Res(0), "the slot is a socket");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(tcp.with(|s| s.file_index = 1)), err(ENXIO), "no table");
}

fn bind_and_listen(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::tcp_socket();
    check_eq!(ring.res(sqe::bind(fd, address(0), 16)), Res(0));
    let port = sys::local_port(fd);
    check!(port != 0, "no port");
    check_eq!(ring.res(sqe::listen(fd, 4)), Res(0));
    check_eq!(ring.res(sqe::bind(fd, address(0), 16)), err(EINVAL), "bound already");
    let other = sys::tcp_socket();
    check_eq!(ring.res(sqe::bind(other, address(port), 16)), err(EADDRINUSE), "port in use");
    check_eq!(ring.res(sqe::bind(other, 1, 16)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(sqe::bind(other, address(0), 3)), err(EINVAL), "short address");
    check_eq!(ring.res(sqe::bind(other, address(0), 1000)), err(EINVAL), "long address");
    let (r, _) = sys::pipe();
    check_eq!(ring.res(sqe::bind(r, address(0), 16)), err(ENOTSOCK), "a pipe");
    check_eq!(ring.res(sqe::listen(r, 4)), err(ENOTSOCK), "a pipe");
    check_eq!(ring.res(sqe::bind(-1, address(0), 16)), err(EBADF), "-1");
}

fn accept_waits_for_a_connection(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (listener, addr) = sys::tcp_listener();
    ring.submit_all(&[accept(listener, 0).ud(1)]);
    check!(ring.quiet(), "early");
    let client = sys::tcp_connect(addr);
    let fd = ring.wait().res;
    check!(fd.0 >= 0, "accept = {fd}");
    sys::write(client, b"hi");
    check_eq!(sys::read(fd.0 as i32, &mut [0; 8]), Res(2));
    // One that is there already.
    sys::tcp_connect(addr);
    let fd = ring.res(accept(listener, SOCK_CLOEXEC | SOCK_NONBLOCK));
    check_eq!(sys::fcntl(fd.0 as i32, libc::F_GETFD, 0), Res(1), "SOCK_CLOEXEC");
    let status = sys::fcntl(fd.0 as i32, libc::F_GETFL, 0).0 as i32;
    check!(status & libc::O_NONBLOCK != 0, "SOCK_NONBLOCK");
    check_eq!(ring.res(accept(listener, 1 << 20)), err(EINVAL), "unknown flags");
}

fn accept_tells_the_peer(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (listener, addr) = sys::tcp_listener();
    let client = sys::tcp_connect(addr);
    let mut peer = sys::loopback(0);
    peer.sin_family = 0;
    let mut len = 16u32;
    let (at, len_at) = ((&raw mut peer) as u64, (&raw mut len) as u64);
    let res = ring.res(accept(listener, 0).with(|s| (s.addr, s.off) = (at, len_at)));
    check!(res.0 >= 0, "accept = {res}");
    check_eq!(len, 16);
    check_eq!(u16::from_be(peer.sin_port), sys::local_port(client));
    sys::tcp_connect(addr);
    let bad = accept(listener, 0).with(|s| (s.addr, s.off) = (at, 1));
    check_eq!(ring.res(bad), err(EFAULT), "bad length pointer");
}

fn accept_on_what_cannot(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _) = sys::pipe();
    check_eq!(ring.res(accept(r, 0)), err(ENOTSOCK), "a pipe");
    check_eq!(ring.res(accept(sys::tcp_socket(), 0)), err(EINVAL), "not listening");
    check_eq!(
        ring.res(accept(sys::socketpair(libc::SOCK_DGRAM).0, 0)),
        err(EOPNOTSUPP),
        "datagrams"
    );
    check_eq!(ring.res(accept(-1, 0)), err(EBADF), "-1");
}

fn accept_dontwait_and_nonblocking(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (listener, addr) = sys::tcp_listener();
    let dontwait = accept(listener, 0).with(|s| s.ioprio = DONTWAIT);
    check_eq!(ring.res(dontwait), err(EAGAIN), "DONTWAIT with nobody there");
    sys::tcp_connect(addr);
    check!(ring.res(dontwait).0 >= 0, "DONTWAIT with somebody there");
    sys::set_nonblocking(listener);
    ring.submit_all(&[accept(listener, 0).ud(1)]);
    check!(ring.quiet(), "a non-blocking listener is waited for too");
    sys::tcp_connect(addr);
    check!(ring.wait().res.0 >= 0, "after a connection");
    ring.submit_all(&[accept(listener, 0).with(|s| s.ioprio = POLL_FIRST)]);
    check!(ring.quiet(), "POLL_FIRST");
    sys::tcp_connect(addr);
    check!(ring.wait().res.0 >= 0, "POLL_FIRST after a connection");
}

fn accept_multishot(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (listener, addr) = sys::tcp_listener();
    sys::tcp_connect(addr);
    ring.submit_all(&[accept(listener, 0).with(|s| s.ioprio = MULTI).ud(1)]);
    for i in 0..5 {
        let done = ring.wait();
        check!(done.res.0 >= 0 && done.more(), "connection {i}: {done:?}");
        sys::tcp_connect(addr);
    }
    check!(ring.wait().more(), "the last one");
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(libc::ECANCELED)), (2, Res(0))]);
    let with_addr = accept(listener, 0).with(|s| (s.ioprio, s.addr) = (MULTI, address(0)));
    check!(with_addr.addr != 0, "address");
    let unknown = accept(listener, 0).with(|s| s.ioprio = 1 << 3);
    check_eq!(ring.res(unknown), err(EINVAL), "unknown flag");
}

fn accept_multishot_of_several_at_once(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (listener, addr) = sys::tcp_listener();
    for _ in 0..6 {
        sys::tcp_connect(addr);
    }
    ring.submit_all(&[accept(listener, 0).with(|s| s.ioprio = MULTI).ud(1)]);
    let mut fds: Vec<_> = ring
        .wait_n(6)
        .iter()
        .map(|d| {
            check!(d.more(), "{d:?}");
            d.res
        })
        .collect();
    fds.sort();
    fds.dedup();
    check_eq!(fds.len(), 6, "different descriptors");
    check!(ring.quiet(), "one too many");
}

fn accept_into_slots(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 2);
    let (listener, addr) = sys::tcp_listener();
    let slot = |n: u32| accept(listener, 0).with(|s| s.file_index = n);
    sys::tcp_connect(addr);
    check_eq!(ring.res(slot(1)), Res(0), "slot 0");
    sys::tcp_connect(addr);
    check_eq!(ring.res(slot(ALLOC)), Res(1), "any slot");
    sys::tcp_connect(addr);
    check_eq!(ring.res(slot(ALLOC)), err(ENFILE), "a full table");
    let fixed_multi = slot(1).with(|s| s.ioprio = MULTI);
    check_eq!(ring.res(fixed_multi), err(EINVAL), "multishot into one slot");
    let cloexec = accept(listener, SOCK_CLOEXEC).with(|s| s.file_index = 1);
    check_eq!(ring.res(cloexec), err(EINVAL), "SOCK_CLOEXEC");
    ring.res(sqe::close_slot(0));
    ring.res(sqe::close_slot(1));
    for _ in 0..3 {
        sys::tcp_connect(addr);
    }
    ring.submit_all(&[slot(ALLOC).with(|s| s.ioprio = MULTI).ud(1)]);
    // The search for a free slot begins at the one that was freed last.
    let done = ring.wait();
    check_eq!((done.res, done.more()), (Res(1), true));
    let done = ring.wait();
    check_eq!((done.res, done.more()), (Res(0), true));
    let done = ring.wait();
    check_eq!((done.res, done.more()), (err(ENFILE), false), "multishot into a full table");
}

fn connect_succeeds(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (listener, addr) = sys::tcp_listener();
    let client = sys::tcp_socket();
    check_eq!(ring.res(connect_to(client, addr)), Res(0));
    let server = sys::accept(listener);
    sys::write(client, b"hello");
    check_eq!(sys::read(server, &mut [0; 8]), Res(5));
    check_eq!(ring.res(connect_to(client, addr)), err(EISCONN), "twice");
    let client = sys::tcp_socket();
    sys::set_nonblocking(client);
    let res = ring.res(connect_to(client, addr));
    // A non-blocking socket is told of the connection being under way, or is done at once.
    check_in!(res, [Res(0), err(libc::EINPROGRESS)], "non-blocking");
}

fn connect_is_refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let port = refused_port();
    check_eq!(ring.res(connect(sys::tcp_socket(), address(port), 16)), err(ECONNREFUSED));
    let forced = connect(sys::tcp_socket(), address(port), 16).forced_async();
    check_eq!(ring.res(forced), err(ECONNREFUSED), "on a worker");
}

fn connect_bad_arguments(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::tcp_socket();
    check_eq!(ring.res(connect(fd, 1, 16)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(connect(fd, address(1), 3)), err(EINVAL), "short address");
    check_eq!(ring.res(connect(fd, address(1), 1000)), err(EINVAL), "long address");
    check_eq!(ring.res(connect(sys::pipe().0, address(1), 16)), err(ENOTSOCK), "a pipe");
    let family = Box::leak(Box::new(sys::loopback(1)));
    family.sin_family = 77;
    let at = std::ptr::from_ref(family) as u64;
    check_eq!(ring.res(connect(fd, at, 16)), err(EAFNOSUPPORT), "family");
}

fn connect_to_a_full_backlog_waits(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let path = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = sys::keep(listener);
    check_eq!(ring.res(sqe::listen(listener, 0)), Res(0), "backlog 0");
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let fd = ring.res(sqe::socket(AF_UNIX, SOCK_STREAM, 0)).0 as i32;
    let mut addr = vec![0u8; 2];
    addr[0] = AF_UNIX as u8;
    addr.extend_from_slice(path.to_str().unwrap().as_bytes());
    addr.push(0);
    ring.submit_all(&[connect(fd, addr.as_ptr() as u64, addr.len() as u32).ud(7)]);
    check!(ring.quiet(), "early");
    sys::accept(listener);
    check_eq!(ring.wait().res, Res(0));
}

fn shutdown_by_half(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    check_eq!(ring.res(sqe::shutdown(a, libc::SHUT_WR)), Res(0));
    check_eq!(sys::read(b, &mut [0; 4]), Res(0), "end of file");
    check_eq!(ring.res(sqe::shutdown(a, 3)), err(EINVAL), "unknown way");
    check_eq!(ring.res(sqe::shutdown(a, -1)), err(EINVAL), "unknown way");
    check_eq!(ring.res(sqe::shutdown(sys::tcp_socket(), 2)), err(ENOTCONN), "not connected");
    check_eq!(ring.res(sqe::shutdown(sys::pipe().0, 0)), err(ENOTSOCK), "a pipe");
    check_eq!(ring.res(sqe::shutdown(-1, 0)), err(EBADF), "-1");
}

fn shutdown_ends_an_armed_receive(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, _b) = sys::tcp_pair();
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
    check!(ring.quiet(), "early");
    ring.submit_all(&[sqe::shutdown(a, libc::SHUT_RDWR).ud(2)]);
    check_eq!(ring.results(2), [(1, Res(0)), (2, Res(0))]);
}

fn shutdown_ends_an_armed_accept(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (listener, _) = sys::tcp_listener();
    ring.submit_all(&[accept(listener, 0).ud(1)]);
    check!(ring.quiet(), "early");
    ring.submit_all(&[sqe::shutdown(listener, libc::SHUT_RDWR).ud(2)]);
    check_eq!(ring.results(2), [(1, err(EINVAL)), (2, Res(0))]);
}

family!["net", modes;
    socket_like_the_call,
    socket_into_a_slot,
    bind_and_listen,
    accept_waits_for_a_connection,
    accept_tells_the_peer,
    accept_on_what_cannot,
    accept_dontwait_and_nonblocking,
    accept_multishot,
    accept_multishot_of_several_at_once,
    accept_into_slots,
    connect_succeeds,
    connect_is_refused,
    connect_bad_arguments,
    connect_to_a_full_backlog_waits,
    shutdown_by_half,
    shutdown_ends_an_armed_receive,
    shutdown_ends_an_armed_accept,
];
