//! Provided buffers: classic groups, buffer rings, and the requests that choose from them.

use crate::backend::Abi;
use crate::families::bufring::{
    BufRing, INC, MMAP, REGISTER, STATUS, UNREGISTER, buffer_of, plain, provide, reg, remove,
    select,
};
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, op};
use crate::sys;
use libc::{
    E2BIG, EBADF, ECANCELED, EEXIST, EFAULT, EINVAL, ENOBUFS, ENOENT, EOPNOTSUPP, EOVERFLOW, EPIPE,
    MSG_DONTWAIT, MSG_WAITALL, SOCK_STREAM,
};
use soloring_abi::{Opcode, Sqe, raw};

const GROUP: u16 = 2;
const CURRENT: u64 = u64::MAX;

fn read(fd: i32, len: u32, off: u64) -> Sqe {
    select(op(Opcode::Read, fd, 0, len, off), GROUP)
}

fn recv(fd: i32, len: u32, msg_flags: i32) -> Sqe {
    select(op(Opcode::Recv, fd, 0, len, 0), GROUP).with(|s| s.op_flags = msg_flags as u32)
}

fn send(fd: i32, len: u32) -> Sqe {
    select(op(Opcode::Send, fd, 0, len, 0), GROUP)
}

/// `cqe->flags` for a buffer alone, and with more of it left.
fn used(bid: u16) -> u32 {
    raw::IORING_CQE_F_BUFFER | (bid as u32) << 16
}
fn partly(bid: u16) -> u32 {
    used(bid) | raw::IORING_CQE_F_BUF_MORE
}

/// Adds buffers of 16 bytes, numbered from 100 on.
fn fill(ring: &mut BufRing, memory: &[u8], slots: std::ops::Range<usize>) {
    for i in slots {
        ring.add(&memory[i * 16..][..16], 100 + i as u16);
    }
}

fn providing(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let at = sys::buffer(65536).as_ptr() as u64;
    for (what, sqe, want) in [
        ("none", provide(at, 64, 0, 1, 0), err(E2BIG)),
        ("negative", provide(at, 64, -1, 1, 0), err(E2BIG)),
        ("too many", provide(at, 64, 65_537, 1, 0), err(E2BIG)),
        ("no length", provide(at, 0, 4, 1, 0), err(EINVAL)),
        ("number over 16 bits", provide(at, 64, 4, 1, 65_536), err(E2BIG)),
        ("numbers wrap", provide(at, 64, 7, 1, 65_530), err(EINVAL)),
        ("numbers just fit", provide(at, 64, 6, 1, 65_530), Res(0)),
        ("address wraps", provide(u64::MAX - 100, 64, 4, 1, 0), err(EOVERFLOW)),
        ("not the program's", provide(1 << 63, 64, 4, 1, 0), err(EFAULT)),
        ("end is not the program's", provide(at, u32::MAX, 65_535, 1, 0), err(EFAULT)),
        ("unmapped is not looked at", provide(1, 64, 4, 1, 0), Res(0)),
        ("rw_flags", provide(at, 64, 4, 1, 0).with(|s| s.op_flags = 1), err(EINVAL)),
        ("file_index", provide(at, 64, 4, 1, 0).with(|s| s.file_index = 1), err(EINVAL)),
        ("ioprio", provide(at, 64, 4, 1, 0).with(|s| s.ioprio = 1), err(EINVAL)),
        ("as many as fit", provide(at, 64, 65_536, 1, 0), Res(0)),
        ("full", provide(at, 64, 1, 1, 0), err(EOVERFLOW)),
        ("all of them", remove(65_536, 1), Res(65_535)),
        ("none left", remove(1, 1), Res(0)),
    ] {
        check_eq!(ring.res(sqe), want, "{what}");
    }
}

