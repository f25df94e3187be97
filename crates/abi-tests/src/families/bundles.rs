//! Bundles: one receive or send over many provided buffers.

use crate::backend::Abi;
use crate::families::bufring::{BufRing, INC, clog, plain, provide, remove, select};
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, op};
use crate::sys;
use libc::{EINVAL, ENOBUFS, ENOENT, EPIPE, SOCK_DGRAM, SOCK_STREAM};
use soloring_abi::{Opcode, Sqe, raw};

const GROUP: u16 = 2;
const MORE: u32 = raw::IORING_CQE_F_MORE;
const BUNDLE: u16 = raw::IORING_RECVSEND_BUNDLE as u16;
const MULTI: u16 = raw::IORING_RECV_MULTISHOT as u16;

fn recv(fd: i32, len: u32) -> Sqe {
    select(op(Opcode::Recv, fd, 0, len, 0), GROUP).with(|s| s.ioprio = BUNDLE).ud(1)
}

fn send(fd: i32, len: u32) -> Sqe {
    select(op(Opcode::Send, fd, 0, len, 0), GROUP).with(|s| s.ioprio = BUNDLE).ud(1)
}

fn used(bid: u16) -> u32 {
    raw::IORING_CQE_F_BUFFER | (bid as u32) << 16
}

/// Adds buffers of 16 bytes, numbered from 100 on, with their slot as contents.
fn fill(ring: &mut BufRing, memory: &mut [u8], slots: std::ops::Range<usize>) {
    for i in slots {
        memory[i * 16..][..16].fill(i as u8);
        ring.add(&memory[i * 16..][..16], 100 + i as u16);
    }
}

fn all(ring: &Ring) -> Vec<(Res, u32)> {
    let soon = std::time::Duration::from_millis(40);
    std::iter::from_fn(|| ring.wait_within(soon)).map(|d| plain(&d)).collect()
}

fn offered(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    check!(ring.params.features & raw::IORING_FEAT_RECVSEND_BUNDLE != 0, "the feature bit");
}

/// A bundle of one buffer that the request names: that is sent, and then, for want of a last one, once more nothing.
fn a_bundle_without_a_choice(abi: &Abi) {
    let data = *b"eight by";
    let named = |fd: i32, len: u32| {
        op(Opcode::Send, fd, data.as_ptr() as u64, len, 0).with(|s| s.ioprio = BUNDLE).ud(1)
    };
    for kind in [SOCK_STREAM, SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = sys::socketpair(kind);
        let mut ring = Ring::new(abi, 8);
        let message = if kind == SOCK_STREAM { err(libc::EAGAIN) } else { Res(0) };
        ring.submit_all(&[named(a, 8)]);
        check_eq!(all(&ring), [(Res(8), MORE), (Res(0), 0)], "kind {kind}");
        check_eq!(sys::read(b, &mut [0; 20]), Res(8), "kind {kind}");
        sys::set_nonblocking(b);
        check_eq!(sys::read(b, &mut [0; 20]), message, "kind {kind}");
        ring.submit_all(&[named(a, 0)]);
        check_eq!(all(&ring), [(Res(0), 0)], "kind {kind}, of nothing");
        ring.submit_all(&[named(a, 8).skip()]);
        check_eq!(all(&ring), [(Res(8), MORE)], "kind {kind}, skipped");
    }
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::fill(a);
    let mut ring = Ring::new(abi, 8);
    ring.submit_all(&[named(a, 8)]);
    check!(ring.quiet(), "a full socket");
    while sys::read(b, &mut [0; 1 << 16]) == Res(1 << 16) {}
    check_eq!(all(&ring), [(Res(8), 0)], "one that had to wait ends there");
}

/// A worker that is to send a bundle wants a file that it can wait for, and does not wait when that is ready.
fn a_bundle_to_what_is_no_socket(abi: &Abi) {
    let null = sys::open("/dev/null", libc::O_RDWR);
    let file = sys::file_with(b"abc");
    let (_r, w) = sys::pipe();
    let data = *b"eight by";
    let mut ring = Ring::new(abi, 8);
    for (what, fd, want) in [
        ("null", null, libc::EBADFD),
        ("a file", file, libc::EBADFD),
        ("a pipe", w, libc::ECANCELED),
    ] {
        let sqe = op(Opcode::Send, fd, data.as_ptr() as u64, 8, 0).with(|s| s.ioprio = BUNDLE);
        check_eq!(ring.res(sqe), err(libc::ENOTSOCK), "{what}");
        check_eq!(ring.res(sqe.forced_async()), err(want), "{what}, on a worker");
        check_eq!(ring.res(send(fd, 0).forced_async()), err(want), "{what}, on a worker, chosen");
        let first = raw::IORING_RECVSEND_POLL_FIRST as u16;
        check_eq!(ring.res(sqe.with(|s| s.ioprio |= first)), err(libc::ENOTSOCK), "{what}, first");
    }
}

