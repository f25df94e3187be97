//! What requests point to, on the heap: vectors, message headers, addresses, good and bad, read by whoever issues them.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop, op};
use crate::sys;
use libc::{EBADF, EFAULT, EINVAL, EMSGSIZE, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTSOCK, ESPIPE};
use soloring_abi::{Opcode, Sqe};

const TEXT: &[u8] = b"0123456789abcdef";

fn heap<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// A message over `len` bytes of memory that stays.
fn message(len: usize) -> &'static mut libc::msghdr {
    let iov = heap([sys::iovec(sys::buffer(len))]);
    heap(sys::msghdr(iov))
}

/// What a bad request does to its submission: results, what enter says, what is left.
fn submission(ring: &mut Ring, sqe: Sqe) -> (Vec<(u64, Res)>, Res, u32) {
    ring.push_all(&[sqe.ud(1), nop().ud(2)]);
    let entered = ring.enter(2, 0, 0);
    let left = ring.pending();
    let results = ring.results(2 - left as usize);
    ring.enter(left, left, 0);
    ring.results(left as usize);
    (results, entered, left)
}

/// A UDP socket with an address of its own on loopback.
fn udp() -> i32 {
    sys::keep(std::net::UdpSocket::bind("127.0.0.1:0").expect("a port on loopback"))
}

/// Both a bad pointer and a bad file: which is said, and whether the entry behind is taken.
fn bad_pointers_end_the_submission(abi: &Abi) {
    let (_, hole) = (sys::buffer(1), sys::forbidden_page());
    let (a, _b) = sys::socketpair(libc::SOCK_STREAM);
    let files = [sys::file_with(TEXT), sys::pipe().0, a, -1, sys::unused_fd()];
    let header = heap(sys::msghdr(&mut []));
    (header.msg_iov, header.msg_iovlen) = (hole as *mut _, 1);
    let header = &raw const *header as u64;
    let named = message(4);
    (named.msg_name, named.msg_namelen) = (hole as *mut _, 16);
    let named = &raw const *named as u64;
    let lengths =
        heap([libc::iovec { iov_base: hole as *mut _, iov_len: usize::MAX }]).as_ptr() as u64;
    let kernels =
        heap([libc::iovec { iov_base: (1u64 << 63) as *mut _, iov_len: 1 }]).as_ptr() as u64;
    let data = sys::buffer(4).as_ptr() as u64;
    let mut ring = Ring::new(abi, 4);
    for fd in files {
        for vector in [hole, hole + 4088, 8, lengths, kernels] {
            for opcode in [Opcode::Readv, Opcode::Writev] {
                let seen = submission(&mut ring, op(opcode, fd, vector, 1, 0));
                let e = if vector == lengths { EINVAL } else { EFAULT };
                check_eq!(
                    seen,
                    (vec![(1, err(e))], Res(1), 1),
                    "{opcode:?} of {vector:#x} on {fd}"
                );
            }
        }
        for at in [hole, hole + 4080, 8, u64::MAX - 7, header] {
            for opcode in [Opcode::Sendmsg, Opcode::Recvmsg] {
                let seen = submission(&mut ring, op(opcode, fd, at, 1, 0));
                check_eq!(
                    seen,
                    (vec![(1, err(EFAULT))], Res(1), 1),
                    "{opcode:?} of {at:#x} on {fd}"
                );
            }
        }
        let seen = submission(&mut ring, op(Opcode::Sendmsg, fd, named, 1, 0));
        check_eq!(
            seen,
            (vec![(1, err(EFAULT))], Res(1), 1),
            "an address that cannot be read, {fd}"
        );
        for (to, len, e) in [(hole, 16, EFAULT), (hole, 129, EINVAL), (data, 0xffff, EINVAL)] {
            let send = op(Opcode::Send, fd, data, 4, to).with(|s| s.file_index = len);
            let seen = submission(&mut ring, send);
            check_eq!(seen, (vec![(1, err(e))], Res(1), 1), "to {to:#x} of {len} on {fd}");
        }
    }
    // With good pointers a bad file is no failed check: what stands behind is taken.
    let good = heap([sys::iovec(sys::buffer(4))]);
    for (fd, e) in [(-1, EBADF), (sys::unused_fd(), EBADF)] {
        let seen = submission(&mut ring, sqe::readv(fd, good, 0));
        check_eq!(seen, (vec![(1, err(e)), (2, Res(0))], Res(2), 0), "READV on {fd}");
        let seen = submission(&mut ring, sqe::recvmsg(fd, message(4), 0));
        check_eq!(seen, (vec![(1, err(e)), (2, Res(0))], Res(2), 0), "RECVMSG on {fd}");
    }
    let seen = submission(&mut ring, sqe::sendmsg(files[0], message(4), 0));
    check_eq!(seen, (vec![(1, err(ENOTSOCK)), (2, Res(0))], Res(2), 0), "SENDMSG on a file");
    let long = heap(*message(1));
    long.msg_iovlen = 1025;
    let seen = submission(&mut ring, sqe::sendmsg(a, long, 0));
    check_eq!(seen, (vec![(1, err(EMSGSIZE))], Res(1), 1), "too many vectors");
}

