//! Requests that go to a worker (IOSQE_ASYNC, drained, operations that block): in which order, how they are cancelled before
//! one has begun, and what a worker says of requests that complete more than once.

use crate::backend::Abi;
use crate::families::bufring::{provide, select};
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, cancel, nop, op, poll_add};
use crate::sys;
use libc::{
    EALREADY, EBADFD, ECANCELED, EINVAL, ENOBUFS, ENOENT, ENOTSOCK, EOPNOTSUPP, SOCK_STREAM,
};
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};

const ALL: u32 = raw::IORING_ASYNC_CANCEL_ALL;
const ANY: u32 = raw::IORING_ASYNC_CANCEL_ANY;
const BY_FD: u32 = raw::IORING_ASYNC_CANCEL_FD;
const GROUP: u16 = 1;

/// An operation that workers do in any case.
fn advise(at: &[u8]) -> Sqe {
    op(Opcode::Madvise, -1, at.as_ptr() as u64, at.len() as u32, 0)
}

/// User data and results in the order they are posted.
fn order(ring: &mut Ring, entries: &[Sqe]) -> Vec<(u64, Res)> {
    ring.submit_all(entries);
    ring.wait_n(entries.len()).iter().map(|done| (done.ud, done.res)).collect()
}

fn a_chain_begins_in_its_turn(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let entry = |ud: u64| nop().ud(ud);
    let done = |ud: u64| (ud, Res(0));
    let entries = [entry(1).link(), entry(2), entry(3), entry(4)];
    check_eq!(order(&mut ring, &entries), [1, 3, 4, 2].map(done), "and goes on at the end");
    let entries = [entry(0), entry(1).link(), entry(2), entry(3).link(), entry(4)];
    check_eq!(order(&mut ring, &entries), [0, 1, 3, 2, 4].map(done), "two of them");
    let entries = [entry(1).drain(), entry(2), entry(3)];
    check_eq!(order(&mut ring, &entries), [1, 2, 3].map(done), "drained");
}

fn what_nobody_has_begun_is_cancelled(abi: &Abi) {
    let page = sys::buffer(4096);
    let (empty, _w) = sys::pipe();
    let read = op(Opcode::Read, empty, page.as_ptr() as u64, 1, u64::MAX);
    let canceled = |hit: i64| [(9, Res(hit)), (1, err(ECANCELED))];
    for (flags, hit) in [(0, 0), (ALL, 1), (ANY, 1)] {
        for target in [poll_add(empty, 1), read, nop()] {
            let mut ring = Ring::new(abi, 8);
            let entries = [target.forced_async().ud(1), cancel(1, -1, flags).ud(9)];
            check_eq!(order(&mut ring, &entries), canceled(hit), "opcode {}", target.opcode);
        }
        let mut ring = Ring::new(abi, 8);
        let entries = [advise(page).link().ud(1), nop().ud(2), cancel(1, -1, flags).ud(9)];
        let want = [(9, Res(hit)), (1, err(ECANCELED)), (2, err(ECANCELED))];
        check_eq!(order(&mut ring, &entries), want, "the head of a chain");
    }
    let mut ring = Ring::new(abi, 8);
    let entries = [nop().link().ud(0), advise(page).ud(1), cancel(1, -1, 0).ud(9)];
    let want = [(0, Res(0)), (9, err(ENOENT)), (1, Res(0))];
    check_eq!(order(&mut ring, &entries), want, "what is linked comes later");
}

fn works_count_as_one(abi: &Abi) {
    let (empty, _w) = sys::pipe();
    let poll = poll_add(empty, 1).ud(1);
    let mut ring = Ring::new(abi, 8);
    let work = poll.forced_async();
    let entries = [work, work, work, poll, poll, cancel(1, -1, ALL).ud(9)];
    ring.submit_all(&entries);
    let mut done = ring.results(entries.len());
    check_eq!(done.pop(), Some((9, Res(3))), "three works, two polls");
    check_eq!(done, vec![(1, err(ECANCELED)); 5]);
}

fn a_worker_that_cancels_finds_itself(abi: &Abi) {
    let fd = sys::eventfd(0, 0);
    for how in [sqe_flags::ASYNC, sqe_flags::IO_DRAIN] {
        let mut ring = Ring::new(abi, 8);
        let found = [cancel(9, fd, 0), cancel(1, fd, BY_FD)];
        for entry in found {
            check_eq!(ring.res(entry.flag(how).ud(9)), err(EALREADY));
            let mut ring = Ring::new(abi, 8);
            check_eq!(ring.res(entry.ud(9)), err(ENOENT), "the submitter does not");
        }
        check_eq!(ring.res(cancel(1, fd, 0).flag(how).ud(9)), err(ENOENT), "another");
        check_eq!(ring.res(cancel(9, fd, ALL).flag(how).ud(9)), Res(0), "is not counted");
    }
}