/// How much one completion holds is the ring's choice; that it is in order and complete is not.
fn a_receive_fills_buffers_in_order(abi: &Abi) {
    for (total, flags) in [(1usize, 0), (16, 0), (40, 0), (40, INC), (200, 0), (200, INC)] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 64, GROUP, flags);
        fill(&mut bufs, memory, 0..64);
        let (a, b) = sys::tcp_pair();
        let data: Vec<u8> = (0..total).map(|i| i as u8).collect();
        sys::write(b, &data);
        let mut got = Vec::new();
        let mut rounds = 0;
        while got.len() < total {
            let done = ring.run(recv(a, 0));
            let n = done.res.0 as usize;
            assert!(done.res > Res(0), "{}", done.res);
            let first = (done.flags >> 16) as usize - 100;
            // Within one completion only the last buffer is short.
            let offset = if flags == INC { got.len() % 16 } else { 0 };
            got.extend_from_slice(&memory[first * 16 + offset..][..n]);
            check!(done.flags & MORE == 0, "one completion each");
            rounds += 1;
        }
        check_eq!(got, data, "{total} bytes in {rounds}");
        check!(rounds <= 1 + total / 32, "{total} bytes took {rounds} receives");
    }
}

fn a_length_limits_a_receive(abi: &Abi) {
    for flags in [0, INC] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 64, GROUP, flags);
        fill(&mut bufs, memory, 0..8);
        let (a, b) = sys::socketpair(SOCK_STREAM);
        sys::write(b, &[b'x'; 100]);
        let done = ring.run(recv(a, 30));
        if flags == INC {
            // The kernel goes on to what else is there, beyond the length.
            check_in!(done.res, [Res(30), Res(100)], "a part of a buffer");
        } else {
            check_eq!(done.res, Res(16), "whole buffers");
        }
        check_eq!(done.flags >> 16, 100);
    }
}

fn shots_of_bundles(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 64, GROUP, 0);
    fill(&mut bufs, memory, 0..8);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[recv(a, 0).with(|s| s.ioprio |= MULTI)]);
    check!(ring.quiet(), "early");
    sys::write(b, b"eight by");
    check_eq!(all(&ring), [(Res(8), used(100) | MORE)]);
    let total = |done: &[(Res, u32)]| done.iter().map(|d| d.0.0).sum::<i64>();
    sys::write(b, &[b'x'; 40]);
    let done = all(&ring);
    check_eq!((total(&done), done[0].1), (40, used(101) | MORE));
    sys::write(b, &[b'x'; 64]);
    let done = all(&ring);
    check_eq!((total(&done), done[0].1 & !MORE), (64, used(104)), "the last buffers");
    sys::write(b, b"x");
    check!(all(&ring).iter().all(|d| *d == (err(ENOBUFS), 0)), "at the latest now it ends");
}

fn shots_have_a_length_and_a_total(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 64, GROUP, 0);
    fill(&mut bufs, memory, 0..32);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let multi = |len| recv(a, len).with(|s| s.ioprio |= MULTI);
    sys::write(b, &[b'x'; 70]);
    ring.submit_all(&[multi(20)]);
    let parts = [16, 16, 16, 16, 6].into_iter().zip(100..);
    let want: Vec<_> = parts.map(|(n, bid)| (Res(n), used(bid) | MORE)).collect();
    check_eq!(all(&ring), want, "each at most 20 bytes, in whole buffers");
    ring.run(crate::sqe::cancel(1, 0, 0).ud(9));
    all(&ring);
    ring.submit_all(&[multi(0).with(|s| s.file_index = 50)]);
    sys::write(b, &[b'x'; 70]);
    let done = all(&ring);
    check_eq!(done.iter().map(|d| d.0.0).sum::<i64>(), 50, "the total is kept to");
    check_eq!(done.last().map(|d| d.1 & MORE), Some(0), "and ends it");
}