fn vectors_on_the_heap(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let bufs: [&mut [u8]; 3] = [sys::buffer(3), &mut [], sys::buffer(5)];
    let at: Vec<_> = bufs.iter().map(|b| b.as_ptr()).collect();
    let iov = heap(bufs.map(sys::iovec));
    check_eq!(ring.res(sqe::readv(fd, iov, 2)), Res(8), "inside");
    // SAFETY: the two buffers of three and five bytes, which the read above has left alone since.
    let (first, last) =
        unsafe { (std::slice::from_raw_parts(at[0], 3), std::slice::from_raw_parts(at[2], 5)) };
    check_eq!((first, last), (&TEXT[2..5], &TEXT[5..10]));
    check_eq!(ring.res(sqe::readv(fd, iov, 12)), Res(4), "up to the end");
    check_eq!((first, last[0]), (&TEXT[12..15], TEXT[15]));
    check_eq!(ring.res(sqe::readv(fd, iov, 16)), Res(0), "at the end");
    check_eq!(ring.res(sqe::readv(fd, iov, u64::MAX)), Res(8), "at the file's own position");
    check_eq!(ring.res(sqe::readv(fd, iov, u64::MAX)), Res(8), "and on");
    check_eq!(ring.res(sqe::readv(fd, iov, u64::MAX)), Res(0), "to the end");
    check_eq!(ring.res(sqe::writev(fd, iov, 30)), Res(8), "beyond the end");
    check_eq!(sys::seek(fd, 0, libc::SEEK_END), Res(38));
    check_eq!(ring.res(sqe::readv(fd, &iov[1..2], 0)), Res(0), "nothing");
    check_eq!(ring.res(op(Opcode::Readv, fd, iov.as_ptr() as u64, 0, 0)), Res(0), "no vector");
    check_eq!(ring.res(sqe::readv(sys::open("/", 0), iov, 0)), err(libc::EISDIR), "a directory");
    let (r, w) = sys::pipe();
    sys::write(w, b"abcdef");
    check_eq!(ring.res(sqe::readv(r, iov, 7)), Res(6), "a pipe takes any offset");
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    sys::write(b, b"abcdef");
    check_eq!(ring.res(sqe::readv(a, iov, 7)), err(ESPIPE), "a socket does not");
    check_eq!(ring.res(sqe::readv(a, iov, 0)), Res(6));
}

