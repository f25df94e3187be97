//! SEND, RECV, SENDMSG, RECVMSG.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, recv, recvmsg, send, sendmsg};
use crate::sys;
use libc::{
    EAGAIN, EBADF, ECANCELED, EFAULT, EINVAL, EMSGSIZE, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE,
    MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SOCK_DGRAM, SOCK_SEQPACKET,
    SOCK_STREAM,
};
use soloring_abi::{Opcode, raw};

const POLL_FIRST: u16 = raw::IORING_RECVSEND_POLL_FIRST as u16;
const RECV_MULTI: u16 = raw::IORING_RECV_MULTISHOT as u16;

fn data_goes_across(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for (a, b) in [sys::socketpair(SOCK_STREAM), sys::socketpair(SOCK_DGRAM), sys::tcp_pair()] {
        let mut buf = [0; 16];
        check_eq!(ring.res(send(a, b"hello", 0)), Res(5));
        check_eq!(ring.res(recv(b, &mut buf, 0)), Res(5));
        check_eq!(&buf[..5], b"hello");
    }
}

fn receive_waits_for_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for (a, b) in [sys::socketpair(SOCK_STREAM), sys::tcp_pair()] {
        let mut buf = [0; 16];
        ring.submit_all(&[recv(a, &mut buf, 0).ud(1)]);
        check!(ring.quiet(), "early");
        sys::write(b, b"late");
        check_eq!(ring.wait().res, Res(4));
        ring.submit_all(&[recv(a, &mut buf, 0).ud(1)]);
        sys::close(b);
        check_eq!(ring.wait().res, Res(0), "end of file");
    }
}

fn nonblocking_sockets_are_waited_for(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::set_nonblocking(a);
    let mut buf = [0; 16];
    ring.submit_all(&[recv(a, &mut buf, 0).ud(1)]);
    check!(ring.quiet(), "recv on O_NONBLOCK completed");
    sys::write(b, b"x");
    check_eq!(ring.wait().res, Res(1));
    sys::fill(a);
    sys::set_nonblocking(a);
    ring.submit_all(&[send(a, b"more", 0).ud(1)]);
    check!(ring.quiet(), "send on O_NONBLOCK completed");
    sys::read(b, &mut vec![0; 1 << 20]);
    check_eq!(ring.wait().res, Res(4));
}

fn dontwait_answers_eagain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, _b) = sys::socketpair(SOCK_STREAM);
    let mut buf = [0; 16];
    check_eq!(ring.res(recv(a, &mut buf, MSG_DONTWAIT)), err(EAGAIN), "recv");
    sys::fill(a);
    check_eq!(ring.res(send(a, b"x", MSG_DONTWAIT)), err(EAGAIN), "send");
    let mut iov = [sys::iovec(&mut buf)];
    let mut msg = sys::msghdr(&mut iov);
    check_eq!(ring.res(recvmsg(a, &mut msg, MSG_DONTWAIT)), err(EAGAIN), "recvmsg");
    check_eq!(ring.res(sendmsg(a, &msg, MSG_DONTWAIT)), err(EAGAIN), "sendmsg");
    let forced = recv(a, &mut buf, MSG_DONTWAIT).forced_async();
    check_eq!(ring.res(forced), err(EAGAIN), "recv on a worker");
}

fn send_waits_for_room(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::fill(a);
    ring.submit_all(&[send(a, b"late", 0).ud(1)]);
    check!(ring.quiet(), "early");
    sys::read(b, &mut vec![0; 1 << 20]);
    check_eq!(ring.wait().res, Res(4));
}

fn waitall_collects_the_whole(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let mut buf = [0; 10];
    ring.submit_all(&[recv(a, &mut buf, MSG_WAITALL).ud(1)]);
    for piece in [&b"abc"[..], b"def", b"ghij"] {
        check!(ring.quiet(), "early");
        sys::write(b, piece);
    }
    check_eq!(ring.wait().res, Res(10));
    check_eq!(&buf, b"abcdefghij");
    ring.submit_all(&[recv(a, &mut buf, MSG_WAITALL).ud(1)]);
    sys::write(b, b"half");
    check!(ring.quiet(), "early");
    sys::close(b);
    check_eq!(ring.wait().res, Res(4), "what came before the end");
}

fn without_waitall_the_first_piece_will_do(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let mut buf = [0; 10];
    ring.submit_all(&[recv(a, &mut buf, 0).ud(1)]);
    check!(ring.quiet(), "early");
    sys::write(b, b"abc");
    check_eq!(ring.wait().res, Res(3));
}