fn removing(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let at = sys::buffer(4096).as_ptr() as u64;
    check_eq!(ring.res(remove(1, 1)), err(ENOENT), "no group");
    check_eq!(ring.res(provide(at, 16, 10, 1, 0)), Res(0));
    for (what, sqe, want) in [
        ("none", remove(0, 1), err(EINVAL)),
        ("negative", remove(-1, 1), err(EINVAL)),
        ("too many", remove(65_537, 1), err(EINVAL)),
        ("addr", remove(1, 1).with(|s| s.addr = 1), err(EINVAL)),
        ("len", remove(1, 1).with(|s| s.len = 1), err(EINVAL)),
        ("off", remove(1, 1).with(|s| s.off = 1), err(EINVAL)),
        ("rw_flags", remove(1, 1).with(|s| s.op_flags = 1), err(EINVAL)),
        ("some", remove(4, 1), Res(4)),
        ("more than there are", remove(100, 1), Res(6)),
    ] {
        check_eq!(ring.res(sqe), want, "{what}");
    }
}

fn classic_buffers_come_in_order(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let at = memory.as_ptr() as u64;
    let (r, w) = sys::pipe();
    let file = sys::file_with(b"0123456789abcdef");
    check_eq!(ring.res(provide(at, 8, 6, GROUP, 10)), Res(0));
    sys::write(w, b"hello world");
    check_eq!(plain(&ring.run(read(r, 0, CURRENT))), (Res(8), used(10)), "a whole buffer");
    check_eq!(&memory[..8], b"hello wo");
    check_eq!(plain(&ring.run(read(file, 3, 4))), (Res(3), used(11)), "the request's length");
    check_eq!(&memory[8..11], b"456");
    check_eq!(plain(&ring.run(read(file, 3, 99))), (Res(0), used(12)), "at the end of the file");
    check_eq!(plain(&ring.run(read(w, 3, CURRENT))), (err(EBADF), used(13)), "an error");
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let dontwait = ring.run(recv(a, 0, MSG_DONTWAIT));
    check_eq!(plain(&dontwait), (err(libc::EAGAIN), 0), "nothing to receive takes no buffer");
    sys::write(b, b"abc");
    check_eq!(plain(&ring.run(recv(a, 0, 0))), (Res(3), used(14)), "receive");
    check_eq!(plain(&ring.run(send(a, 3))), (Res(8), used(15)), "a send sends the whole buffer");
    check_eq!(plain(&ring.run(read(file, 3, 4))), (err(ENOBUFS), 0), "none left");
    check_eq!(plain(&ring.run(send(a, 3))), (err(ENOBUFS), 0), "none left to send");
}

fn what_can_choose(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, _b) = sys::socketpair(SOCK_STREAM);
    for (opcode, want) in [
        (Opcode::Nop, err(EOPNOTSUPP)),
        (Opcode::Write, err(EOPNOTSUPP)),
        (Opcode::ReadFixed, err(EOPNOTSUPP)),
        (Opcode::ReadvFixed, err(EOPNOTSUPP)),
        (Opcode::Sendmsg, err(EOPNOTSUPP)),
        (Opcode::SendZc, err(EOPNOTSUPP)),
        (Opcode::Read, err(ENOBUFS)),
        (Opcode::Readv, err(EINVAL)),
        (Opcode::Recv, err(ENOBUFS)),
        (Opcode::Recvmsg, err(EFAULT)),
        (Opcode::Send, err(ENOENT)),
        (Opcode::ReadMultishot, err(ENOBUFS)),
    ] {
        let sqe = select(op(opcode, a, 0, 0, 0), 99);
        check_eq!(ring.res(sqe), want, "{opcode:?} without such a group");
    }
}