/// Entries that complete more than once.
fn repeating(fd: i32) -> [Sqe; 3] {
    let multi = |s: &mut Sqe| s.ioprio = raw::IORING_RECV_MULTISHOT as u16;
    [
        select(op(Opcode::Recv, fd, 0, 0, 0), GROUP).with(multi),
        sqe::accept(fd, 0).with(|s| s.ioprio = raw::IORING_ACCEPT_MULTISHOT as u16),
        select(op(Opcode::ReadMultishot, fd, 0, 0, u64::MAX), GROUP),
    ]
}

fn what_repeats_waits_before_its_first_attempt(abi: &Abi) {
    let (silent, _peer) = sys::socketpair(SOCK_STREAM);
    let (pipe, _w) = sys::pipe();
    for how in [sqe_flags::ASYNC, sqe_flags::IO_DRAIN] {
        for entry in [silent, pipe].into_iter().flat_map(repeating) {
            let mut ring = Ring::new(abi, 8);
            ring.submit_all(&[entry.flag(how).ud(1)]);
            check!(ring.quiet(), "opcode {} has no buffer, but waits", entry.opcode);
        }
        let cannot_wait = [sys::file_with(b"a file"), sys::open("/dev/null", libc::O_RDWR)];
        for entry in cannot_wait.into_iter().flat_map(repeating) {
            let mut ring = Ring::new(abi, 8);
            check_eq!(ring.res(entry.flag(how)), err(EBADFD), "opcode {}", entry.opcode);
        }
        let want = [ENOTSOCK, ENOTSOCK, ENOBUFS];
        for (entry, want) in repeating(sys::epoll()).into_iter().zip(want) {
            let mut ring = Ring::new(abi, 8);
            check_eq!(ring.res(entry.flag(how)), err(want), "a file that has to be ready");
        }
    }
    let at_once = [ENOBUFS, EINVAL, ENOBUFS];
    for (entry, want) in repeating(silent).into_iter().zip(at_once) {
        let mut ring = Ring::new(abi, 8);
        check_eq!(ring.res(entry), err(want), "the submitter attempts it");
    }
}

fn a_bundle_of_a_worker(abi: &Abi) {
    let memory = sys::buffer(4096);
    let bundle = |fd: i32, more: u16| {
        let how = raw::IORING_RECVSEND_BUNDLE as u16 | more;
        select(op(Opcode::Send, fd, 0, 0, 0), GROUP).with(|s| s.ioprio = how)
    };
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.res(provide(memory.as_ptr() as u64, 16, 4, GROUP, 0)), Res(0));
    let (a, _b) = sys::socketpair(SOCK_STREAM);
    check_eq!(ring.res(bundle(a, 0).forced_async()), err(ECANCELED), "a socket that is ready");
    check_eq!(ring.res(bundle(sys::eventfd(0, 0), 0)), err(ENOTSOCK));
    check_eq!(ring.res(bundle(sys::file_with(b""), 0).forced_async()), err(EBADFD));
    let waited = ring.run(bundle(a, raw::IORING_RECVSEND_POLL_FIRST as u16));
    let first = raw::IORING_CQE_F_BUFFER;
    check_eq!((waited.res, waited.flags), (Res(16), first), "one that waited ends with a part");
}

fn reads_at_no_offset(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    check_eq!(ring.res(provide(memory.as_ptr() as u64, 16, 4, GROUP, 0)), Res(0));
    let read = |fd| select(op(Opcode::ReadMultishot, fd, 0, 0, 1 << 63), GROUP).ud(1);
    let (empty, _w) = sys::pipe();
    for fd in [empty, sys::eventfd(0, 0), sys::timerfd()] {
        check_eq!(ring.res(read(fd)), err(EINVAL));
    }
    ring.submit_all(&[read(sys::epoll())]);
    check!(ring.quiet(), "one that must be ready is waited for first");
}

