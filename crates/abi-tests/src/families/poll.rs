//! POLL_ADD and POLL_REMOVE: one-shot, multishot, edges, removal, change.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, nop, poll_add, poll_multi, poll_remove, poll_update};
use crate::sys;
use libc::{EBADF, ECANCELED, EINVAL, ENOENT};
use soloring_abi::{raw, sqe_flags};

const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;
const HUP: u32 = libc::POLLHUP as u32;
const ERR: u32 = libc::POLLERR as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const MULTI: u32 = raw::IORING_POLL_ADD_MULTI;
const LEVEL: u32 = raw::IORING_POLL_ADD_LEVEL;
const EVENTS: u32 = raw::IORING_POLL_UPDATE_EVENTS;
const USER_DATA: u32 = raw::IORING_POLL_UPDATE_USER_DATA;

fn mask(events: u32) -> Res {
    Res(events as i64)
}

fn ready_at_once(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    check_eq!(ring.res(poll_add(w, OUT)), mask(OUT), "writable");
    sys::write(w, b"x");
    check_eq!(ring.res(poll_add(r, IN)), mask(IN), "readable");
    let done = ring.run(poll_add(r, IN | OUT).ud(7));
    check_eq!(
        (done.ud, done.res, done.flags),
        (7, mask(IN), 0),
        "only what was asked and is there"
    );
    sys::close(w);
    check_eq!(ring.res(poll_add(r, IN)), mask(IN | HUP), "hang-up comes unasked");
    check_eq!(ring.res(poll_add(r, 0)), mask(HUP), "hang-up comes even when nothing is asked");
}

fn waits_for_an_event(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    check!(ring.quiet(), "early");
    sys::write(w, b"x");
    let done = ring.wait();
    check_eq!((done.ud, done.res, done.more()), (1, mask(IN), false));
    sys::write(w, b"y");
    check!(ring.quiet(), "a second completion of a one-shot poll");
}

fn waits_for_a_hangup(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, 0).ud(1)]);
    sys::write(w, b"x");
    check!(ring.quiet(), "woken by data that nobody asked for");
    sys::close(w);
    check_eq!(ring.wait().res, mask(HUP));
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(w, 0).ud(2)]);
    sys::close(r);
    check_eq!(ring.wait().res, mask(ERR), "the reader left");
}

fn sockets(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    check_eq!(ring.res(poll_add(a, IN | OUT)), mask(OUT), "writable");
    ring.submit_all(&[poll_add(a, IN | RDHUP)]);
    sys::close(b);
    let got = ring.wait().res;
    check_eq!(got, mask(IN | RDHUP | HUP), "the peer left");
    let (listener, addr) = sys::tcp_listener();
    ring.submit_all(&[poll_add(listener, IN)]);
    check!(ring.quiet(), "early");
    sys::tcp_connect(addr);
    check_eq!(ring.wait().res, mask(IN), "a connection came");
}

fn regular_files_are_always_ready(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(b"x");
    check_eq!(ring.res(poll_add(fd, IN)), mask(IN));
    check_eq!(ring.res(poll_add(fd, IN | OUT)), mask(IN | OUT));
    check_eq!(ring.res(poll_add(sys::open("/", 0), IN)), mask(IN), "a directory");
    check_eq!(ring.res(poll_add(sys::open("/dev/null", libc::O_RDWR), IN)), mask(IN), "/dev/null");
}

fn bad_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    sys::write(w, b"x");
    for bit in [1, 2, 4, 5, 31] {
        let sqe = poll_add(r, IN).with(|s| s.len = 1 << bit);
        check_eq!(ring.res(sqe), err(EINVAL), "len bit {bit}");
    }
    for poll in [poll_add, poll_multi] {
        check_eq!(ring.res(poll(-1, IN)), err(EBADF), "-1");
        check_eq!(ring.res(poll(sys::unused_fd(), IN)), err(EBADF), "nothing open");
    }
    let always = ring.run(poll_multi(sys::file_with(b"x"), IN));
    check_eq!((always.res, always.more()), (mask(IN), false), "what is always ready");
    check_eq!(ring.res(poll_multi(r, IN).skip()), err(EINVAL), "multishot without completions");
}

fn level_triggered_one_shot(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let level = poll_add(r, IN).with(|s| s.len = LEVEL);
    sys::write(w, b"x");
    check_eq!(ring.res(level), err(EINVAL), "LEVEL alone");
}