fn readv_takes_only_the_length(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let at = sys::buffer(4096).as_ptr() as u64;
    let file = sys::file_with(b"0123456789abcdef");
    check_eq!(ring.res(provide(at, 8, 4, GROUP, 10)), Res(0));
    let iov = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 4 }; 2];
    let readv = |at, n| select(op(Opcode::Readv, file, at, n, 0), GROUP);
    let at = iov.as_ptr() as u64;
    check_eq!(ring.res(readv(at, 0)), err(EINVAL), "no vector");
    check_eq!(ring.res(readv(at, 2)), err(EINVAL), "two vectors");
    check_eq!(ring.res(readv(8, 1)), err(EFAULT), "a bad vector");
    check_eq!(plain(&ring.run(readv(at, 1))), (Res(4), used(10)));
}

fn registering_rings(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let at = sys::buffer(65_536).as_ptr() as u64;
    type Change = fn(&mut raw::io_uring_buf_reg);
    let cases: &[(&str, Change, Res)] = &[
        ("good", |_| {}, Res(0)),
        ("one entry", |a| a.ring_entries = 1, Res(0)),
        ("no entries", |a| a.ring_entries = 0, err(EINVAL)),
        ("three entries", |a| a.ring_entries = 3, err(EINVAL)),
        ("more than there is memory", |a| a.ring_entries = 32_768, err(EFAULT)),
        ("too many entries", |a| a.ring_entries = 65_536, err(EINVAL)),
        ("no address", |a| a.ring_addr = 0, err(EFAULT)),
        ("address off its page", |a| a.ring_addr += 8, err(EINVAL)),
        ("unmapped", |a| a.ring_addr = 4096, err(EFAULT)),
        ("forbidden", |a| a.ring_addr = sys::forbidden_page(), err(EFAULT)),
        ("read-only", |a| a.ring_addr = sys::read_only_page(), err(EFAULT)),
        ("incremental", |a| a.flags = INC, Res(0)),
        ("unknown flag", |a| a.flags = 4, err(EINVAL)),
        ("min_left", |a| a.resv[0] = 16, err(EINVAL)),
        ("min_left, incremental", |a| (a.resv[0], a.flags) = (16, INC), Res(0)),
        ("behind min_left", |a| a.resv[0] = 1 << 32, err(EINVAL)),
        ("reserved", |a| a.resv[2] = 1, err(EINVAL)),
        ("last group", |a| a.bgid = 65_535, Res(0)),
    ];
    for (what, change, want) in cases {
        let mut arg = reg(at, 8, GROUP, 0);
        change(&mut arg);
        check_eq!(ring.register(REGISTER, &arg, 1), *want, "{what}");
        if *want == Res(0) {
            let undo = reg(3, 99, arg.bgid, 0);
            check_eq!(ring.register(UNREGISTER, &undo, 1), Res(0), "{what}, undone");
            check_eq!(ring.register(UNREGISTER, &undo, 1), err(ENOENT), "{what}, undone twice");
        }
    }
    let arg = reg(at, 8, GROUP, 0);
    for opcode in [REGISTER, UNREGISTER, STATUS] {
        check_eq!(ring.register(opcode, &arg, 0), err(EINVAL), "{opcode}: no argument");
        check_eq!(ring.register(opcode, &arg, 2), err(EINVAL), "{opcode}: two arguments");
        let null = std::ptr::null::<u8>();
        check_eq!(ring.register(opcode, null, 1), err(EINVAL), "{opcode}: null");
        check_eq!(ring.register(opcode, sys::BAD, 1), err(EFAULT), "{opcode}: bad");
    }
}

