//! SEND_ZC, SENDMSG_ZC with their notifications; READV_FIXED and WRITEV_FIXED.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, op};
use crate::sys;
use libc::{EBADF, EFAULT, EINVAL, ENOTSOCK, EOPNOTSUPP, EPIPE, MSG_WAITALL, SOCK_STREAM};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, Sqe, raw};

const MORE: u32 = raw::IORING_CQE_F_MORE;
const NOTIF: u32 = raw::IORING_CQE_F_NOTIF;
const POLL_FIRST: u16 = raw::IORING_RECVSEND_POLL_FIRST as u16;
const FIXED: u16 = raw::IORING_RECVSEND_FIXED_BUF as u16;
const REPORT: u16 = raw::IORING_SEND_ZC_REPORT_USAGE as u16;
const VECTORIZED: u16 = raw::IORING_SEND_VECTORIZED as u16;
const COPIED: Res = Res(raw::IORING_NOTIF_USAGE_ZC_COPIED as i32 as i64);

fn send(fd: i32, buf: &[u8]) -> Sqe {
    op(Opcode::SendZc, fd, buf.as_ptr() as u64, buf.len() as u32, 0).ud(1)
}

fn sendmsg(fd: i32, msg: &libc::msghdr) -> Sqe {
    op(Opcode::SendmsgZc, fd, std::ptr::from_ref(msg) as u64, 1, 0).ud(1)
}

/// Runs a request that has a notification: its result, and what the notification says.
fn both(ring: &mut Ring, sqe: Sqe) -> (Res, Res) {
    let first = ring.run(sqe);
    check_eq!((first.ud, first.flags), (sqe.user_data, MORE), "the result: {}", first.res);
    let second = ring.wait();
    check_eq!((second.ud, second.flags), (sqe.user_data, NOTIF), "the notification");
    (first.res, second.res)
}

fn register(ring: &Ring, memory: &mut [u8]) {
    let iov = [sys::iovec(memory)];
    let res = ring.register(reg::IORING_REGISTER_BUFFERS as u32, iov.as_ptr(), 1);
    check_eq!(res, Res(0));
}

fn a_notification_follows(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    let data = sys::buffer(4096);
    data[..5].copy_from_slice(b"hello");
    check_eq!(both(&mut ring, send(a, &data[..5])), (Res(5), Res(0)));
    let report = send(a, &data[..5]).with(|s| s.ioprio = REPORT);
    check_eq!(both(&mut ring, report), (Res(5), COPIED), "on loopback data is copied");
    let first = send(a, &data[..5]).with(|s| s.ioprio = POLL_FIRST);
    check_eq!(both(&mut ring, first), (Res(5), Res(0)), "poll first");
    check_eq!(both(&mut ring, send(a, &data[..5]).forced_async()), (Res(5), Res(0)), "async");
    check_eq!(both(&mut ring, send(a, &[])), (Res(0), Res(0)), "nothing");
    let mut got = [0; 64];
    check_eq!(sys::read(b, &mut got), Res(20));
    check_eq!(&got[..20], b"hellohellohellohello");
}

fn the_bit_of_32_bit_callers_means_nothing(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, _b) = sys::tcp_pair();
    let data = sys::buffer(4096);
    let mut vector = [sys::iovec(&mut data[..5])];
    let msg = sys::msghdr(&mut vector);
    let marked = sendmsg(a, &msg).with(|s| s.op_flags = 1 << 31);
    check_eq!(both(&mut ring, marked), (Res(5), Res(0)));
}

fn a_large_send_waits_for_room(abi: &Abi) {
    const LEN: usize = 8 << 20;
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    // Otherwise these buffers grow as they are used, and could take all of it without a reader.
    for (fd, buffer) in [(a, libc::SO_SNDBUF), (b, libc::SO_RCVBUF)] {
        sys::setsockopt(fd, libc::SOL_SOCKET, buffer, 1 << 20);
    }
    let data = sys::buffer(LEN);
    data[LEN - 1] = 77;
    let all = |ud| {
        let all = send(a, data).with(|s| (s.ioprio, s.op_flags) = (REPORT, MSG_WAITALL as u32));
        all.ud(ud)
    };
    ring.submit_all(&[all(1)]);
    check!(ring.quiet(), "neither comes early");
    let reader = std::thread::spawn(move || {
        let mut part = vec![0; 65536];
        let (mut left, mut last) = (LEN, 0);
        while left > 0 {
            match sys::read(b, &mut part) {
                Res(n @ 1..) => (left, last) = (left - n as usize, part[n as usize - 1]),
                other => panic!("{other}"),
            }
        }
        last
    });
    let done = ring.wait_n(2);
    check_eq!((done[0].res, done[0].flags), (Res(LEN as i64), MORE));
    check_eq!((done[1].res, done[1].flags), (COPIED, NOTIF));
    check_eq!(reader.join().unwrap(), 77, "the last byte");
    ring.submit_all(&[all(2)]);
    check!(ring.quiet(), "nobody reads");
    ring.submit_all(&[sqe::cancel(2, 0, 0).ud(9)]);
    // The kernel notifies when the network has let go of the part that was sent.
    sys::close(b);
    let mut done = ring.wait_n(3);
    done.sort_by_key(|d| (d.ud, d.flags & NOTIF));
    check!(done[0].res > Res(0) && done[0].res < Res(LEN as i64), "a part: {}", done[0].res);
    check_eq!((done[0].flags, done[1].flags), (MORE, NOTIF), "cancelled and notified");
}

