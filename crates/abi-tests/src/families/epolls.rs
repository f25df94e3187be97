//! EPOLL_CTL and EPOLL_WAIT.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop, op};
use crate::sys;
use libc::{
    EBADF, ECANCELED, EEXIST, EFAULT, EINVAL, ENOENT, EPERM, EPOLL_CTL_ADD, EPOLL_CTL_DEL,
    EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT,
};
use soloring_abi::{Opcode, Sqe};

const NONE: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

fn epoll() -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::epoll_create1(0) };
    assert!(fd >= 0);
    fd
}

/// What the epoll instance reports right now, as (events, data).
fn ready(epfd: i32) -> Vec<(u32, u64)> {
    let mut events = [NONE; 8];
    // SAFETY: room for eight events.
    let n = unsafe { libc::epoll_wait(epfd, events.as_mut_ptr(), 8, 0) };
    events[..n.max(0) as usize].iter().map(|e| (e.events, e.u64)).collect()
}

fn ctl(epfd: i32, what: i32, fd: i32, event: &libc::epoll_event) -> Sqe {
    let event: *const libc::epoll_event = event;
    op(Opcode::EpollCtl, epfd, event as u64, what as u32, fd as u64)
}

fn event(events: i32, data: u64) -> libc::epoll_event {
    libc::epoll_event { events: events as u32, u64: data }
}

fn wait(epfd: i32, events: &mut [libc::epoll_event]) -> Sqe {
    op(Opcode::EpollWait, epfd, events.as_mut_ptr() as u64, events.len() as u32, 0)
}

fn watching(fd: i32, data: u64, ring: &mut Ring<'_>) -> i32 {
    let ep = epoll();
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, fd, &event(EPOLLIN, data))), Res(0));
    ep
}

fn add_change_and_remove(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let ep = epoll();
    let fd = sys::eventfd(1, 0);
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_MOD, fd, &event(EPOLLIN, 7))), err(ENOENT));
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, fd, &event(EPOLLIN, 7))), Res(0));
    check_eq!(ready(ep), [(EPOLLIN as u32, 7)]);
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, fd, &event(EPOLLIN, 7))), err(EEXIST));
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_MOD, fd, &event(EPOLLOUT, 8))), Res(0));
    check_eq!(ready(ep), [(EPOLLOUT as u32, 8)]);
    let remove = op(Opcode::EpollCtl, ep, 0, EPOLL_CTL_DEL as u32, fd as u64);
    check_eq!(ring.res(remove.forced_async()), Res(0));
    check_eq!(ready(ep), []);
    check_eq!(ring.res(remove.with(|s| s.addr = 1)), err(ENOENT), "no event is read");
}