fn classic_and_ring_groups_exclude_each_other(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let at = sys::buffer(8192).as_ptr() as u64;
    let arg = reg(at, 8, GROUP, 0);
    check_eq!(ring.res(provide(at, 64, 2, GROUP, 0)), Res(0));
    check_eq!(ring.register(REGISTER, &arg, 1), err(EEXIST), "buffers are there");
    check_eq!(ring.register(UNREGISTER, &arg, 1), err(EINVAL), "no ring");
    check_eq!(ring.res(remove(2, GROUP)), Res(2));
    check_eq!(ring.register(REGISTER, &arg, 1), Res(0), "an empty classic group is replaced");
    check_eq!(ring.register(REGISTER, &arg, 1), err(EEXIST), "twice");
    check_eq!(ring.res(provide(at, 64, 2, GROUP, 0)), err(EINVAL), "provide to a ring");
    check_eq!(ring.res(remove(2, GROUP)), err(EINVAL), "remove from a ring");
    let flags = reg(0, 0, GROUP, 1);
    check_eq!(ring.register(UNREGISTER, &flags, 1), err(EINVAL), "flags");
}

fn status(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    check_eq!(ring.res(provide(memory.as_ptr() as u64, 64, 2, 7, 0)), Res(0));
    let mut bufs = BufRing::register(&ring, 8, GROUP, 0);
    fill(&mut bufs, memory, 0..8);
    let file = sys::file_with(b"0123456789abcdef");
    for _ in 0..3 {
        ring.run(read(file, 0, 0));
    }
    let ask = |group: u32, index: usize, value: u32| {
        let mut status = [0u32; 10];
        status[index] = value;
        status[0] = group;
        (ring.register(STATUS, status.as_mut_ptr(), 1), status[1])
    };
    check_eq!(ask(GROUP as u32, 0, 0), (Res(0), 3), "three were taken");
    check_eq!(ask(GROUP as u32, 1, 77), (Res(0), 3), "the head is only an output");
    check_eq!(ask(GROUP as u32, 2, 1), (err(EINVAL), 0), "reserved");
    check_eq!(ask(7, 0, 0).0, err(EINVAL), "a classic group");
    check_eq!(ask(8, 0, 0).0, err(ENOENT), "no group");
    check_eq!(ask(65_536 + GROUP as u32, 0, 0).0, err(ENOENT), "beyond 16 bits");
}

fn rings_in_ring_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::mapped(&ring, 8, GROUP, 0);
    let file = sys::file_with(b"0123456789abcdef");
    for round in 0..5 {
        fill(&mut bufs, memory, 0..8);
        for i in 0..8 {
            let done = ring.run(read(file, 0, 0));
            check_eq!(plain(&done), (Res(16), used(100 + i)), "round {round}");
        }
        check_eq!(ring.res(read(file, 0, 0)), err(ENOBUFS), "all used");
    }
    let off = |group: i64| raw::IORING_OFF_PBUF_RING as i64 | group << 16;
    check!(!abi.mmap(ring.fd, 128, off(GROUP as i64)).is_err(), "mapped twice");
    check_eq!(abi.mmap(ring.fd, 4096, off(77)), err(libc::ENOMEM), "no such group");
    BufRing::register(&ring, 8, 5, 0);
    check_eq!(abi.mmap(ring.fd, 4096, off(5)), err(libc::ENOMEM), "the program's memory");
    check_eq!(bufs.unregister(&ring), Res(0));
    check_eq!(abi.mmap(ring.fd, 4096, off(GROUP as i64)), err(libc::ENOMEM), "unregistered");
    bufs.set_tail(4);
    check_eq!(bufs.entry(3).2, 103, "the program's mapping stays");
}

