//! Multishot receives and reads: many completions from one request, each with a provided buffer.

use crate::backend::Abi;
use crate::families::bufring::{BufRing, INC, buffer_of, plain, provide, select};
use crate::res::{Res, err};
use crate::ring::{Done, Ring};
use crate::sqe::{self, SqeExt, op};
use crate::sys;
use libc::{
    EAGAIN, EBADFD, ECANCELED, EFAULT, EINVAL, ENOBUFS, EOPNOTSUPP, EOVERFLOW, MSG_DONTWAIT,
    MSG_TRUNC, MSG_WAITALL, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM,
};
use soloring_abi::{Opcode, Sqe, raw};

const GROUP: u16 = 2;
const MORE: u32 = raw::IORING_CQE_F_MORE;
const NONEMPTY: u32 = raw::IORING_CQE_F_SOCK_NONEMPTY;

fn recv(fd: i32) -> Sqe {
    select(op(Opcode::Recv, fd, 0, 0, 0), GROUP)
        .with(|s| s.ioprio = raw::IORING_RECV_MULTISHOT as u16)
        .ud(1)
}

fn recvmsg(fd: i32, msg: &libc::msghdr) -> Sqe {
    select(op(Opcode::Recvmsg, fd, std::ptr::from_ref(msg) as u64, 1, 0), GROUP)
        .with(|s| s.ioprio = raw::IORING_RECV_MULTISHOT as u16)
        .ud(1)
}

fn read(fd: i32) -> Sqe {
    select(op(Opcode::ReadMultishot, fd, 0, 0, u64::MAX), GROUP).ud(1)
}

fn used(bid: u16) -> u32 {
    raw::IORING_CQE_F_BUFFER | (bid as u32) << 16
}

/// Adds buffers of 16 bytes, numbered from 100 on.
fn fill(ring: &mut BufRing, memory: &[u8], slots: std::ops::Range<usize>) {
    for i in slots {
        ring.add(&memory[i * 16..][..16], 100 + i as u16);
    }
}

/// Everything that comes within a short while.
fn all(ring: &Ring) -> Vec<(Res, u32)> {
    let soon = std::time::Duration::from_millis(40);
    std::iter::from_fn(|| ring.wait_within(soon)).map(|d| plain(&d)).collect()
}

fn each_arrival_completes(abi: &Abi) {
    for tcp in [false, true] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
        fill(&mut bufs, memory, 0..8);
        let (a, b) = if tcp { sys::tcp_pair() } else { sys::socketpair(SOCK_STREAM) };
        ring.submit_all(&[recv(a)]);
        check!(ring.quiet(), "early");
        sys::write(b, b"hello");
        check_eq!(all(&ring), [(Res(5), used(100) | MORE)]);
        sys::write(b, b"0123456789abcdef");
        check_eq!(all(&ring), [(Res(16), used(101) | MORE)], "a full buffer");
        sys::write(b, b"0123456789abcdef0123456789abcdefXYZ");
        let want =
            [(Res(16), used(102) | MORE), (Res(16), used(103) | MORE), (Res(3), used(104) | MORE)];
        check_eq!(all(&ring), want, "several buffers at once");
        check_eq!(&memory[64..67], b"XYZ");
        sys::close(b);
        check_eq!(all(&ring), [(Res(0), 0)], "the end of the stream");
        check_eq!(bufs.head(&ring), 5, "takes no buffer");
    }
}

fn the_end_comes_with_the_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..8);
    let (a, b) = sys::tcp_pair();
    ring.submit_all(&[recv(a)]);
    for i in 0..3 {
        sys::write(b, b"hello");
        check_eq!(all(&ring), [(Res(5), used(100 + i) | MORE)]);
    }
    sys::write(b, b"hello");
    sys::close(b);
    std::thread::sleep(std::time::Duration::from_millis(20));
    ring.enter(0, 1, raw::IORING_ENTER_GETEVENTS);
    let both: Vec<_> = std::iter::from_fn(|| ring.pop()).map(|d| plain(&d)).collect();
    check_eq!(both, [(Res(5), used(103) | MORE), (Res(0), 0)], "in one turn");
}