fn a_large_send_is_completed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_SNDBUF, 16384);
    let data = vec![b'z'; 4 << 20];
    ring.submit_all(&[send(a, &data, MSG_WAITALL).ud(1)]);
    let reader = std::thread::spawn(move || {
        let mut sink = vec![0; 65536];
        let mut total = 0;
        while total < 4 << 20 {
            match sys::read(b, &mut sink) {
                Res(n @ 1..) => total += n,
                other => return other,
            }
        }
        Res(total)
    });
    check_eq!(ring.wait().res, Res(4 << 20), "MSG_WAITALL sends all of it");
    check_eq!(reader.join().unwrap(), Res(4 << 20));
}

fn poll_first_waits_for_readiness(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let mut buf = [0; 10];
    ring.submit_all(&[recv(a, &mut buf, 0).with(|s| s.ioprio = POLL_FIRST).ud(1)]);
    check!(ring.quiet(), "early");
    sys::write(b, b"x");
    check_eq!(ring.wait().res, Res(1));
    sys::write(b, b"y");
    let ready = recv(a, &mut buf, 0).with(|s| s.ioprio = POLL_FIRST);
    check_eq!(ring.res(ready), Res(1), "ready already");
    check_eq!(ring.res(send(a, b"z", 0).with(|s| s.ioprio = POLL_FIRST)), Res(1), "send");
    let dontwait = recv(a, &mut buf, MSG_DONTWAIT).with(|s| s.ioprio = POLL_FIRST);
    let res = ring.res(dontwait);
    check_eq!(res, err(EAGAIN), "DONTWAIT cannot be polled for");
}

fn poll_first_is_for_sockets(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let file = sys::file_with(b"x");
    let mut buf = [0; 10];
    let mut iov = [sys::iovec(&mut buf)];
    let mut msg = sys::msghdr(&mut iov);
    for fd in [r, w, file, sys::eventfd(0, 0)] {
        let received = recvmsg(fd, &mut msg, 0);
        for sqe in [send(fd, b"x", 0), sendmsg(fd, &msg, 0), received] {
            let first = sqe.with(|s| s.ioprio = POLL_FIRST);
            check_eq!(ring.res(first), err(ENOTSOCK), "operation {}", sqe.opcode);
            check_eq!(ring.res(first.forced_async()), err(ENOTSOCK), "async");
            // A failure, for what is linked to it.
            ring.submit_all(&[first.ud(1).link(), sqe::nop().ud(2)]);
            check_eq!(ring.results(2), [(1, err(ENOTSOCK)), (2, err(ECANCELED))]);
        }
    }
    // RECV alone finds out when the file is ready.
    let mut buf = [0; 10];
    let first = |fd, buf: &mut [u8]| recv(fd, buf, 0).with(|s| s.ioprio = POLL_FIRST).ud(1);
    check_eq!(ring.res(first(file, &mut buf)), err(EAGAIN), "a file that cannot be polled");
    ring.submit_all(&[first(r, &mut buf)]);
    check!(ring.quiet(), "early");
    sys::write(w, b"x");
    check_eq!(ring.wait().res, err(ENOTSOCK), "a pipe that is ready");
}

/// Every look finds the same bytes and counts them anew.
fn peeking_for_the_whole(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for (a, b) in [sys::socketpair(SOCK_STREAM), sys::tcp_pair(), sys::socketpair(SOCK_SEQPACKET)] {
        let mut buf = [0; 10];
        let whole = MSG_PEEK | MSG_WAITALL;
        ring.submit_all(&[recv(a, &mut buf, whole).ud(1)]);
        check!(ring.quiet(), "nothing there");
        sys::write(b, b"abcd");
        check_eq!(ring.wait().res, Res(10), "waited");
        check_eq!(&buf, b"abcdabcdab");
        buf = [0; 10];
        check_eq!(ring.res(recv(a, &mut buf, whole)), Res(10), "there already");
        check_eq!(&buf, b"abcdabcdab");
        let (left, right) = buf.split_at_mut(3);
        let mut iov = [sys::iovec(left), sys::iovec(right)];
        let mut msg = sys::msghdr(&mut iov);
        check_eq!(ring.res(recvmsg(a, &mut msg, whole)), Res(10), "a message");
        check_eq!(sys::read(a, &mut [0; 10]), Res(4), "what is really there");
    }
    // A datagram is whole with whatever it has.
    let (a, b) = sys::socketpair(SOCK_DGRAM);
    sys::write(b, b"abcd");
    check_eq!(ring.res(recv(a, &mut [0; 10], MSG_PEEK | MSG_WAITALL)), Res(4), "a datagram");
}