fn ring_buffers_come_in_order(abi: &Abi) {
    for flags in [0, MMAP] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = match flags {
            0 => BufRing::register(&ring, 16, GROUP, 0),
            _ => BufRing::mapped(&ring, 16, GROUP, 0),
        };
        fill(&mut bufs, memory, 0..10);
        let (r, w) = sys::pipe();
        let (a, b) = sys::socketpair(SOCK_STREAM);
        let file = sys::file_with(b"0123456789abcdef");
        sys::write(w, b"hello world");
        sys::write(b, b"0123456789abcdefghi");
        check_eq!(plain(&ring.run(recv(a, 3, 0))), (Res(3), used(100)), "the request's length");
        check_eq!(plain(&ring.run(recv(a, 0, 0))), (Res(16), used(101)), "a whole buffer");
        check_eq!(&memory[16..32], b"3456789abcdefghi");
        check_eq!(plain(&ring.run(read(r, 0, CURRENT))), (Res(11), used(102)), "a pipe");
        check_eq!(plain(&ring.run(read(file, 3, 1))), (Res(3), used(103)), "a file");
        check_eq!(plain(&ring.run(read(file, 0, 99))), (Res(0), used(104)), "its end");
        check_eq!(plain(&ring.run(read(w, 3, CURRENT))), (err(EBADF), 0), "an error takes none");
        let beyond = ring.run(read(file, 3, 1 << 63));
        check_eq!(plain(&beyond), (err(EINVAL), used(105)), "a file's error does");
        check_eq!(plain(&ring.run(send(a, 3))), (Res(3), used(106)), "send");
        check_eq!(plain(&ring.run(send(a, 0))), (Res(16), used(107)), "send all");
        check_eq!(bufs.head(&ring), 8, "taken");
        check_eq!(bufs.entry(2), (memory.as_ptr() as u64 + 32, 16, 102), "entries stay");
        sys::close(b);
        let done = ring.run(send(a, 0));
        check_eq!(plain(&done), (err(EPIPE), used(108)), "a failed send has taken its buffer");
        check_eq!(plain(&ring.run(recv(a, 0, 0))).1, 0, "nothing received");
        check_eq!(bufs.head(&ring), 9, "taken");
    }
}

fn incremental_buffers(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let at = memory.as_ptr() as u64;
    let mut bufs = BufRing::register(&ring, 16, GROUP, INC);
    fill(&mut bufs, memory, 0..10);
    let (r, w) = sys::pipe();
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let file = sys::file_with(b"0123456789abcdef0123456789");
    sys::write(b, b"0123456789abcdefghijkl");
    check_eq!(plain(&ring.run(recv(a, 3, 0))), (Res(3), partly(100)));
    check_eq!(bufs.entry(0), (at + 3, 13, 100), "what is left");
    check_eq!(plain(&ring.run(recv(a, 0, 0))), (Res(13), used(100)), "the rest of it");
    check_eq!(bufs.entry(0), (at + 3, 0, 100), "nothing left");
    check_eq!(&memory[..16], b"0123456789abcdef");
    sys::write(w, b"hello");
    check_eq!(plain(&ring.run(read(r, 0, CURRENT))), (Res(5), partly(101)), "a pipe");
    sys::close(w);
    check_eq!(plain(&ring.run(read(r, 0, CURRENT))), (Res(0), partly(101)), "its end");
    check_eq!(plain(&ring.run(read(file, 4, 0))), (Res(4), partly(101)), "a file");
    check_eq!(plain(&ring.run(read(file, 0, 24))), (Res(2), used(101)), "a file takes its share");
    check_eq!(bufs.head(&ring), 2);
    check_eq!(plain(&ring.run(send(a, 3))), (Res(3), partly(102)), "send");
    check_eq!(plain(&ring.run(send(a, 0))), (Res(13), used(102)), "send the rest");
}

fn small_rests_of_incremental_buffers_are_given_up(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let at = sys::buffer(4096).as_ptr() as u64;
    let mut arg = reg(at, 16, GROUP, INC);
    arg.resv[0] = 8;
    check_eq!(ring.register(REGISTER, &arg, 1), Res(0));
    let mut bufs = BufRing::over(at, 16, GROUP);
    fill(&mut bufs, memory, 0..4);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    for (n, want) in [(8, partly(100)), (1, used(100)), (9, used(101)), (7, partly(102))] {
        sys::write(b, &[b'x'; 16][..n]);
        check_eq!(plain(&ring.run(recv(a, 0, 0))), (Res(n as i64), want), "{n} bytes");
    }
}