fn running_out_of_buffers_ends_it(abi: &Abi) {
    for flags in [0, INC] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 16, GROUP, flags);
        fill(&mut bufs, memory, 0..2);
        let (a, b) = sys::socketpair(SOCK_STREAM);
        ring.submit_all(&[recv(a)]);
        sys::write(b, &[b'x'; 32]);
        let want = [(Res(16), used(100) | MORE), (Res(16), used(101) | MORE)];
        check_eq!(all(&ring), want, "the last buffer does not end it");
        sys::write(b, b"x");
        check_eq!(all(&ring), [(err(ENOBUFS), 0)], "what has no buffer does");
        check_eq!(ring.res(recv(a)), err(ENOBUFS), "at once");
        fill(&mut bufs, memory, 2..4);
        ring.submit_all(&[recv(a)]);
        let first = ring.wait();
        check_eq!((first.res, buffer_of(&first)), (Res(1), Some(102)), "nothing was lost");
    }
}

fn more_in_the_socket_is_told(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..4);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::write(b, &[b'x'; 40]);
    ring.submit_all(&[recv(a)]);
    let told: Vec<_> = ring.wait_n(3).iter().map(|d| d.flags & NONEMPTY != 0).collect();
    check_eq!(told, [true, true, false]);
    let (a, b) = sys::socketpair(SOCK_DGRAM);
    fill(&mut bufs, memory, 4..8);
    sys::write(b, &[b'x'; 16]);
    sys::write(b, &[b'x'; 16]);
    ring.submit_all(&[recv(a)]);
    let told: Vec<_> = ring.wait_n(2).iter().map(|d| d.flags & NONEMPTY != 0).collect();
    check_eq!(told, [false, false], "of messages it is not known");
}

fn messages_stay_apart(abi: &Abi) {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
        fill(&mut bufs, memory, 0..4);
        let (a, b) = sys::socketpair(kind);
        for text in [&b"one"[..], b"0123456789abcdef-cut", b"three"] {
            sys::write(b, text);
        }
        ring.submit_all(&[recv(a)]);
        let want =
            [(Res(3), used(100) | MORE), (Res(16), used(101) | MORE), (Res(5), used(102) | MORE)];
        check_eq!(all(&ring), want, "kind {kind}");
        sys::write(b, b"four");
        check_eq!(all(&ring)[0], (Res(4), used(103) | MORE), "kind {kind}");
    }
}

fn lengths_and_totals(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..16);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::write(b, &[b'x'; 12]);
    ring.submit_all(&[recv(a).with(|s| s.len = 5)]);
    let want = [(Res(5), used(100) | MORE), (Res(5), used(101) | MORE), (Res(2), used(102) | MORE)];
    check_eq!(all(&ring), want, "each at most the length");
    check_eq!(ring.res(sqe::cancel(1, 0, 0).ud(9)), Res(0));
    check_eq!(all(&ring), [(err(ECANCELED), 0)]);
    ring.submit_all(&[recv(a).with(|s| s.file_index = 20)]);
    sys::write(b, &[b'x'; 16]);
    check_eq!(all(&ring), [(Res(16), used(103) | MORE)]);
    sys::write(b, &[b'x'; 10]);
    check_eq!(all(&ring), [(Res(10), used(104))], "the total is reached, and not cut");
    ring.submit_all(&[recv(a).with(|s| s.file_index = 20)]);
    sys::write(b, &[b'x'; 40]);
    check_eq!(all(&ring), [(Res(16), used(105) | MORE), (Res(16), used(106))]);
}