fn asked_not_to_wait(abi: &Abi) {
    const NOWAIT: u32 = 8;
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let nowait = |opcode, fd, len| {
        op(opcode, fd, memory.as_ptr() as u64, len, u64::MAX).with(|s| s.op_flags = NOWAIT)
    };
    for how in [0, sqe_flags::ASYNC] {
        for fd in [sys::epoll(), sys::open("/tmp", libc::O_DIRECTORY)] {
            for len in [0, 8] {
                let entry = nowait(Opcode::Read, fd, len).flag(how);
                check_eq!(ring.res(entry), err(EOPNOTSUPP), "there is no such form");
            }
        }
        let event = sys::eventfd(0, 0);
        for opcode in [Opcode::Read, Opcode::Write] {
            let entry = nowait(opcode, event, 8).flag(how);
            check_eq!(ring.res(entry), err(libc::EAGAIN), "an eventfd's write has none");
        }
    }
}

fn an_offset_below_zero(abi: &Abi) {
    let file = sys::file_with(b"a file");
    let mut ring = Ring::new(abi, 8);
    let sync = |off: u64, len: u32| op(Opcode::Fsync, file, 0, len, off).ud(1);
    check_eq!(ring.res(sync(1 << 63, 0)), err(EINVAL));
    check_eq!(ring.res(sync(i64::MAX as u64, 1)), Res(0), "an end beyond all files");
    ring.push_all(&[nop().with(|s| s.ioprio = 1).link(), sync(u64::MAX, 0)]);
    ring.submit();
    check_eq!(ring.results(2), [(0, err(EINVAL)), (1, err(EINVAL))], "among the checks");
}

fn a_socket_that_its_slot_refuses(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 1);
    let socket = sqe::socket(libc::AF_UNIX, SOCK_STREAM, 0).with(|s| s.file_index = 5).ud(1);
    ring.submit_all(&[socket.skip(), nop().ud(2)]);
    check_eq!(ring.results(1), [(2, Res(0))], "is no failure");
    check_eq!(order(&mut ring, &[socket.link(), nop().ud(2)]), [(1, err(EINVAL)), (2, Res(0))]);
}

fn what_is_refused_takes_no_buffer(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    check_eq!(ring.res(provide(memory.as_ptr() as u64, 16, 4, GROUP, 0)), Res(0));
    let place = sys::open("/tmp", libc::O_PATH);
    for how in [0, sqe_flags::ASYNC] {
        let read = select(op(Opcode::Read, place, 0, 8, u64::MAX), GROUP).flag(how);
        let done = ring.run(read);
        check_eq!((done.res, done.flags), (err(libc::EBADF), 0));
    }
}

fn on_an_iopoll_ring(abi: &Abi) {
    let flags = raw::IORING_SETUP_IOPOLL;
    let page = sys::buffer(4096);
    let (file, reader) = (sys::file_with(b"a file"), sys::open("/proc/version", libc::O_RDONLY));
    let at = page.as_ptr() as u64;
    for how in [0, sqe_flags::ASYNC, sqe_flags::IO_DRAIN] {
        let res = |entry: Sqe| {
            let mut ring = Ring::with_flags(abi, 8, flags);
            ring.submit_all(&[entry.flag(how)]);
            let end = std::time::Instant::now() + crate::ring::WAIT_LIMIT;
            while ring.cq_ready() == 0 && std::time::Instant::now() < end {
                ring.enter(0, 0, raw::IORING_ENTER_GETEVENTS);
            }
            ring.wait().res
        };
        check_eq!(res(op(Opcode::Read, file, at, 8, 0)), err(EOPNOTSUPP), "not direct");
        check_eq!(res(op(Opcode::Write, reader, at, 8, 0)), err(libc::EBADF), "not writable");
    }
    let mut ring = Ring::with_flags(abi, 8, flags);
    ring.push(select(op(Opcode::ReadMultishot, file, 0, 0, 0), GROUP));
    check_eq!(ring.submit(), Res(1));
    check_eq!(ring.pop().map(|done| done.res), Some(err(EINVAL)), "has no such form");
}

family!["workers", modes;
    an_offset_below_zero,
    a_socket_that_its_slot_refuses,
    what_is_refused_takes_no_buffer,
    on_an_iopoll_ring,
    a_chain_begins_in_its_turn,
    what_nobody_has_begun_is_cancelled,
    works_count_as_one,
    a_worker_that_cancels_finds_itself,
    what_repeats_waits_before_its_first_attempt,
    a_bundle_of_a_worker,
    reads_at_no_offset,
    asked_not_to_wait,
];