fn waiting_takes_no_buffer(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 4, GROUP, 0);
    fill(&mut bufs, memory, 0..1);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let (c, d) = sys::socketpair(SOCK_STREAM);
    let (r, w) = sys::pipe();
    ring.submit_all(&[recv(a, 0, 0).ud(1), recv(c, 0, 0).ud(2), read(r, 0, CURRENT).ud(3)]);
    check!(ring.quiet(), "early");
    check_eq!(bufs.head(&ring), 0, "none is taken");
    sys::write(d, b"two");
    let done = ring.wait();
    check_eq!((done.ud, plain(&done)), (2, (Res(3), used(100))), "who is first gets it");
    sys::write(b, b"one");
    let done = ring.wait();
    check_eq!((done.ud, plain(&done)), (1, (err(ENOBUFS), 0)), "nothing is left");
    fill(&mut bufs, memory, 1..2);
    sys::write(w, b"three");
    let done = ring.wait();
    check_eq!((done.ud, plain(&done)), (3, (Res(5), used(101))), "a new one");
    ring.submit_all(&[recv(a, 0, 0).ud(4)]);
    check_eq!(ring.wait().res, err(ENOBUFS), "asking needs one, too");
    fill(&mut bufs, memory, 2..3);
    sys::set_nonblocking(a);
    while sys::read(a, &mut [0; 64]).0 > 0 {}
    ring.submit_all(&[recv(a, 0, 0).ud(4)]);
    check!(ring.quiet(), "early");
    check_eq!(bufs.unregister(&ring), Res(0));
    sys::write(b, b"late");
    check_eq!(plain(&ring.wait()), (err(ENOBUFS), 0), "the group is gone");
}

fn waitall_keeps_its_buffer(abi: &Abi) {
    for flags in [0, INC] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 4, GROUP, flags);
        fill(&mut bufs, memory, 0..4);
        let (a, b) = sys::socketpair(SOCK_STREAM);
        ring.submit_all(&[recv(a, 16, MSG_WAITALL).ud(1)]);
        check!(ring.quiet(), "early");
        sys::write(b, b"part");
        check!(ring.quiet(), "early");
        sys::write(b, b"the other pa");
        check_eq!(plain(&ring.wait()), (Res(16), used(100)), "flags {flags}");
        check_eq!(&memory[..16], b"partthe other pa");
        ring.submit_all(&[recv(a, 16, MSG_WAITALL).ud(2)]);
        check!(ring.quiet(), "early");
        ring.submit_all(&[sqe::cancel(2, 0, 0).ud(9)]);
        let mut done = ring.wait_n(2);
        done.sort_by_key(|d| d.ud);
        check_eq!(plain(&done[0]), (err(ECANCELED), 0), "nothing received");
        ring.submit_all(&[recv(a, 16, MSG_WAITALL).ud(2)]);
        sys::write(b, b"part");
        check!(ring.quiet(), "early");
        ring.submit_all(&[sqe::cancel(2, 0, 0).ud(9)]);
        let mut done = ring.wait_n(2);
        done.sort_by_key(|d| d.ud);
        check_eq!(done[0].res, Res(4), "what came before the cancel");
        check!(buffer_of(&done[0]).is_some(), "and where it is");
    }
}