fn refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..4);
    let (a, _b) = sys::socketpair(SOCK_STREAM);
    let msg = sys::msghdr(&mut []);
    let multi = raw::IORING_RECV_MULTISHOT as u16;
    let bundle = raw::IORING_RECVSEND_BUNDLE as u16;
    for (what, sqe) in [
        ("no group", recv(a).with(|s| s.flags = 0)),
        ("MSG_WAITALL", recv(a).with(|s| s.op_flags = MSG_WAITALL as u32)),
        ("fixed buffer", recv(a).with(|s| s.ioprio |= 4)),
        ("report usage", recv(a).with(|s| s.ioprio |= 8)),
        ("vectorized", recv(a).with(|s| s.ioprio |= 32)),
        ("a total for one", recv(a).with(|s| (s.ioprio, s.file_index) = (0, 5))),
        ("a total for messages", recvmsg(a, &msg).with(|s| s.file_index = 4)),
        ("a bundle of messages", recvmsg(a, &msg).with(|s| s.ioprio = bundle)),
        ("a send", select(sqe::send(a, b"x", 0), GROUP).with(|s| s.ioprio = multi)),
        ("read: no group", read(a).with(|s| s.flags = 0)),
        ("read: an address", read(a).with(|s| s.addr = 1)),
        ("read: a length", read(a).with(|s| s.len = 1)),
    ] {
        check_eq!(plain(&ring.run(sqe)), (err(EINVAL), 0), "{what}");
    }
    let file = sys::file_with(b"x");
    check_eq!(plain(&ring.run(read(file))), (err(EBADFD), 0), "a file cannot be waited for");
    check_eq!(bufs.head(&ring), 0, "no buffer was taken");
}

fn dontwait(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..4);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let nowait = recv(a).with(|s| s.op_flags = MSG_DONTWAIT as u32);
    check_eq!(plain(&ring.run(nowait)), (err(libc::EAGAIN), 0));
    sys::set_nonblocking(a);
    ring.submit_all(&[recv(a)]);
    check!(ring.quiet(), "O_NONBLOCK alone is waited for");
    sys::write(b, b"x");
    check_eq!(all(&ring), [(Res(1), used(100) | MORE)]);
}

fn a_full_completion_queue_ends_it(abi: &Abi) {
    let mut ring = Ring::new(abi, 2);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..16);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[recv(a)]);
    sys::write(b, &[b'x'; 8 * 16]);
    ring.enter(0, 5, raw::IORING_ENTER_GETEVENTS);
    let done: Vec<Done> = ring.wait_n(5);
    let want: Vec<_> =
        (0..5).map(|i| (Res(16), used(100 + i) | if i < 4 { MORE } else { 0 })).collect();
    let got: Vec<_> = done.iter().map(plain).collect();
    check_eq!(got, want, "four fit, the fifth is the last");
    ring.submit_all(&[recv(a)]);
    let first = ring.wait();
    check_eq!(buffer_of(&first), Some(105), "nothing was lost");
}

fn cancelled_between_arrivals(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..4);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let (r, w) = sys::pipe();
    ring.submit_all(&[recv(a), read(r).ud(2)]);
    sys::write(b, b"x");
    sys::write(w, b"y");
    check_eq!(all(&ring).len(), 2);
    ring.submit_all(&[sqe::cancel(1, 0, 0).ud(8), sqe::cancel(2, 0, 0).ud(9)]);
    let want = [(1, err(ECANCELED)), (2, err(ECANCELED)), (8, Res(0)), (9, Res(0))];
    check_eq!(ring.results(4), want);
    check_eq!(bufs.head(&ring), 2, "no buffer went with it");
}

fn skipped_success_is_still_told(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..4);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[recv(a).skip()]);
    sys::write(b, b"x");
    check_eq!(all(&ring), [(Res(1), used(100) | MORE)], "only the last one can be skipped");
    sys::close(b);
    check_eq!(all(&ring), [], "as the end of the stream is");
}

fn classic_groups_serve_it_too(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    check_eq!(ring.res(provide(memory.as_ptr() as u64, 16, 2, GROUP, 100)), Res(0));
    let (a, b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[recv(a)]);
    sys::write(b, &[b'x'; 40]);
    let want = [(Res(16), used(100) | MORE), (Res(16), used(101) | MORE), (err(ENOBUFS), 0)];
    check_eq!(all(&ring), want);
}