fn changes_that_are_refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let ep = epoll();
    let fd = sys::eventfd(1, 0);
    let e = event(EPOLLIN, 7);
    check_eq!(ring.res(ctl(-1, EPOLL_CTL_ADD, fd, &e)), err(EBADF));
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, -1, &e)), err(EBADF));
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, sys::unused_fd(), &e)), err(EBADF));
    check_eq!(ring.res(ctl(fd, EPOLL_CTL_ADD, fd, &e)), err(EINVAL), "no epoll instance");
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, ep, &e)), err(EINVAL), "itself");
    check_eq!(ring.res(ctl(ep, 77, fd, &e)), err(EINVAL), "unknown operation");
    let file = sys::file_with(b"");
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, file, &e)), err(EPERM), "a file");
    let add = ctl(ep, EPOLL_CTL_ADD, fd, &e);
    check_eq!(ring.res(add.with(|s| s.addr = 1)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(add.with(|s| s.addr = sys::forbidden_page())), err(EFAULT));
    check_eq!(ring.res(add.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(add.with(|s| s.file_index = 1)), err(EINVAL), "file_index");
    check_eq!(ring.res(add.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ready(ep), [], "nothing was added");
    ring.submit_all(&[ctl(ep, 77, fd, &e).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(EINVAL)), (2, err(ECANCELED))], "a broken chain");
    check_eq!(ring.res(add.with(|s| s.op_flags = 1)), Res(0), "op_flags is not looked at");
}

fn a_ring_in_an_epoll_instance(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let other = Ring::new(abi, 8);
    let ep = epoll();
    let e = event(EPOLLIN, 5);
    check_eq!(ring.res(ctl(ep, EPOLL_CTL_ADD, other.fd, &e)), Res(0), "a ring can be watched");
    check_eq!(ready(ep), []);
    check_eq!(ring.res(ctl(other.fd, EPOLL_CTL_ADD, ep, &e)), err(EINVAL), "it is none itself");
}

fn events_that_are_there(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::eventfd(1, 0);
    let ep = watching(fd, 42, &mut ring);
    let other = sys::eventfd(1, 0);
    ring.res(ctl(ep, EPOLL_CTL_ADD, other, &event(EPOLLIN | libc::EPOLLET, 43)));
    let mut events = [NONE; 4];
    check_eq!(ring.res(wait(ep, &mut events)), Res(2));
    let mut data = [events[0].u64, events[1].u64];
    data.sort();
    check_eq!(data, [42, 43]);
    check_eq!(ring.res(wait(ep, &mut events)), Res(1), "the edge was taken");
    let (data, mask) = (events[0].u64, events[0].events);
    check_eq!((data, mask), (42, EPOLLIN as u32));
    check_eq!(ring.res(wait(ep, &mut events[..1]).forced_async()), Res(1), "IOSQE_ASYNC");
}

fn events_that_come_later(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::eventfd(0, 0);
    let ep = watching(fd, 42, &mut ring);
    let mut events = [NONE; 4];
    for round in 0..3 {
        let sqe = wait(ep, &mut events).ud(1);
        ring.submit_all(&[if round == 2 { sqe.forced_async() } else { sqe }]);
        check!(ring.quiet(), "nothing is ready");
        check_eq!(ring.res(nop().ud(2)), Res(0), "the ring goes on meanwhile");
        sys::write(fd, &1u64.to_ne_bytes());
        check_eq!(ring.results(1), [(1, Res(1))]);
        let data = events[0].u64;
        check_eq!(data, 42);
        sys::read(fd, &mut [0; 8]);
    }
}

fn waits_can_be_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::eventfd(0, 0);
    let ep = watching(fd, 42, &mut ring);
    let mut events = [NONE; 4];
    ring.submit_all(&[wait(ep, &mut events).ud(1)]);
    check!(ring.quiet(), "nothing is ready");
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))]);
    ring.submit_all(&[
        wait(ep, &mut events).ud(3).link(),
        sqe::link_timeout(&sqe::ms(20), 0).ud(4),
    ]);
    check_eq!(ring.results(2), [(3, err(ECANCELED)), (4, err(libc::ETIME))]);
}

fn waits_that_are_refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::eventfd(1, 0);
    let ep = watching(fd, 42, &mut ring);
    let mut events = [NONE; 4];
    let sqe = wait(ep, &mut events);
    check_eq!(ring.res(sqe.with(|s| s.len = 0)), err(EINVAL), "no room");
    check_eq!(ring.res(sqe.with(|s| s.len = u32::MAX)), err(EINVAL), "negative");
    check_eq!(ring.res(sqe.with(|s| s.len = 1 << 30)), err(EINVAL), "too many");
    check_eq!(ring.res(sqe.with(|s| s.addr = 1)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(sqe.with(|s| s.addr = sys::read_only_page())), err(EFAULT), "read-only");
    check_eq!(ring.res(sqe.with(|s| s.fd = fd)), err(EINVAL), "no epoll instance");
    check_eq!(ring.res(sqe.with(|s| s.fd = -1)), err(EBADF));
    check_eq!(ring.res(sqe.with(|s| s.fd = ring_fd(abi))), err(EINVAL), "a ring");
    check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EINVAL), "off");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "op_flags");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(sqe.with(|s| s.file_index = 1)), err(EINVAL), "file_index");
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ring.res(sqe), Res(1), "after all that");
}

fn ring_fd(abi: &Abi) -> i32 {
    Ring::build(abi, 4, crate::ring::params(0)).leave_open()
}

fn a_wait_holds_its_instance(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::eventfd(0, 0);
    let ep = watching(fd, 42, &mut ring);
    let mut events = [NONE; 4];
    ring.submit_all(&[wait(ep, &mut events).ud(1)]);
    sys::close(ep);
    check!(ring.quiet(), "nothing is ready");
    sys::write(fd, &1u64.to_ne_bytes());
    check_eq!(ring.results(1), [(1, Res(1))]);
}

family!["epolls", modes;
    add_change_and_remove,
    changes_that_are_refused,
    a_ring_in_an_epoll_instance,
    events_that_are_there,
    events_that_come_later,
    waits_can_be_cancelled,
    waits_that_are_refused,
    a_wait_holds_its_instance,
];