fn garbage_in_rings(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let at = memory.as_ptr() as u64;
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let file = sys::file_with(b"0123456789abcdef");
    sys::write(b, b"hello");
    for flags in [0, INC] {
        let mut bufs = BufRing::register(&ring, 16, GROUP, flags);
        bufs.add_raw(at, 0, 7);
        check_eq!(plain(&ring.run(recv(a, 0, 0))), (Res(0), 0), "no length");
        check_eq!(bufs.head(&ring), 0);
        bufs.unregister(&ring);
        let mut bufs = BufRing::register(&ring, 16, GROUP, flags);
        bufs.add_raw(1, 16, 7);
        check_eq!(plain(&ring.run(recv(a, 0, 0))), (err(EFAULT), 0), "a bad address");
        check_eq!(bufs.head(&ring), 0);
        check_eq!(ring.run(read(file, 0, 0)).res, err(EFAULT), "a bad address");
        bufs.unregister(&ring);
        let mut bufs = BufRing::register(&ring, 16, GROUP, flags);
        for i in 0..16 {
            bufs.add_raw(at, 16, i);
        }
        bufs.set_tail(0x9876);
        for i in 0..40 {
            let done = ring.run(read(file, 16, 0));
            check_eq!(plain(&done).0, Res(if flags == INC && i >= 16 { 0 } else { 16 }), "{i}");
        }
        bufs.unregister(&ring);
    }
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    bufs.add_raw(at, u32::MAX, 7);
    check_eq!(plain(&ring.run(recv(a, 0, 0))), (Res(5), used(7)), "a huge length");
}

fn memory_that_goes_away(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..16);
    let file = sys::file_with(b"0123456789abcdef");
    check_eq!(plain(&ring.run(read(file, 0, 0))), (Res(16), used(100)));
    check_eq!(sys::unmap(bufs.addr() as usize, 4096), Res(0));
    // The kernel holds the pages; without them there are no buffers. Neither is a crash.
    for _ in 0..20 {
        let done = ring.run(read(file, 0, 0));
        check!(done.res == Res(16) || done.res == err(ENOBUFS), "{:?}", done.res);
    }
    check_eq!(bufs.unregister(&ring), Res(0));
    let mut bufs = BufRing::mapped(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..16);
    check_eq!(sys::unmap(bufs.addr() as usize, 4096), Res(0));
    for i in 0..16 {
        check_eq!(plain(&ring.run(read(file, 0, 0))), (Res(16), used(100 + i)));
    }
}

fn forced_async(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..3);
    let file = sys::file_with(b"0123456789abcdef");
    check_eq!(plain(&ring.run(read(file, 0, 0).forced_async())), (Res(16), used(100)), "a file");
    check_eq!(&memory[..16], b"0123456789abcdef");
    let (a, b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[recv(a, 0, 0).forced_async().ud(1)]);
    check!(ring.quiet(), "early");
    sys::write(b, b"late");
    check_eq!(plain(&ring.wait()), (Res(4), used(101)), "a socket");
    ring.run(read(file, 0, 0));
    check_eq!(plain(&ring.run(read(file, 0, 0).forced_async())), (err(ENOBUFS), 0), "none left");
}

fn chosen_in_a_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, GROUP, 0);
    fill(&mut bufs, memory, 0..2);
    let file = sys::file_with(b"0123456789abcdef");
    ring.submit_all(&[
        read(file, 0, 0).link().ud(1),
        read(file, 0, 8).link().ud(2),
        read(file, 0, 0).ud(3),
    ]);
    let done: Vec<_> = ring.wait_n(3).iter().map(|d| (d.ud, plain(d))).collect();
    // A short read breaks the chain.
    let want = [(1, (Res(16), used(100))), (2, (Res(8), used(101))), (3, (err(ECANCELED), 0))];
    check_eq!(done, want);
    ring.submit_all(&[read(file, 0, 0).link().ud(1), sqe::nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(ENOBUFS)), (2, err(ECANCELED))], "no buffer breaks it");
}

family!["kbuf", modes;
    providing,
    removing,
    classic_buffers_come_in_order,
    what_can_choose,
    readv_takes_only_the_length,
    registering_rings,
    classic_and_ring_groups_exclude_each_other,
    status,
    rings_in_ring_memory,
    ring_buffers_come_in_order,
    incremental_buffers,
    small_rests_of_incremental_buffers_are_given_up,
    waiting_takes_no_buffer,
    waitall_keeps_its_buffer,
    garbage_in_rings,
    memory_that_goes_away,
    forced_async,
    chosen_in_a_chain,
];