fn errors_are_notified_as_well(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    let data = sys::buffer(4096);
    let good = send(a, &data[..9]);
    for (what, sqe, want) in [
        ("a bad address", good.with(|s| s.addr = 1), err(EFAULT)),
        ("a bad destination", good.with(|s| (s.off, s.file_index) = (8, 16)), err(EFAULT)),
        ("bundle", good.with(|s| s.ioprio = 16), err(EINVAL)),
        ("multishot", good.with(|s| s.ioprio = 2), err(EINVAL)),
        ("unknown", good.with(|s| s.ioprio = 64), err(EINVAL)),
        ("unknown, reported", good.with(|s| s.ioprio = 64 | REPORT), err(EINVAL)),
        ("high half", good.with(|s| s.file_index = 1 << 16), err(EINVAL)),
        ("no such buffer", good.with(|s| s.ioprio = FIXED), err(EFAULT)),
        ("a pipe", send(sys::pipe().1, data), err(ENOTSOCK)),
        ("a UNIX socket", send(sys::socketpair(SOCK_STREAM).0, data), err(EOPNOTSUPP)),
        ("no file", send(-1, data), err(EBADF)),
        ("not connected", send(sys::tcp_socket(), data), err(EPIPE)),
    ] {
        check_eq!(both(&mut ring, sqe), (want, Res(0)), "{what}");
    }
    sys::close(b);
    ring.submit_all(&[good.link(), sqe::nop().ud(2)]);
    ring.wait_n(3);
    ring.submit_all(&[send(-1, data).link().ud(1), send(a, data).ud(2)]);
    let mut done: Vec<_> = ring.wait_n(4).iter().map(|d| (d.ud, d.flags, d.res)).collect();
    done.sort();
    let cancelled = err(libc::ECANCELED);
    let want = [(1, MORE, err(EBADF)), (1, NOTIF, Res(0)), (2, 0, cancelled), (2, NOTIF, Res(0))];
    check_eq!(done, want, "in a broken chain");
}

fn refused_without_a_notification(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, _b) = sys::tcp_pair();
    let good = send(a, b"x");
    for (what, sqe, want) in [
        ("skipped success", good.skip(), err(EINVAL)),
        ("addr3", good.with(|s| s.addr3 = 1), err(EINVAL)),
        ("padding", good.with(|s| s.pad2 = 1), err(EINVAL)),
        ("buffer select", good.flag(32), err(EOPNOTSUPP)),
    ] {
        let done = ring.run(sqe);
        check_eq!((done.res, done.flags), (want, 0), "{what}");
    }
    let plain = sqe::send(a, b"x", 0);
    check_eq!(ring.res(plain.with(|s| s.ioprio = FIXED)), err(EINVAL), "SEND has no fixed buffers");
    check_eq!(ring.res(plain.with(|s| s.ioprio = REPORT)), err(EINVAL), "and no report");
    check!(ring.quiet(), "no notification");
}

fn registered_buffers(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    let memory = sys::buffer(8192);
    register(&ring, &mut memory[..4096]);
    memory[..8].copy_from_slice(b"register");
    let fixed = |range: std::ops::Range<usize>| send(a, &memory[range]).with(|s| s.ioprio = FIXED);
    check_eq!(both(&mut ring, fixed(0..8)), (Res(8), Res(0)));
    check_eq!(both(&mut ring, fixed(4090..4100)), (err(EFAULT), Res(0)), "over its end");
    check_eq!(both(&mut ring, fixed(4096..4100)), (err(EFAULT), Res(0)), "behind it");
    let other = fixed(0..8).with(|s| s.buf_index = 1);
    check_eq!(both(&mut ring, other), (err(EFAULT), Res(0)), "no such buffer");
    let mut got = [0; 64];
    check_eq!(sys::read(b, &mut got), Res(8));
    check_eq!(&got[..8], b"register");
    let mut iov = [sys::iovec(&mut memory[..3]), sys::iovec(&mut memory[5..8])];
    let vector = op(Opcode::SendZc, a, iov.as_ptr() as u64, 2, 0)
        .with(|s| s.ioprio = FIXED | VECTORIZED)
        .ud(1);
    check_eq!(both(&mut ring, vector), (err(EINVAL), Res(0)), "a vector in it");
    let msg = sys::msghdr(&mut iov);
    let message = sendmsg(a, &msg).with(|s| s.ioprio = FIXED);
    check_eq!(both(&mut ring, message), (Res(6), Res(0)), "a message in it");
    let mut iov = [sys::iovec(&mut memory[..3]), sys::iovec(&mut memory[5000..5008])];
    let msg = sys::msghdr(&mut iov);
    let message = sendmsg(a, &msg).with(|s| s.ioprio = FIXED);
    check_eq!(both(&mut ring, message), (err(EFAULT), Res(0)), "a message partly outside");
    let both_flags = message.with(|s| s.ioprio = FIXED | VECTORIZED);
    check_eq!(both(&mut ring, both_flags), (err(EFAULT), Res(0)), "vectorized, too");
    check_eq!(sys::read(b, &mut got), Res(6));
    check_eq!(&got[..6], b"regter");
}