fn a_send_sends_what_is_there(abi: &Abi) {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let mut ring = Ring::new(abi, 8);
        let memory = sys::buffer(4096);
        let mut bufs = BufRing::register(&ring, 64, GROUP, 0);
        let (a, b) = sys::socketpair(kind);
        check_eq!(plain(&ring.run(send(a, 0))), (err(ENOBUFS), 0), "nothing");
        fill(&mut bufs, memory, 0..3);
        check_eq!(plain(&ring.run(send(a, 0))), (Res(48), used(100)), "all three");
        let mut got = [0; 64];
        check_eq!(sys::read(b, &mut got), Res(48));
        check_eq!(&got[..48], &memory[..48]);
        fill(&mut bufs, memory, 3..11);
        ring.submit_all(&[send(a, 40)]);
        let want = [(Res(32), used(103) | MORE), (Res(96), used(105))];
        check_eq!(all(&ring), want, "the length is the first part's, in whole buffers");
        fill(&mut bufs, memory, 11..14);
        ring.submit_all(&[send(a, 10)]);
        let want = [(Res(10), used(111) | MORE), (Res(32), used(112))];
        check_eq!(all(&ring), want, "a buffer that is too long is cut");
        check_eq!(bufs.head(&ring), 14);
    }
}

fn incremental_sends(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 64, GROUP, INC);
    fill(&mut bufs, memory, 0..8);
    let (a, _b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[send(a, 40)]);
    let more = raw::IORING_CQE_F_BUF_MORE;
    check_eq!(all(&ring), [(Res(40), used(100) | more | MORE), (Res(88), used(102))]);
}

fn many_buffers_go_in_parts(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(16 * 512);
    let mut bufs = BufRing::register(&ring, 512, GROUP, 0);
    for i in 0..400 {
        bufs.add(&memory[i * 16..][..16], i as u16);
    }
    let (a, b) = sys::socketpair(SOCK_STREAM);
    ring.submit_all(&[send(a, 0)]);
    check_eq!(all(&ring), [(Res(4096), used(0) | MORE), (Res(144 * 16), used(256))]);
    check_eq!(sys::read(b, &mut [0; 8192]), Res(6400));
}

fn a_send_waits_with_its_buffers(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(16 * 4096);
    let mut bufs = BufRing::register(&ring, 64, GROUP, 0);
    let (a, b) = sys::tcp_pair();
    sys::setsockopt(a, libc::SOL_SOCKET, libc::SO_SNDBUF, 4096);
    let before = clog(a);
    for i in 0..16 {
        memory[i * 4096..][..4096].fill(i as u8 + 1);
        bufs.add(&memory[i * 4096..][..4096], 100 + i as u16);
    }
    ring.submit_all(&[send(a, 0)]);
    check!(ring.quiet(), "early");
    check_eq!(bufs.head(&ring), 16, "they are taken");
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        let mut part = vec![0; 65536];
        while (got.len() as i64) < before + 65536 {
            match sys::read(b, &mut part) {
                Res(n @ 1..) => got.extend_from_slice(&part[..n as usize]),
                other => panic!("{other}"),
            }
        }
        got
    });
    let done = ring.wait();
    check_eq!(plain(&done), (Res(65536), used(100)));
    let got = reader.join().unwrap();
    check!(got[before as usize..] == *memory, "in order");
}

fn failed_sends(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    check_eq!(plain(&ring.run(send(a, 0))), (err(ENOENT), 0), "no group");
    let mut bufs = BufRing::register(&ring, 64, GROUP, 0);
    fill(&mut bufs, memory, 0..3);
    sys::close(b);
    check_eq!(plain(&ring.run(send(a, 0))), (err(EPIPE), used(100)), "nobody there");
    check_eq!(bufs.head(&ring), 3, "the buffers went with it");
    let sendmsg = op(Opcode::Sendmsg, a, 0, 0, 0).with(|s| s.ioprio = BUNDLE);
    check_eq!(ring.res(sendmsg), err(EINVAL), "messages have no bundles");
}

fn classic_groups_give_one_at_a_time(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    check_eq!(ring.res(provide(memory.as_ptr() as u64, 16, 4, GROUP, 100)), Res(0));
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::write(b, &[b'x'; 40]);
    check_eq!(plain(&ring.run(recv(a, 0))), (Res(32), used(100)), "and the next for what is left");
    ring.submit_all(&[send(a, 0)]);
    check_eq!(all(&ring), [(Res(16), used(102) | MORE), (Res(16), used(103))]);
    check_eq!(ring.res(remove(9, GROUP)), Res(0));
}

family!["bundles", modes;
    offered,
    a_bundle_without_a_choice,
    a_bundle_to_what_is_no_socket,
    a_receive_fills_buffers_in_order,
    a_length_limits_a_receive,
    shots_of_bundles,
    shots_have_a_length_and_a_total,
    a_send_sends_what_is_there,
    incremental_sends,
    many_buffers_go_in_parts,
    a_send_waits_with_its_buffers,
    failed_sends,
    classic_groups_give_one_at_a_time,
];