fn multishot_reports_each_wakeup(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    ring.submit_all(&[poll_multi(r, IN).ud(1)]);
    for i in 0..4 {
        check!(ring.quiet(), "early");
        sys::write(w, b"x");
        let done = ring.wait();
        check_eq!((done.ud, done.res, done.more()), (1, mask(IN), true), "event {i}");
        sys::read(r, &mut buf);
    }
    // Edges: more data without a read in between is another event.
    sys::write(w, b"x");
    check_eq!(ring.wait().res, mask(IN));
    sys::write(w, b"y");
    check_eq!(ring.wait().res, mask(IN), "unread data and more of it");
    check!(ring.quiet(), "nothing happened");
}

fn multishot_on_something_ready(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    sys::write(w, b"x");
    ring.submit_all(&[poll_multi(r, IN).ud(1)]);
    let done = ring.wait();
    check_eq!((done.res, done.more()), (mask(IN), true));
    check!(ring.quiet(), "the same readiness twice");
    sys::write(w, b"y");
    check_eq!(ring.wait().more(), true);
}

fn multishot_ends_with_a_hangup_or_goes_on(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_multi(r, IN).ud(1)]);
    sys::close(w);
    let done = ring.wait();
    check_eq!((done.res, done.more()), (mask(HUP), true));
    ring.submit_all(&[poll_remove(1).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))]);
}

fn multishot_survives_overflow_or_ends(abi: &Abi) {
    let mut ring = Ring::new(abi, 1);
    check_eq!(ring.params.cq_entries, 2);
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    ring.submit_all(&[poll_multi(event, IN).ud(1)]);
    for i in 0..5 {
        sys::write(event, &1u64.to_ne_bytes());
        ring.enter(0, 0, raw::IORING_ENTER_GETEVENTS);
        if i == 0 {
            check_eq!(ring.cq_ready(), 1);
        }
    }
    // It either keeps on reporting into the overflow list, or ends without IORING_CQE_F_MORE: no
    // event may be lost silently.
    let mut ended = false;
    let mut count = 0;
    while let Some(done) = ring.wait_within(std::time::Duration::from_millis(40)) {
        count += 1;
        check_eq!(done.res, mask(IN));
        ended = !done.more();
    }
    check!(count >= 3 || ended, "{count} events, ended: {ended}");
    check!(ended, "goes on after an overflow");
}

fn another_ring_emptied_without_a_call(abi: &Abi) {
    for flags in [0, raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN] {
        let mut ring = Ring::with_flags(abi, 8, flags);
        let mut watched = Ring::with_flags(abi, 8, flags);
        let fd = watched.fd;
        let complete = |watched: &mut Ring, ud| {
            watched.submit_all(&[nop().ud(ud)]);
            watched.enter(0, 0, raw::IORING_ENTER_GETEVENTS);
        };
        ring.submit_all(&[poll_add(fd, IN).ud(1)]);
        check!(ring.quiet(), "nothing there yet");
        complete(&mut watched, 10);
        check_eq!(ring.wait().res, mask(IN), "a completion");
        check_eq!(ring.res(poll_add(fd, IN)), mask(IN), "which is still there");
        check_eq!(watched.pop().map(|done| done.ud), Some(10));
        ring.submit_all(&[poll_add(fd, IN).ud(2)]);
        check!(ring.quiet(), "it was taken, one-shot; flags {flags:#x}");
        ring.submit_all(&[poll_remove(2).ud(3)]);
        check_eq!(ring.results(2), [(2, err(ECANCELED)), (3, Res(0))]);
        ring.submit_all(&[poll_multi(fd, IN).ud(5)]);
        check!(ring.quiet(), "it was taken, multishot; flags {flags:#x}");
        complete(&mut watched, 20);
        // The kernel ends a multishot poll of a ring at its first completion.
        let done = ring.wait();
        check_eq!((done.ud, done.res), (5, mask(IN)), "another completion");
        ring.submit_all(&[poll_add(fd, 0).ud(6)]);
        while watched.pop().is_some() {}
        check_eq!(ring.res(poll_update(6, EVENTS, 0, IN).ud(7)), Res(0));
        check!(ring.quiet(), "it was taken, updated; flags {flags:#x}");
    }
}

fn removal(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _w) = sys::pipe();
    check_eq!(ring.res(poll_remove(1)), err(ENOENT), "nothing there");
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    check_eq!(ring.res(poll_remove(2).ud(9)), err(ENOENT), "another user data");
    ring.submit_all(&[poll_remove(1).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))]);
    check_eq!(ring.res(poll_remove(1)), err(ENOENT), "removed already");
    ring.submit_all(&[poll_multi(r, IN).ud(1)]);
    ring.submit_all(&[poll_remove(1).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))], "multishot");
}