fn reads_of_a_pipe(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..5);
    let (r, w) = sys::pipe();
    ring.submit_all(&[read(r)]);
    check!(ring.quiet(), "early");
    sys::write(w, &[b'x'; 42]);
    let want =
        [(Res(16), used(100) | MORE), (Res(16), used(101) | MORE), (Res(10), used(102) | MORE)];
    check_eq!(all(&ring), want);
    sys::write(w, b"xy");
    check_eq!(all(&ring), [(Res(2), used(103) | MORE)]);
    sys::close(w);
    check_eq!(all(&ring), [(Res(0), 0)], "the end");
    let (r, w) = sys::pipe();
    sys::write(w, &[b'x'; 42]);
    ring.submit_all(&[read(r)]);
    check_eq!(all(&ring), [(Res(16), used(104) | MORE), (err(ENOBUFS), 0)], "data was there");
}

/// RWF_NOWAIT ends it after one read at most; RWF_HIPRI and a priority have no meaning for it.
fn flags_of_reads(abi: &Abi) {
    const HIPRI: u32 = 1;
    const NOWAIT: u32 = libc::RWF_NOWAIT as u32;
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..5);
    let (r, w) = sys::pipe();
    ring.submit_all(&[read(r).with(|s| s.op_flags = NOWAIT)]);
    check_eq!(all(&ring), [(err(EAGAIN), 0)], "nothing there");
    sys::write(w, &[b'x'; 20]);
    ring.submit_all(&[read(r).with(|s| s.op_flags = NOWAIT)]);
    let want = [(Res(16), used(100) | MORE), (err(EAGAIN), 0)];
    check_eq!(all(&ring), want, "something there");
    sys::write(w, &[b'x'; 20]);
    for bit in 0..16 {
        let res = ring.res(read(r).with(|s| s.ioprio = 1 << bit));
        check_eq!(res, err(EINVAL), "priority, bit {bit}");
    }
    check_eq!(ring.res(read(r).with(|s| s.op_flags = HIPRI)), err(EINVAL), "RWF_HIPRI");
    check_eq!(ring.res(read(r).with(|s| s.op_flags = 1 << 20)), err(EOPNOTSUPP), "unknown");
}

/// `struct io_uring_recvmsg_out`: name, control data and payload lengths, flags.
fn header(memory: &[u8], bid: u16) -> [u32; 4] {
    let at = (bid - 100) as usize * 64;
    std::array::from_fn(|i| u32::from_ne_bytes(memory[at + i * 4..][..4].try_into().unwrap()))
}

fn udp_pair() -> (i32, i32, u16) {
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let port = sender.local_addr().unwrap().port();
    (sys::keep(receiver), sys::keep(sender), port)
}

fn message_layout(abi: &Abi) {
    for (name_len, control_len) in [(0u32, 0usize), (16, 0), (8, 0), (16, 8), (0, 48)] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
        for i in 0..8 {
            bufs.add(&memory[i * 64..][..64], 100 + i as u16);
        }
        let (receiver, sender, port) = udp_pair();
        let mut msg = sys::msghdr(&mut []);
        (msg.msg_namelen, msg.msg_controllen) = (name_len, control_len);
        ring.submit_all(&[recvmsg(receiver, &msg)]);
        check!(ring.quiet(), "early");
        let before = 16 + name_len as usize + control_len;
        let room = 64 - before;
        let name = if name_len > 0 { 16 } else { 0 };
        if room > 5 {
            sys::write(sender, b"hello");
            let done = ring.wait();
            let want = (Res(before as i64 + 5), used(100) | MORE);
            check_eq!(plain(&done), want, "{name_len}, {control_len}");
            check_eq!(header(memory, 100), [name, 0, 5, 0], "{name_len}, {control_len}");
            check_eq!(&memory[before..before + 5], b"hello");
            if name_len == 16 {
                check_eq!(&memory[18..20], &port.to_be_bytes(), "the sender's port");
            }
            sys::write(sender, &[b'y'; 60]);
            check_eq!(plain(&ring.wait()), (Res(64), used(101) | MORE), "cut");
            let want = [name, 0, room as u32, MSG_TRUNC as u32];
            check_eq!(header(memory, 101), want, "{name_len}, {control_len}");
        }
        sys::write(sender, b"");
        let last = ring.wait();
        check_eq!(last.res, Res(before as i64), "an empty datagram");
        check!(last.flags & MORE == 0 && buffer_of(&last).is_some(), "ends it, with a buffer");
    }
}