/// A large file in pieces that do not match its pages.
fn long_vectors(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let contents: Vec<u8> = (0..300_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let fd = sys::file_with(&contents);
    let target = sys::buffer(300_000);
    let start = target.as_ptr();
    let iov: Vec<_> = target.chunks_mut(1234).map(sys::iovec).collect();
    check_eq!(ring.res(sqe::readv(fd, &iov, 0)), Res(300_000));
    // SAFETY: the whole buffer, filled by the read that is done.
    check!(unsafe { std::slice::from_raw_parts(start, 300_000) } == contents, "what was read");
    let copy = sys::file_with(b"");
    check_eq!(ring.res(sqe::writev(copy, &iov, 0)), Res(300_000));
    let mut back = vec![0; 300_000];
    check_eq!(sys::pread(copy, &mut back, 0), Res(300_000));
    check!(back == contents, "what was written");
}

fn vectors_at_the_end_of_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let page = sys::guarded_page();
    let end = page.as_mut_ptr_range().end as u64;
    let vector = end - 16;
    sys::poke(vector as usize, &(page.as_ptr() as u64).to_ne_bytes());
    sys::poke(vector as usize + 8, &4u64.to_ne_bytes());
    check_eq!(ring.res(op(Opcode::Readv, fd, vector, 1, 0)), Res(4), "the last one");
    check_eq!(ring.res(op(Opcode::Readv, fd, vector, 2, 0)), err(EFAULT), "and one beyond");
    check_eq!(&page[..4], &TEXT[..4]);
}

/// SUBMIT_STABLE: what a waiting request pointed to may be gone.
fn waiting_requests_have_copied(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let target = sys::buffer(8);
    let at = target.as_ptr();
    let iov = heap([sys::iovec(target)]);
    ring.submit_all(&[sqe::readv(r, iov, 0).ud(1)]);
    iov[0].iov_base = std::ptr::without_provenance_mut(8);
    sys::write(w, b"readv");
    check_eq!(ring.results(1), [(1, Res(5))]);
    // SAFETY: the buffer, which the finished read has filled.
    check_eq!(unsafe { std::slice::from_raw_parts(at, 5) }, b"readv");
    let header = message(8);
    // SAFETY: the vector behind the header lives for ever.
    let iov = unsafe { &mut *header.msg_iov };
    let at = iov.iov_base.cast::<u8>();
    ring.submit_all(&[sqe::recvmsg(a, header, 0).ud(2)]);
    iov.iov_base = std::ptr::without_provenance_mut(8);
    header.msg_iovlen = 1 << 40;
    sys::write(b, b"recvmsg");
    check_eq!(ring.results(1), [(2, Res(7))]);
    // SAFETY: as above.
    check_eq!(unsafe { std::slice::from_raw_parts(at, 7) }, b"recvmsg");
}