fn removal_takes_one_of_several(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1), poll_add(r, IN).ud(1)]);
    ring.submit_all(&[poll_remove(1).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))]);
    check!(ring.quiet(), "both were removed");
}

fn removal_is_for_polls_only(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let t = crate::sqe::ms(60_000);
    let (r, _w) = sys::pipe();
    let mut buf = [0; 1];
    ring.submit_all(&[crate::sqe::timeout(&t, 0, 0).ud(1), crate::sqe::read(r, &mut buf, 0).ud(2)]);
    check_eq!(ring.res(poll_remove(1).ud(9)), err(ENOENT), "a timeout");
    check_eq!(ring.res(poll_remove(2).ud(9)), err(ENOENT), "an armed read");
    check!(ring.quiet(), "something was removed");
}

fn update_of_the_events(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    ring.submit_all(&[poll_add(a, IN).ud(1)]);
    ring.submit_all(&[poll_update(1, EVENTS, 0, OUT).ud(2)]);
    check_eq!(ring.results(2), [(1, mask(OUT)), (2, Res(0))], "ready for the new events");
    ring.submit_all(&[poll_add(a, RDHUP).ud(1)]);
    check_eq!(ring.res(poll_update(1, EVENTS, 0, IN).ud(2)), Res(0));
    check!(ring.quiet(), "early");
    sys::write(b, b"x");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (1, mask(IN)), "not ready yet for the new events");
}

fn update_of_the_user_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    check_eq!(ring.res(poll_update(1, USER_DATA, 77, 0).ud(2)), Res(0));
    check_eq!(ring.res(poll_remove(1).ud(3)), err(ENOENT), "the old name");
    sys::write(w, b"x");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (77, mask(IN)));
}

fn update_of_both_and_of_multishot(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    ring.submit_all(&[poll_multi(a, RDHUP).ud(1)]);
    check_eq!(ring.res(poll_update(1, EVENTS | USER_DATA | MULTI, 5, IN).ud(2)), Res(0));
    sys::write(b, b"x");
    let done = ring.wait();
    check_eq!((done.ud, done.res, done.more()), (5, mask(IN), true));
    sys::read(a, &mut [0; 4]);
    // An update changes the events, not whether it is multishot.
    check_eq!(ring.res(poll_update(5, EVENTS, 0, IN).ud(2)), Res(0));
    sys::write(b, b"x");
    let done = ring.wait();
    check_eq!((done.ud, done.res, done.more()), (5, mask(IN), true), "still multishot");
    sys::read(a, &mut [0; 4]);
    ring.submit_all(&[poll_remove(5).ud(2)]);
    check_eq!(ring.results(2), [(2, Res(0)), (5, err(ECANCELED))]);
    ring.submit_all(&[poll_add(a, RDHUP).ud(1)]);
    check_eq!(ring.res(poll_update(1, EVENTS | MULTI, 0, IN).ud(2)), Res(0));
    sys::write(b, b"x");
    let done = ring.wait();
    check_eq!((done.ud, done.res, done.more()), (1, mask(IN), false), "still one-shot");
}

fn update_checks_its_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    for (what, sqe, want) in [
        ("no such poll", poll_update(9, EVENTS, 0, IN), ENOENT),
        ("unknown flag", poll_update(1, 1 << 4 | EVENTS, 0, IN), EINVAL),
        ("unknown flag alone", poll_update(1, 1 << 4, 0, 0), EINVAL),
        ("LEVEL", poll_update(1, EVENTS | LEVEL, 0, IN), EINVAL),
        ("MULTI alone", poll_update(1, MULTI, 0, 0), EINVAL),
        ("new user data without its flag", poll_update(1, EVENTS, 5, IN), EINVAL),
        ("new events without their flag", poll_update(1, USER_DATA, 5, IN), EINVAL),
        ("events of a removal", poll_update(1, 0, 0, IN), EINVAL),
    ] {
        check_eq!(ring.res(sqe.ud(3)), err(want), "{what}");
    }
    check!(ring.quiet(), "the poll is still armed");
}

fn exclusive_is_for_one_waiter(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let exclusive = libc::EPOLLEXCLUSIVE as u32;
    ring.submit_all(&[poll_add(r, IN | exclusive).ud(1)]);
    sys::write(w, b"x");
    check_eq!(ring.wait().res, mask(IN));
    check_eq!(ring.res(poll_add(r, IN | EDGE)), mask(IN), "EPOLLET");
}