fn messages(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    let (mut x, mut y) = (*b"abc", *b"defg");
    let mut iov = [sys::iovec(&mut x), sys::iovec(&mut y)];
    let msg = sys::msghdr(&mut iov);
    check_eq!(both(&mut ring, sendmsg(a, &msg)), (Res(7), Res(0)));
    let report = sendmsg(a, &msg).with(|s| s.ioprio = REPORT);
    check_eq!(both(&mut ring, report), (Res(7), COPIED));
    let bad = sendmsg(a, &msg).with(|s| s.addr = 8);
    check_eq!(both(&mut ring, bad), (err(EFAULT), Res(0)), "a bad header");
    let off = sendmsg(a, &msg).with(|s| s.off = 8);
    check_eq!(both(&mut ring, off), (err(EINVAL), Res(0)), "off");
    let mut got = [0; 64];
    check_eq!(sys::read(b, &mut got), Res(14));
    check_eq!(&got[..14], b"abcdefgabcdefg");
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = sys::loopback(receiver.local_addr().unwrap().port());
    let sender = sys::keep(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let at = std::ptr::from_ref(&to) as u64;
    let sendto = send(sender, b"datagram").with(|s| (s.off, s.file_index) = (at, 16));
    check_eq!(both(&mut ring, sendto), (Res(8), Res(0)), "to an address");
    check_eq!(receiver.recv(&mut got).ok(), Some(8));
}

fn vectors_in_registered_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(8192);
    register(&ring, &mut memory[..4096]);
    let file = sys::file_with(b"0123456789abcdefghijkl");
    let (r, w) = sys::pipe();
    sys::write(w, b"0123456789abc");
    let at = |from: usize, len| libc::iovec {
        iov_base: memory[from..].as_ptr() as *mut _,
        iov_len: len,
    };
    let good = [at(0, 5), at(100, 6)];
    let read = |fd, v: &[libc::iovec], off| {
        op(Opcode::ReadvFixed, fd, v.as_ptr() as u64, v.len() as u32, off)
    };
    let write =
        |fd, v: &[libc::iovec], off| Sqe { opcode: Opcode::WritevFixed as u8, ..read(fd, v, off) };
    check_eq!(ring.res(read(file, &good, 2)), Res(11), "a file");
    check_eq!((&memory[..5], &memory[100..106]), (&b"23456"[..], &b"789abc"[..]));
    check_eq!(ring.res(write(file, &good, 0)), Res(11), "written back elsewhere");
    let mut back = [0; 13];
    sys::pread(file, &mut back, 0);
    check_eq!(&back, b"23456789abcbc");
    check_eq!(ring.res(read(r, &good, u64::MAX)), Res(11), "a pipe");
    check_eq!(ring.res(write(w, &good, u64::MAX)), Res(11), "a pipe");
    check_eq!(ring.res(read(file, &good, 0).forced_async()), Res(11), "on a worker");
    for (what, vector) in [
        ("partly outside", [at(0, 5), at(4090, 10)]),
        ("an empty element", [at(0, 0), at(0, 5)]),
        ("a null element", [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }, at(0, 5)]),
    ] {
        check_eq!(ring.res(read(file, &vector, 0)), err(EFAULT), "{what}");
        check_eq!(ring.res(write(file, &vector, 0)), err(EFAULT), "{what}");
    }
    check_eq!(ring.res(read(file, &good, 0).with(|s| s.buf_index = 1)), err(EFAULT), "no buffer");
    check_eq!(ring.res(read(file, &[], 0)), Res(0), "no elements");
    check_eq!(ring.res(read(file, &good, 0).with(|s| s.len = 1025)), err(EINVAL), "too many");
    check_eq!(ring.res(read(file, &good, 0).with(|s| s.addr = 8)), err(EFAULT), "a bad vector");
    check_eq!(ring.res(read(file, &good, 0).flag(32)), err(EOPNOTSUPP), "buffer select");
}

family!["zerocopy", modes;
    a_notification_follows,
    the_bit_of_32_bit_callers_means_nothing,
    a_large_send_waits_for_room,
    errors_are_notified_as_well,
    refused_without_a_notification,
    registered_buffers,
    messages,
    vectors_in_registered_memory,
];