fn bad_flags(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::write(b, b"data");
    let mut buf = [0; 4];
    for flag in [1 << 7, 1 << 15] {
        check_eq!(
            ring.res(recv(a, &mut buf, 0).with(|s| s.ioprio = flag)),
            err(EINVAL),
            "recv {flag:#x}"
        );
        check_eq!(
            ring.res(send(a, &buf, 0).with(|s| s.ioprio = flag)),
            err(EINVAL),
            "send {flag:#x}"
        );
    }
    let multi_send = send(a, &buf, 0).with(|s| s.ioprio = RECV_MULTI);
    check_eq!(ring.res(multi_send), err(EINVAL), "RECV_MULTISHOT on a send");
    let multi = recv(a, &mut buf, 0).with(|s| s.ioprio = RECV_MULTI);
    check_eq!(ring.res(multi), err(EINVAL), "multishot without provided buffers");
    let oob = ring.res(recv(a, &mut buf, libc::MSG_ERRQUEUE));
    check_in!(oob, [err(EAGAIN), err(EOPNOTSUPP), Res(4)], "MSG_ERRQUEUE on a UNIX socket");
    let file_index = recv(a, &mut buf, 0).with(|s| s.file_index = 1);
    check_eq!(ring.res(file_index), err(EINVAL), "file_index of a receive");
    let mut vector = [sys::iovec(&mut buf)];
    let msg = sys::msghdr(&mut vector);
    for (flag, want) in
        [(1 << 1, false), (1 << 2, false), (1 << 3, false), (1 << 4, false), (1 << 5, true)]
    {
        let res = ring.res(sendmsg(a, &msg, 0).with(|s| s.ioprio = flag));
        check_eq!(res, if want { Res(4) } else { err(EINVAL) }, "sendmsg {flag:#x}");
    }
}

fn bad_buffers_and_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::write(b, b"data");
    let at = sys::forbidden_page();
    for opcode in [Opcode::Send, Opcode::Recv, Opcode::Sendmsg, Opcode::Recvmsg] {
        for at in [1, at] {
            check_eq!(ring.res(sqe::op(opcode, a, at, 4, 0)), err(EFAULT), "{opcode:?}");
        }
    }
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    check_eq!(ring.res(recv(r, &mut buf, 0)), err(ENOTSOCK), "recv of a pipe");
    check_eq!(ring.res(send(w, &buf, 0)), err(ENOTSOCK), "send to a pipe");
    check_eq!(ring.res(recv(sys::file_with(b"x"), &mut buf, 0)), err(ENOTSOCK), "a file");
    check_eq!(ring.res(recv(-1, &mut buf, 0)), err(EBADF), "-1");
    check_eq!(ring.res(recv(sys::tcp_socket(), &mut buf, 0)), err(ENOTCONN), "not connected");
    check_eq!(ring.res(send(sys::tcp_socket(), &buf, 0)), err(EPIPE), "send, not connected");
}

fn a_send_to_nobody_raises_no_signal(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    sys::catch(libc::SIGPIPE);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::close(b);
    check_eq!(ring.res(send(a, b"x", MSG_NOSIGNAL)), err(EPIPE), "MSG_NOSIGNAL");
    check_eq!(sys::signals_seen(), 0, "signals with MSG_NOSIGNAL");
    check_eq!(ring.res(send(a, b"x", 0)), err(EPIPE), "plain");
    check_eq!(sys::signals_seen(), 0, "io_uring sends with MSG_NOSIGNAL by itself");
}

fn zero_length(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    check_eq!(ring.res(send(a, b"", 0)), Res(0), "send");
    sys::write(b, b"x");
    check_eq!(ring.res(recv(a, &mut [], 0)), Res(0), "recv with data there");
    let (a, b) = sys::socketpair(SOCK_DGRAM);
    check_eq!(ring.res(send(a, b"", 0)), Res(0), "an empty datagram");
    check_eq!(ring.res(recv(b, &mut [0; 4], 0)), Res(0), "is received");
}