fn message_errors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    for i in 0..8 {
        bufs.add(&memory[i * 64..][..64], 100 + i as u16);
    }
    let (receiver, sender, _) = udp_pair();
    for (name_len, control_len, want) in [
        (49, 0, err(EFAULT)),
        (48, 1, err(EFAULT)),
        (u32::MAX, 0, err(EOVERFLOW)),
        (0, usize::MAX >> 1, err(EOVERFLOW)),
    ] {
        let mut msg = sys::msghdr(&mut []);
        (msg.msg_namelen, msg.msg_controllen) = (name_len, control_len);
        let done = ring.run(recvmsg(receiver, &msg));
        check_eq!(plain(&done), (want, 0), "{name_len}, {control_len}");
    }
    for (vectors, want) in [(2, EINVAL), (1024, EINVAL), (1025, libc::EMSGSIZE)] {
        let mut msg = sys::msghdr(&mut []);
        msg.msg_iovlen = vectors;
        check_eq!(ring.res(recvmsg(receiver, &msg)), err(want), "{vectors} vectors");
    }
    check_eq!(bufs.head(&ring), 0, "no buffer was taken");
    let mut byte = [0; 8];
    let mut iov = [sys::iovec(&mut byte), sys::iovec(&mut [])];
    let msg = sys::msghdr(&mut iov);
    check_eq!(ring.res(recvmsg(receiver, &msg)), err(EINVAL), "two vectors");
    check_eq!(ring.res(recvmsg(receiver, &msg).with(|s| s.ioprio = 0)), err(EINVAL), "for one");
    let msg = sys::msghdr(&mut iov[..1]);
    sys::write(sender, b"more than eight");
    let one = ring.run(recvmsg(receiver, &msg).with(|s| s.ioprio = 0));
    check_eq!(plain(&one), (Res(8), used(100)), "one message, cut to the vector's length");
    check_eq!(&memory[..8], b"more tha");
    check_eq!(msg.msg_flags & MSG_TRUNC, MSG_TRUNC, "flags are written back");
}

fn many_sockets_share_a_group(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    let memory = sys::buffer(256 * 16);
    let mut bufs = BufRing::register(&ring, 256, GROUP, 0);
    fill(&mut bufs, memory, 0..256);
    let pairs: Vec<_> = (0..32).map(|_| sys::socketpair(SOCK_STREAM)).collect();
    let armed: Vec<_> = pairs.iter().enumerate().map(|(i, (a, _))| recv(*a).ud(i as u64)).collect();
    ring.submit_all(&armed);
    let mut seen = [0u32; 32];
    for round in 0..100u32 {
        for (i, (_, b)) in pairs.iter().enumerate() {
            sys::write(*b, &(i as u32 | round << 8).to_ne_bytes());
        }
        for _ in 0..pairs.len() {
            let done = ring.wait();
            let bid = buffer_of(&done).expect("a buffer") as usize - 100;
            let text = u32::from_ne_bytes(memory[bid * 16..][..4].try_into().unwrap());
            let i = done.ud as usize;
            check_eq!((done.res, text), (Res(4), i as u32 | seen[i] << 8), "socket {i}");
            check!(done.more(), "socket {i}, round {round}");
            seen[i] += 1;
            bufs.add(&memory[bid * 16..][..16], 100 + bid as u16);
        }
    }
    check_eq!(seen, [100; 32]);
}

family!["multishot", modes;
    each_arrival_completes,
    the_end_comes_with_the_data,
    running_out_of_buffers_ends_it,
    more_in_the_socket_is_told,
    messages_stay_apart,
    lengths_and_totals,
    refused,
    dontwait,
    a_full_completion_queue_ends_it,
    cancelled_between_arrivals,
    skipped_success_is_still_told,
    classic_groups_serve_it_too,
    reads_of_a_pipe,
    flags_of_reads,
    message_layout,
    message_errors,
    many_sockets_share_a_group,
];
