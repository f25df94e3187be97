//! Who keeps the credentials of a personality: through changes of user, closes, forks, restrictions and limits.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::families::personalities::{
    NOBODY, NULL, RDONLY, REGISTER, UNREGISTER, become_user, by, drop_root, interrupted, is_root,
    opened, register, secret, unregister,
};
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, cancel, nop, openat};
use crate::sys;
use libc::{EACCES, ECANCELED, EINVAL, SOCK_STREAM};
use soloring_abi::{Opcode, raw};
use std::time::Duration;

/// The C library's setuid has every thread change, and ends the program when one answers otherwise than the rest.
fn the_process_changes_users_meanwhile(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 32);
    let root = register(&ring);
    let dir = sys::tempdir();
    let (_, path) = secret(dir.path());
    let fifo = dir.path().join("fifo");
    sys::mkfifo(&fifo);
    let waiting = sys::c(&fifo);
    for i in 0..4 {
        ring.submit_all(&[by(openat(-1, &waiting, RDONLY, 0).forced_async(), root).ud(9)]);
        become_user(if i % 2 == 0 { NOBODY } else { 0 });
        let plain = openat(-1, &path, RDONLY, 0);
        let expected = if i % 2 == 0 { err(EACCES) } else { Res(0) };
        check_eq!(opened(ring.res(plain)), expected, "round {i}");
        check_eq!(opened(ring.res(by(plain.forced_async(), root))), Res(0), "round {i}, root");
    }
    drop_root();
    std::thread::sleep(Duration::from_millis(20));
    ring.submit_all(&[cancel(9, -1, raw::IORING_ASYNC_CANCEL_ALL).ud(1)]);
    let ended = ring.results(5);
    check_eq!(ended[0].0, 1);
    let cancelled = |res| res == err(ECANCELED) || interrupted(res);
    check!(ended[1..].iter().all(|d| d.0 == 9 && cancelled(d.1)), "{ended:?}");
}

/// Closed with requests that wait, by worker and by poll.
fn rings_are_closed_meanwhile(abi: &Abi) {
    let dir = sys::tempdir();
    let fifo = dir.path().join("fifo");
    sys::mkfifo(&fifo);
    let path = sys::c(&fifo);
    let (a, _b) = sys::socketpair(SOCK_STREAM);
    let buf = sys::buffer(4096);
    let tasks = || std::fs::read_dir("/proc/self/task").expect("tasks").count();
    let before = tasks();
    for _ in 0..5 {
        let mut ring = Ring::new(abi, 8);
        let ids = [register(&ring), register(&ring)];
        for id in ids {
            ring.submit_all(&[by(openat(-1, &path, RDONLY, 0).forced_async(), id)]);
            ring.submit_all(&[by(sqe::recv(a, buf, 0), id)]);
        }
    }
    // Workers without work stay for 5 seconds, what keeps credentials must not.
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while tasks() > before + 1 && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    check!(tasks() <= before + 1, "{} threads, {before} before", tasks());
}

/// The threads that keep them are the parent's: a child registers its own.
fn in_a_forked_child(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    let id = register(&ring);
    check_eq!(ring.res(by(nop().forced_async(), id)), Res(0), "before the fork");
    let status = sys::in_child(20, || {
        let inherited = if abi.is_kernel() { Res(0) } else { err(EINVAL) };
        if ring.res(by(nop(), id)) != inherited {
            return 1;
        }
        let own = register(&ring);
        let null = sys::c("/dev/null");
        if opened(ring.res(by(openat(-1, &null, RDONLY, 0), own))) != Res(0) {
            return 2;
        }
        if unregister(&ring, own) == Res(0) { 0 } else { 3 }
    });
    check_eq!(status, 0, "the child's verdict");
    ring.set_tail(ring.sq_head());
    check_eq!(ring.res(by(nop(), id)), Res(0), "the parent's goes on");
    check_eq!(unregister(&ring, id), Res(0));
}

/// A restriction: that this register operation may be called.
fn may_register(opcode: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[2] = opcode as u8;
    entry
}

fn restricted_rings(abi: &Abi) {
    const RESTRICTIONS: u32 = raw::io_uring_register_op::IORING_REGISTER_RESTRICTIONS as u32;
    const ENABLE: u32 = raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
    for (allowed, registered, unregistered) in
        [(REGISTER, Res(2), err(EACCES)), (UNREGISTER, err(EACCES), Res(0))]
    {
        let mut ring = Ring::with_flags(abi, 8, raw::IORING_SETUP_R_DISABLED);
        let id = register(&ring);
        // Which operation of the ring may be submitted, and with it which of these two may be called.
        let mut submitted = [0; 16];
        submitted[0] = 1;
        submitted[2] = Opcode::Nop as u8;
        let list = [may_register(allowed), submitted];
        check_eq!(ring.register(RESTRICTIONS, list.as_ptr(), 2), Res(0));
        check_eq!(ring.register(ENABLE, NULL, 0), Res(0));
        check_eq!(ring.res(by(nop(), id)), Res(0), "what was registered before");
        check_eq!(ring.register(REGISTER, NULL, 0), registered);
        check_eq!(unregister(&ring, id), unregistered);
    }
}

/// The kernel needs none.
fn no_thread_to_be_had(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 8);
    let root = register(&ring);
    check_eq!(ring.res(by(nop(), root)), Res(0));
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads the limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &none) }, 0);
    drop_root();
    let got = ring.register(REGISTER, NULL, 0);
    check_eq!(got, if abi.is_kernel() { Res(2) } else { err(libc::ENOMEM) });
    let null = sys::c("/dev/null");
    check_eq!(opened(ring.res(by(openat(-1, &null, RDONLY, 0), root))), Res(0), "as root");
}

family!["keepers", modes;
    the_process_changes_users_meanwhile,
    rings_are_closed_meanwhile,
    in_a_forked_child,
    restricted_rings,
    no_thread_to_be_had,
];