fn datagrams_and_truncation(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = sys::socketpair(kind);
        let mut small = [0; 4];
        sys::write(b, b"12345678");
        check_eq!(ring.res(recv(a, &mut small, MSG_PEEK)), Res(4), "peek");
        check_eq!(
            ring.res(recv(a, &mut small, MSG_TRUNC)),
            Res(8),
            "MSG_TRUNC tells the real size"
        );
        sys::write(b, b"12345678");
        check_eq!(ring.res(recv(a, &mut small, 0)), Res(4), "cut");
        check_eq!(ring.res(recv(a, &mut small, MSG_DONTWAIT)), err(EAGAIN), "the rest is gone");
        let huge = vec![0; 4 << 20];
        check_eq!(ring.res(send(b, &huge, 0)), err(EMSGSIZE), "too large a datagram");
    }
}

fn messages_scatter_and_gather(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let (mut x, mut y) = (*b"abc", *b"defg");
    let mut iov = [sys::iovec(&mut x), sys::iovec(&mut y)];
    let msg = sys::msghdr(&mut iov);
    check_eq!(ring.res(sendmsg(a, &msg, 0)), Res(7));
    let (mut p, mut q) = ([0; 5], [0; 5]);
    let mut iov = [sys::iovec(&mut p), sys::iovec(&mut q)];
    let mut msg = sys::msghdr(&mut iov);
    check_eq!(ring.res(recvmsg(b, &mut msg, 0)), Res(7));
    check_eq!((&p, &q[..2]), (b"abcde", &b"fg"[..]));
}

fn messages_wait_for_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let mut buf = [0; 8];
    let mut iov = [sys::iovec(&mut buf)];
    let mut msg = sys::msghdr(&mut iov);
    ring.submit_all(&[recvmsg(a, &mut msg, 0).ud(1)]);
    check!(ring.quiet(), "early");
    // The header's vector is the program's again after submission.
    iov[0].iov_len = 0;
    sys::write(b, b"late");
    check_eq!(ring.wait().res, Res(4));
    check_eq!((&buf[..4], iov[0].iov_len), (&b"late"[..], 0));
}

fn messages_tell_the_sender(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = Box::leak(Box::new(sys::loopback(receiver.local_addr().unwrap().port())));
    let (receiver, sender) = (sys::keep(receiver), sys::keep(sender));
    let mut data = *b"datagram";
    let mut iov = [sys::iovec(&mut data)];
    let mut msg = sys::msghdr(&mut iov);
    (msg.msg_name, msg.msg_namelen) = (std::ptr::from_mut(to).cast(), 16);
    check_eq!(ring.res(sendmsg(sender, &msg, 0)), Res(8));
    let mut from = sys::loopback(0);
    let mut small = [0; 4];
    let mut iov = [sys::iovec(&mut small)];
    let mut msg = sys::msghdr(&mut iov);
    (msg.msg_name, msg.msg_namelen) = ((&raw mut from).cast(), 16);
    check_eq!(ring.res(recvmsg(receiver, &mut msg, 0)), Res(4));
    check_eq!(u16::from_be(from.sin_port), sys::local_port(sender), "sender's port");
    check_eq!((msg.msg_namelen, msg.msg_flags & MSG_TRUNC), (16, MSG_TRUNC), "written back");
    // SEND with an address, as sendto(2).
    let at = std::ptr::from_ref(to) as u64;
    let sendto = send(sender, b"to", 0).with(|s| (s.off, s.file_index) = (at, 16));
    check_eq!(ring.res(sendto), Res(2), "send to an address");
    check_eq!(sys::read(receiver, &mut [0; 8]), Res(2));
}