fn polls_on_registered_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [r].as_ptr(), 1), Res(0));
    ring.submit_all(&[poll_add(0, IN).fixed().ud(1)]);
    check!(ring.quiet(), "early");
    sys::write(w, b"x");
    check_eq!(ring.wait().res, mask(IN));
    check_eq!(ring.res(poll_add(1, IN).fixed()), err(EBADF), "beyond the table");
    check_eq!(ring.res(nop().flag(sqe_flags::FIXED_FILE)), Res(0));
}

fn polling_a_ring(abi: &Abi) {
    let mut inner = Ring::build(abi, 4, crate::ring::params(0));
    check_eq!(
        abi.poll(inner.fd, libc::POLLIN | libc::POLLOUT, 0),
        Res(libc::POLLOUT as i64),
        "new"
    );
    inner.submit_all(&[nop()]);
    check_eq!(abi.poll(inner.fd, libc::POLLIN, 1000), mask(IN), "with a completion");
    inner.wait();
    check_eq!(abi.poll(inner.fd, libc::POLLIN, 0), Res(0), "reaped");
    let (r, w) = sys::pipe();
    inner.submit_all(&[poll_add(r, IN)]);
    check_eq!(abi.poll(inner.fd, libc::POLLIN, 20), Res(0), "nothing yet");
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            sys::write(w, b"x");
        });
        check_eq!(abi.poll(inner.fd, libc::POLLIN, 5000), mask(IN), "woken by readiness");
    });
}

fn many_polls_on_one_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 128);
    let (r, w) = sys::pipe();
    ring.submit_all(&(0..128).map(|i| poll_add(r, IN).ud(i)).collect::<Vec<_>>());
    check!(ring.quiet(), "early");
    sys::write(w, b"x");
    check_eq!(ring.results(128), (0..128).map(|i| (i, mask(IN))).collect::<Vec<_>>());
}

fn polls_in_both_directions_of_one_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    sys::fill(a);
    ring.submit_all(&[poll_add(a, IN).ud(1), poll_add(a, OUT).ud(2), poll_multi(a, RDHUP).ud(3)]);
    check!(ring.quiet(), "early");
    sys::write(b, b"x");
    check_eq!(ring.wait().ud, 1, "input");
    sys::read(b, &mut vec![0; 1 << 20]);
    check_eq!(ring.wait().ud, 2, "output");
    sys::close(b);
    check_eq!(ring.wait().ud, 3, "hang-up");
}

fn the_end_of_the_other_side_is_always_told(abi: &Abi) {
    const END: u32 = libc::POLLRDHUP as u32;
    for tcp in [false, true] {
        for multi in [false, true] {
            let add = if multi { poll_multi } else { poll_add };
            let (a, b) = if tcp { sys::tcp_pair() } else { sys::socketpair(libc::SOCK_STREAM) };
            let mut ring = Ring::new(abi, 8);
            ring.submit_all(&[add(a, libc::POLLPRI as u32).ud(1)]);
            check!(ring.quiet(), "early");
            sys::shut(b, libc::SHUT_WR);
            check_eq!(ring.wait().res, Res(END as i64), "not asked for");
            let mut ring = Ring::new(abi, 8);
            let readable = libc::POLLIN as u32;
            check_eq!(ring.run(add(a, readable)).res, Res((readable | END) as i64), "with others");
        }
    }
}

fn once_is_said_by_an_event_too(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    sys::write(w, b"x");
    let once = libc::POLLIN as u32 | libc::EPOLLONESHOT as u32;
    let done = ring.run(poll_multi(r, once));
    check_eq!((done.res, done.more()), (Res(libc::POLLIN as i64), false));
}

family!["poll", modes;
    once_is_said_by_an_event_too,
    the_end_of_the_other_side_is_always_told,
    ready_at_once,
    waits_for_an_event,
    waits_for_a_hangup,
    sockets,
    regular_files_are_always_ready,
    bad_fields,
    level_triggered_one_shot,
    multishot_reports_each_wakeup,
    multishot_on_something_ready,
    another_ring_emptied_without_a_call,
    multishot_ends_with_a_hangup_or_goes_on,
    multishot_survives_overflow_or_ends,
    removal,
    removal_takes_one_of_several,
    removal_is_for_polls_only,
    update_of_the_events,
    update_of_the_user_data,
    update_of_both_and_of_multishot,
    update_checks_its_fields,
    exclusive_is_for_one_waiter,
    polls_on_registered_files,
    polling_a_ring,
    many_polls_on_one_file,
    polls_in_both_directions_of_one_file,
];