/// Name, control data and flags come back in the program's header, and a descriptor arrives.
fn messages_on_the_heap(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let receiver = udp();
    let sender = udp();
    let to = heap(sys::loopback(sys::local_port(receiver)));
    let out = message(4);
    (out.msg_name, out.msg_namelen) = ((&raw mut *to).cast(), 16);
    check_eq!(ring.res(sqe::sendmsg(sender, out, 0)), Res(4), "with an address");
    let from = heap(sys::loopback(0));
    let back = message(2);
    (back.msg_name, back.msg_namelen) = ((&raw mut *from).cast(), 100);
    back.msg_flags = -1;
    check_eq!(ring.res(sqe::recvmsg(receiver, back, 0)), Res(2), "cut off");
    check_eq!((back.msg_namelen, back.msg_flags), (16, libc::MSG_TRUNC));
    check_eq!(u16::from_be(from.sin_port), sys::local_port(sender));
    let data = sys::buffer(4);
    let send = op(Opcode::Send, sender, data.as_ptr() as u64, 4, &raw const *to as u64);
    check_eq!(ring.res(send.with(|s| s.file_index = 16)), Res(4), "SEND to an address");
    check_eq!(ring.res(send.with(|s| s.file_index = 1)), err(EINVAL), "too short an address");
    check_eq!(ring.res(sqe::recvmsg(receiver, message(9), 0)), Res(4));

    let (a, b) = sys::socketpair(libc::SOCK_DGRAM);
    let control = heap([0u64; 3]);
    (control[0], control[1]) = (20, (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64);
    let carry = |fd: i32, control: &mut [u64; 3]| {
        control[2] = fd as u32 as u64;
        let header = message(4);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 20);
        sqe::sendmsg(a, header, 0)
    };
    check_eq!(ring.res(carry(sys::unused_fd(), control)), err(EBADF), "no such descriptor");
    check_eq!(ring.res(carry(ring.fd, control)), err(EINVAL), "a ring");
    check_eq!(ring.res(carry(sys::file_with(TEXT), control)), Res(4), "a file");
    let header = message(4);
    (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    *control = [0; 3];
    check_eq!(ring.res(sqe::recvmsg(b, header, 0)), Res(4));
    check_eq!((header.msg_controllen, control[0]), (24, 20));
    let mut got = [0; 4];
    check_eq!(sys::pread(control[2] as i32, &mut got, 0), Res(4), "what arrived");
    check_eq!(&got, &TEXT[..4]);
    let empty = heap(sys::msghdr(&mut []));
    check_eq!(ring.res(sqe::sendmsg(a, empty, 0)), Res(0), "an empty datagram");
    check_eq!(ring.res(sqe::recvmsg(b, empty, 0)), Res(0));
}

/// Paths that cannot be read, are empty or too long fail the checks; what they lead to does not.
fn paths_on_the_heap(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let open = |at: u64, flags: i32| {
        op(Opcode::Openat, libc::AT_FDCWD, at, 0, 0).with(|s| s.op_flags = flags as u32)
    };
    let path = |text: &str| {
        let bytes = sys::buffer(text.len() + 1);
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes.as_ptr() as u64
    };
    let page = sys::guarded_page();
    page.fill(b'x');
    let endless = page.as_ptr() as u64 + 4000;
    let long = path(&"x".repeat(4096));
    for flags in [libc::O_RDONLY, libc::O_RDWR | libc::O_CREAT] {
        for (at, e) in [
            (sys::forbidden_page(), EFAULT),
            (8, EFAULT),
            (endless, EFAULT),
            (path(""), ENOENT),
            (long, ENAMETOOLONG),
        ] {
            let seen = submission(&mut ring, open(at, flags));
            check_eq!(seen, (vec![(1, err(e))], Res(1), 1), "{at:#x}, flags {flags:#o}");
        }
    }
    let taken = |res| (vec![(1, res), (2, Res(0))], Res(2), 0);
    for (text, e) in [("/nowhere/at/all", ENOENT), ("/proc/version/x", ENOTDIR)] {
        let seen = submission(&mut ring, open(path(text), libc::O_RDONLY));
        check_eq!(seen, taken(err(e)), "{text}");
    }
    let name = path(&"x".repeat(256));
    check_eq!(submission(&mut ring, open(name, 0)), taken(err(ENAMETOOLONG)), "a long name");
    let opened = ring.res(open(path("/proc/self/stat"), libc::O_RDONLY | libc::O_CLOEXEC));
    check!(opened.0 > 2, "a file: {opened}");
    let flags = sys::fcntl(opened.0 as i32, libc::F_GETFL, 0);
    check_eq!(flags.0 & libc::O_NONBLOCK as i64, 0, "how it was opened");
    check_eq!(sys::fcntl(opened.0 as i32, libc::F_GETFD, 0), Res(1));
    sys::close(opened.0 as i32);
}

family!["lent", modes;
    paths_on_the_heap,
    bad_pointers_end_the_submission,
    vectors_on_the_heap,
    long_vectors,
    vectors_at_the_end_of_memory,
    waiting_requests_have_copied,
    messages_on_the_heap,
];