fn messages_pass_descriptors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let (r, _w) = sys::pipe();
    // One SCM_RIGHTS header: length (8 bytes), level, type, then the descriptor.
    let mut control = [0u32; 6];
    control[0] = 20;
    control[2] = libc::SOL_SOCKET as u32;
    control[3] = libc::SCM_RIGHTS as u32;
    control[4] = r as u32;
    let mut byte = *b"x";
    let mut iov = [sys::iovec(&mut byte)];
    let mut msg = sys::msghdr(&mut iov);
    (msg.msg_control, msg.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    check_eq!(ring.res(sendmsg(a, &msg, 0)), Res(1));
    let mut control = [0u32; 6];
    (msg.msg_control, msg.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    check_eq!(ring.res(recvmsg(b, &mut msg, libc::MSG_CMSG_CLOEXEC)), Res(1));
    check_eq!(control[3], libc::SCM_RIGHTS as u32);
    let passed = control[4] as i32;
    check_eq!(sys::inode(passed), sys::inode(r), "the same pipe");
    check_eq!(sys::fcntl(passed, libc::F_GETFD, 0), Res(1), "MSG_CMSG_CLOEXEC");
}

/// A control buffer with one SCM_RIGHTS message: length (8 bytes), level, type, descriptors.
fn rights(fds: &[i32]) -> Vec<u32> {
    let mut control = vec![0; 4 + fds.len().next_multiple_of(2)];
    control[0] = 16 + 4 * fds.len() as u32;
    control[2] = libc::SOL_SOCKET as u32;
    control[3] = libc::SCM_RIGHTS as u32;
    for (to, fd) in control[4..].iter_mut().zip(fds) {
        *to = *fd as u32;
    }
    control
}

fn messages_pass_no_ring(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _w) = sys::pipe();
    let own = ring.fd;
    let mut byte = *b"x";
    let mut iov = [sys::iovec(&mut byte)];
    let (closed, after) = sys::socketpair(SOCK_STREAM);
    sys::close(after);
    let unix = [sys::socketpair(SOCK_STREAM).0, sys::socketpair(SOCK_DGRAM).0, closed];
    for (fds, want) in [
        (&[own][..], EINVAL),
        (&[r, own], EINVAL),
        (&[r, r, own, r], EINVAL),
        (&[own, -1], EINVAL),
        (&[-1, own], EBADF),
        (&[sys::unused_fd(), own], EBADF),
    ] {
        let mut control = rights(fds);
        let mut msg = sys::msghdr(&mut iov);
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = 4 * control.len();
        for a in unix {
            check_eq!(ring.res(sendmsg(a, &msg, 0)), err(want), "{} fd(s)", fds.len());
            let forced = sendmsg(a, &msg, 0).forced_async();
            check_eq!(ring.res(forced), err(want), "{} fd(s), async", fds.len());
        }
        // Elsewhere nobody looks.
        let (a, _b) = sys::tcp_pair();
        check_eq!(ring.res(sendmsg(a, &msg, 0)), Res(1), "TCP");
        // In a second message, behind one that is fine.
        let mut two = rights(&[r, r]);
        two.extend(&control);
        (msg.msg_control, msg.msg_controllen) = (two.as_mut_ptr().cast(), 4 * two.len());
        check_eq!(ring.res(sendmsg(unix[0], &msg, 0)), err(want), "in the second message");
    }
}

fn message_errors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::write(b, b"data");
    let mut buf = [0; 4];
    let mut iov = vec![sys::iovec(&mut buf); 1025];
    let mut msg = sys::msghdr(&mut iov);
    check_eq!(ring.res(recvmsg(a, &mut msg, 0)), err(EMSGSIZE), "too many vectors");
    msg.msg_iovlen = 1;
    msg.msg_iov = sys::forbidden_page() as *mut _;
    check_eq!(ring.res(recvmsg(a, &mut msg, 0)), err(EFAULT), "bad vector pointer");
    check_eq!(ring.res(sendmsg(a, &msg, 0)), err(EFAULT), "bad vector pointer");
    let mut bad = [libc::iovec { iov_base: sys::forbidden_page() as *mut _, iov_len: 4 }];
    let mut msg = sys::msghdr(&mut bad);
    check_eq!(ring.res(recvmsg(a, &mut msg, 0)), err(EFAULT), "bad buffer");
    let (r, _) = sys::pipe();
    check_eq!(ring.res(recvmsg(r, &mut msg, 0)), err(ENOTSOCK), "a pipe");
}

fn sockets_in_slots(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [a, b].as_ptr(), 2), Res(0));
    sys::close(a);
    sys::close(b);
    let mut buf = [0; 8];
    ring.submit_all(&[recv(1, &mut buf, 0).fixed().ud(1)]);
    check!(ring.quiet(), "early");
    ring.submit_all(&[send(0, b"slot", 0).fixed().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(4)), (2, Res(4))]);
}

family!["sendrecv", modes;
    data_goes_across,
    receive_waits_for_data,
    nonblocking_sockets_are_waited_for,
    dontwait_answers_eagain,
    send_waits_for_room,
    waitall_collects_the_whole,
    without_waitall_the_first_piece_will_do,
    a_large_send_is_completed,
    poll_first_waits_for_readiness,
    poll_first_is_for_sockets,
    peeking_for_the_whole,
    bad_flags,
    bad_buffers_and_files,
    a_send_to_nobody_raises_no_signal,
    zero_length,
    datagrams_and_truncation,
    messages_scatter_and_gather,
    messages_wait_for_data,
    messages_tell_the_sender,
    messages_pass_descriptors,
    messages_pass_no_ring,
    message_errors,
    sockets_in_slots,
];
