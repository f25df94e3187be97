//! Links, hard links, drain, link timeouts, completions that are not posted.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Done, Ring};
use crate::sqe::{self, CURRENT, SqeExt, link_timeout, ms, nop, nop_result, poll_add, timeout};
use crate::sys;
use libc::{ECANCELED, EINVAL, EOPNOTSUPP, ETIME};
use soloring_abi::{Sqe, raw};
use std::time::Duration;

fn order(done: &[Done]) -> Vec<u64> {
    done.iter().map(|d| d.ud).collect()
}

fn a_chain_runs_in_order(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let fd = sys::file_with(b"");
    let (a, b, c) = (*b"aaaa", *b"bbbb", *b"cc");
    let mut back = [0; 10];
    ring.submit_all(&[
        sqe::write(fd, &a, CURRENT).ud(1).link(),
        sqe::write(fd, &b, CURRENT).ud(2).link(),
        sqe::write(fd, &c, CURRENT).ud(3).link(),
        sqe::read(fd, &mut back, 0).ud(4),
    ]);
    let done = ring.wait_n(4);
    check_eq!(order(&done), [1, 2, 3, 4]);
    check_eq!(done[3].res, Res(10));
    check_eq!(&back, b"aaaabbbbcc");
}

fn a_chain_waits_for_its_slow_member(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    ring.submit_all(&[
        sqe::read(r, &mut buf, 0).ud(1).link(),
        nop().ud(2).link(),
        nop().ud(3),
        nop().ud(4),
    ]);
    check_eq!(ring.wait().ud, 4, "the one outside of the chain");
    check!(ring.quiet(), "the chain went on");
    sys::write(w, b"four");
    check_eq!(order(&ring.wait_n(3)), [1, 2, 3]);
}

fn a_failure_cancels_the_rest(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[
        nop().ud(1).link(),
        sqe::fsync(-1, 0).ud(2).link(),
        nop().ud(3).link(),
        nop().ud(4),
        nop().ud(5),
    ]);
    check_eq!(
        ring.results(5),
        [(1, Res(0)), (2, err(libc::EBADF)), (3, err(ECANCELED)), (4, err(ECANCELED)), (5, Res(0))]
    );
}

fn a_negative_result_of_a_nop_breaks_the_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[nop_result(-7).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(-7)), (2, err(ECANCELED))]);
    ring.submit_all(&[nop_result(7).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(7)), (2, Res(0))]);
}

fn a_hard_link_goes_on_behind_a_failure(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[
        nop_result(-7).ud(1).hardlink(),
        nop_result(-8).ud(2).hardlink(),
        nop().ud(3).link(),
        nop_result(-9).ud(4).link(),
        nop().ud(5),
    ]);
    check_eq!(
        ring.results(5),
        [(1, Res(-7)), (2, Res(-8)), (3, Res(0)), (4, Res(-9)), (5, err(ECANCELED))]
    );
}

fn a_short_read_breaks_the_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let fd = sys::file_with(b"short");
    let mut buf = [0; 64];
    ring.submit_all(&[sqe::read(fd, &mut buf, 0).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(5)), (2, err(ECANCELED))], "link");
    ring.submit_all(&[sqe::read(fd, &mut buf, 0).ud(1).hardlink(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(5)), (2, Res(0))], "hard link");
    let iov = [sys::iovec(&mut buf)];
    ring.submit_all(&[sqe::readv(fd, &iov, 2).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(3)), (2, err(ECANCELED))], "readv");
    let mut exact = [0; 5];
    ring.submit_all(&[sqe::read(fd, &mut exact, 0).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(5)), (2, Res(0))], "not short");
}

fn a_short_recv_breaks_the_chain_only_with_waitall(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 64];
    sys::write(b, b"abc");
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(3)), (2, Res(0))], "plain");
    sys::write(b, b"abc");
    sys::close(b);
    ring.submit_all(&[sqe::recv(a, &mut buf, libc::MSG_WAITALL).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(3)), (2, err(ECANCELED))], "MSG_WAITALL");
}

fn a_chain_ends_with_its_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[nop_result(-5).ud(1).link()]);
    ring.submit_all(&[nop().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(-5)), (2, Res(0))]);
    ring.push_all(&[nop_result(-5).ud(3).link(), nop().ud(4).link(), nop().ud(5)]);
    check_eq!(ring.enter(2, 0, 0), Res(2), "cut in the middle");
    check_eq!(ring.enter(1, 0, 0), Res(1));
    check_eq!(ring.results(3), [(3, Res(-5)), (4, err(ECANCELED)), (5, Res(0))]);
}

fn a_bad_entry_fails_its_whole_chain(abi: &Abi) {
    let bad = Sqe { opcode: 200, ..Sqe::default() };
    for position in 0..3 {
        let mut ring = Ring::new(abi, 16);
        let mut chain = [nop().ud(0), nop().ud(1), nop().ud(2)];
        chain[position] = bad.ud(position as u64);
        chain[0] = chain[0].link();
        chain[1] = chain[1].link();
        ring.push_all(&chain);
        ring.push(nop().ud(9));
        let first = ring.submit();
        // A bad entry at the end of a chain stops the submission there; in the middle the chain is
        // put together first.
        check_eq!(first, Res(if position == 2 { 3 } else { 4 }), "bad at {position}");
        while ring.pending() > 0 {
            ring.submit();
        }
        let mut want: Vec<_> = (0..3)
            .map(|i| (i as u64, err(if i == position { EINVAL } else { ECANCELED })))
            .collect();
        want.push((9, Res(0)));
        check_eq!(ring.results(4), want, "bad at {position}");
    }
}

fn a_bad_entry_fails_its_hard_chain_too(abi: &Abi) {
    let bad = Sqe { opcode: 200, ..Sqe::default() };
    let mut ring = Ring::new(abi, 16);
    ring.push_all(&[nop().ud(0).hardlink(), bad.ud(1).hardlink(), nop().ud(2)]);
    check_eq!(ring.submit(), Res(3));
    check_eq!(ring.results(3), [(0, err(ECANCELED)), (1, err(EINVAL)), (2, err(ECANCELED))]);
}

fn linked_operations_see_what_came_before(abi: &Abi) {
    // IORING_FEAT_LINKED_FILE: the file is looked up when the request runs.
    let mut ring = Ring::new(abi, 16);
    let slots = [-1i32; 2];
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, slots.as_ptr(), 2), Res(0), "a sparse table");
    let dir = sys::tempdir();
    let path = sys::c(dir.path().join("new"));
    let mut back = [0; 3];
    let create = libc::O_CREAT | libc::O_RDWR;
    ring.submit_all(&[
        sqe::openat(libc::AT_FDCWD, &path, create, 0o600).with(|s| s.file_index = 1).ud(1).link(),
        sqe::write(0, b"abc", 0).fixed().ud(2).link(),
        sqe::read(0, &mut back, 0).fixed().ud(3).link(),
        sqe::close_slot(0).ud(4),
    ]);
    check_eq!(ring.results(4), [(1, Res(0)), (2, Res(3)), (3, Res(3)), (4, Res(0))]);
    check_eq!(&back, b"abc");
}

fn two_chains_do_not_mix(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[nop_result(-5).ud(1).link(), nop().ud(2), nop().ud(3).link(), nop().ud(4)]);
    check_eq!(ring.results(4), [(1, Res(-5)), (2, err(ECANCELED)), (3, Res(0)), (4, Res(0))]);
}

fn a_long_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 256);
    let mut chain: Vec<_> = (0..256).map(|i| nop().ud(i).link()).collect();
    chain[255].flags = 0;
    ring.submit_all(&chain);
    check_eq!(order(&ring.wait_n(256)), (0..256).collect::<Vec<_>>());
    for sqe in &mut chain[100..] {
        sqe.user_data += 1000;
    }
    chain[100].opcode = 3;
    ring.submit_all(&chain);
    let results = ring.results(256);
    check!(results[..100].iter().all(|r| r.1 == Res(0)), "before the failure");
    check_eq!(results[100].1, err(libc::EBADF));
    check!(results[101..].iter().all(|r| r.1 == err(ECANCELED)), "behind the failure");
}

fn skipped_completions(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[nop().ud(1).skip(), nop().ud(2)]);
    check_eq!(order(&ring.wait_n(1)), [2]);
    check!(ring.quiet(), "a skipped completion was posted");
    ring.submit_all(&[nop_result(-5).ud(3).skip()]);
    check_eq!(ring.results(1), [(3, Res(-5))], "failures are posted");
    ring.submit_all(&[nop_result(5).ud(4).skip()]);
    check!(ring.quiet(), "any success is skipped");
    check_eq!(ring.cq_overflow(), 0);
}

fn skipped_completions_in_a_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    ring.submit_all(&[nop().ud(1).link().skip(), nop().ud(2).link().skip(), nop().ud(3)]);
    check_eq!(ring.results(1), [(3, Res(0))], "success");
    ring.submit_all(&[
        nop().ud(1).link().skip(),
        nop_result(-5).ud(2).link().skip(),
        nop().ud(3).link(),
        nop().ud(4).skip(),
    ]);
    // The failed member asked to be skipped: what it takes along is not posted either.
    check_eq!(ring.results(1), [(2, Res(-5))], "a skipped member fails");
    check!(ring.quiet(), "more completions");
    ring.submit_all(&[
        nop().ud(1).link().skip(),
        nop_result(-5).ud(2).link(),
        nop().ud(3).link().skip(),
        nop().ud(4),
    ]);
    // It did not: what it takes along is posted, even those that asked to be skipped.
    check_eq!(
        ring.results(3),
        [(2, Res(-5)), (3, err(ECANCELED)), (4, err(ECANCELED))],
        "an ordinary member fails"
    );
    check!(ring.quiet(), "more completions");
}

fn skipped_requests_of_the_slow_kind(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1).skip()]);
    sys::write(w, b"data");
    check!(ring.quiet(), "a skipped completion was posted");
    check_eq!(&buf, b"data");
    // A short read is a failure here, as it is for links.
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1).skip()]);
    sys::write(w, b"da");
    check_eq!(ring.results(1), [(1, Res(2))], "a short read");
    ring.submit_all(&[nop().forced_async().ud(2).skip()]);
    check!(ring.quiet(), "a skipped completion was posted");
}

fn drain_waits_for_all_before_it(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1), nop().ud(2).drain(), nop().ud(3)]);
    check!(ring.quiet(), "went past the drain");
    sys::write(w, b"x");
    check_eq!(order(&ring.wait_n(3)), [1, 2, 3]);
}

fn drain_with_nothing_in_flight(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    for i in 0..10 {
        check_eq!(ring.run(nop().ud(i).drain()).ud, i);
    }
    ring.submit_all(&[nop().ud(1), nop().ud(2).drain(), nop().ud(3).drain(), nop().ud(4)]);
    check_eq!(order(&ring.wait_n(4)), [1, 2, 3, 4]);
}

/// Those behind the drained request wait for its end, not for its beginning.
fn drain_holds_back_until_it_is_done(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let ((r, w), (r2, w2)) = (sys::pipe(), sys::pipe());
    let readable = libc::POLLIN as u32;
    ring.submit_all(&[
        poll_add(r, readable).ud(1),
        poll_add(r2, readable).ud(2).drain(),
        nop().ud(3),
        nop().ud(4).drain(),
    ]);
    sys::write(w, b"x");
    check_eq!(ring.wait().ud, 1);
    check!(ring.quiet(), "went past what is drained and has not ended");
    sys::write(w2, b"x");
    check_eq!(order(&ring.wait_n(3)), [2, 3, 4]);
}

fn drain_holds_back_later_submissions(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, libc::POLLIN as u32).ud(1), nop().ud(2).drain()]);
    ring.submit_all(&[nop().ud(3)]);
    check!(ring.quiet(), "went past the drain");
    sys::write(w, b"x");
    check_eq!(order(&ring.wait_n(3)), [1, 2, 3]);
    ring.submit_all(&[nop().ud(4)]);
    check_eq!(ring.wait().ud, 4, "after the drain");
}

fn a_chain_with_drain_is_drained_as_a_whole(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    ring.submit_all(&[
        poll_add(r, libc::POLLIN as u32).ud(1),
        nop().ud(2).link(),
        nop().ud(3).link().drain(),
        nop().ud(4),
        nop().ud(5),
    ]);
    check!(ring.quiet(), "went past the drain");
    sys::write(w, b"x");
    let got = order(&ring.wait_n(5));
    check_eq!(got[0], 1);
    let place = |ud| got.iter().position(|x| *x == ud);
    check!(place(2) < place(3) && place(3) < place(4), "order of the chain in {got:?}");
}

fn drain_and_skip_do_not_go_together(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    check_eq!(ring.res(nop().drain()), Res(0), "drain on a fresh ring");
    check_eq!(ring.res(nop().drain().skip()), err(EOPNOTSUPP), "both");
    check_eq!(ring.res(nop().drain()), err(EOPNOTSUPP), "drain after a skip");
    check_eq!(ring.res(nop()), Res(0), "plain");
}

fn link_timeout_fires(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let mut buf = [0; 4];
    let t = ms(20);
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1).link(), link_timeout(&t, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, err(ETIME))]);
    ring.submit_all(&[
        poll_add(r, libc::POLLIN as u32).ud(1).link(),
        link_timeout(&t, 0).ud(2).link(),
        nop().ud(3),
    ]);
    check_eq!(
        ring.results(3),
        [(1, err(ECANCELED)), (2, err(ETIME)), (3, err(ECANCELED))],
        "with a third member"
    );
}

fn link_timeout_is_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    let t = ms(60_000);
    ring.submit_all(&[nop().ud(1).link(), link_timeout(&t, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, Res(0)), (2, err(ECANCELED))], "inline request");
    ring.submit_all(&[
        poll_add(r, libc::POLLIN as u32).ud(1).link(),
        link_timeout(&t, 0).ud(2).link(),
        nop().ud(3),
    ]);
    check!(ring.quiet(), "early");
    sys::write(w, b"x");
    check_eq!(ring.results(3), [(1, Res(1)), (2, err(ECANCELED)), (3, Res(0))], "armed request");
    ring.submit_all(&[nop_result(-5).ud(1).link(), link_timeout(&t, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, Res(-5)), (2, err(ECANCELED))], "failed request");
}

fn link_timeout_on_the_wrong_place(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(20);
    check_eq!(ring.res(link_timeout(&t, 0)), err(EINVAL), "alone");
    check_eq!(ring.res(link_timeout(&t, 0).link()), err(EINVAL), "at the head of a chain");
    ring.push_all(&[nop().ud(1), link_timeout(&t, 0).ud(2)]);
    check_eq!(ring.submit(), Res(2));
    check_eq!(ring.results(2), [(1, Res(0)), (2, err(EINVAL))], "behind an unlinked request");
    ring.push_all(&[
        nop().ud(1).link(),
        link_timeout(&t, 0).ud(2).link(),
        link_timeout(&t, 0).ud(3),
    ]);
    while ring.pending() > 0 {
        ring.submit();
    }
    check_eq!(
        ring.results(3),
        [(1, err(ECANCELED)), (2, err(ECANCELED)), (3, err(EINVAL))],
        "behind another link timeout"
    );
}

fn link_timeout_checks_its_fields(abi: &Abi) {
    let t = ms(20);
    let fields: [(&str, Sqe); 8] = [
        ("flags: update", link_timeout(&t, raw::IORING_LINK_TIMEOUT_UPDATE)),
        ("flags: multishot, absolute", {
            link_timeout(&t, raw::IORING_TIMEOUT_MULTISHOT | raw::IORING_TIMEOUT_ABS)
        }),
        ("flags: unknown", link_timeout(&t, 1 << 20)),
        ("flags: two clocks", link_timeout(&t, 12)),
        ("count", link_timeout(&t, 0).with(|s| s.off = 1)),
        ("len", link_timeout(&t, 0).with(|s| s.len = 2)),
        ("buf_index", link_timeout(&t, 0).with(|s| s.buf_index = 2)),
        ("negative time", {
            let bad: &'static _ = Box::leak(Box::new(ms(-20)));
            link_timeout(bad, 0)
        }),
    ];
    for (what, sqe) in fields {
        let mut ring = Ring::new(abi, 16);
        ring.push_all(&[nop().ud(1).link(), sqe.ud(2)]);
        while ring.pending() > 0 {
            ring.submit();
        }
        check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, err(EINVAL))], "{what}");
    }
    let mut ring = Ring::new(abi, 16);
    let bad = link_timeout(&t, 0).with(|s| s.addr = 1).ud(2);
    ring.push_all(&[nop().ud(1).link(), bad]);
    ring.submit();
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, err(libc::EFAULT))], "bad pointer");
}

fn link_timeout_with_success(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let t = ms(20);
    ring.submit_all(&[
        poll_add(r, 1).ud(1).link(),
        link_timeout(&t, raw::IORING_TIMEOUT_ETIME_SUCCESS).ud(2).link(),
        nop().ud(3),
    ]);
    check_eq!(ring.results(3), [(1, err(ECANCELED)), (2, err(ETIME)), (3, err(ECANCELED))]);
}

/// The limit of a request that never began is told, though the rest of a silent chain is not.
fn link_timeout_behind_a_silent_failure(abi: &Abi) {
    let limit = ms(1000);
    let bad = || nop().with(|s| s.ioprio = 1);
    let canceled = err(ECANCELED);
    for (what, chain, want) in [
        (
            "the head is bad",
            [bad().skip(), link_timeout(&limit, 0), nop(), nop()],
            vec![(1, err(EINVAL)), (2, canceled)],
        ),
        (
            "the head is not, what follows the limit is",
            [nop().skip(), link_timeout(&limit, 0), bad(), nop()],
            vec![(1, canceled), (2, canceled)],
        ),
        (
            "the limit is silent",
            [nop(), link_timeout(&limit, 0).skip(), bad(), nop()],
            vec![(1, canceled), (3, err(EINVAL)), (4, canceled)],
        ),
        (
            "it limits another",
            [bad().skip(), nop(), link_timeout(&limit, 0), nop()],
            vec![(1, err(EINVAL))],
        ),
        (
            "nothing is silent",
            [nop(), link_timeout(&limit, 0), bad(), nop()],
            vec![(1, canceled), (2, canceled), (3, err(EINVAL)), (4, canceled)],
        ),
    ] {
        for hard in [false, true] {
            let mut ring = Ring::new(abi, 16);
            let link = |s: Sqe| if hard { s.hardlink() } else { s.link() };
            let [a, b, c, d] = chain;
            ring.push_all(&[link(a.ud(1)), link(b.ud(2)), link(c.ud(3)), d.ud(4)]);
            ring.submit();
            let soon = Duration::from_millis(40);
            let all: Vec<_> = std::iter::from_fn(|| ring.wait_within(soon)).collect();
            let mut got: Vec<_> = all.iter().map(|d| (d.ud, d.res)).collect();
            if !hard && what == "nothing is silent" {
                check_eq!(order(&all), [1, 2, 3, 4], "{what}: the order");
            }
            got.sort();
            check_eq!(got, want, "{what}, hard: {hard}");
        }
    }
}

fn a_timeout_in_a_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let t = ms(20);
    ring.submit_all(&[timeout(&t, 0, 0).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(ETIME)), (2, err(ECANCELED))], "ETIME is a failure");
    let success = raw::IORING_TIMEOUT_ETIME_SUCCESS;
    ring.submit_all(&[timeout(&t, 0, success).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(ETIME)), (2, Res(0))], "ETIME_SUCCESS");
    ring.submit_all(&[timeout(&t, 0, 0).ud(1).hardlink(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(ETIME)), (2, Res(0))], "hard link");
}

fn forced_async_in_a_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    for _ in 0..20 {
        ring.submit_all(&[
            nop().ud(1).link().forced_async(),
            nop().ud(2).link(),
            nop().ud(3).link().forced_async(),
            nop().ud(4),
        ]);
        check_eq!(order(&ring.wait_n(4)), [1, 2, 3, 4]);
    }
    std::thread::sleep(Duration::from_millis(1));
}

family!["links", modes;
    a_chain_runs_in_order,
    a_chain_waits_for_its_slow_member,
    a_failure_cancels_the_rest,
    a_negative_result_of_a_nop_breaks_the_chain,
    a_hard_link_goes_on_behind_a_failure,
    a_short_read_breaks_the_chain,
    a_short_recv_breaks_the_chain_only_with_waitall,
    a_chain_ends_with_its_submission,
    a_bad_entry_fails_its_whole_chain,
    a_bad_entry_fails_its_hard_chain_too,
    linked_operations_see_what_came_before,
    two_chains_do_not_mix,
    a_long_chain,
    skipped_completions,
    skipped_completions_in_a_chain,
    skipped_requests_of_the_slow_kind,
    drain_waits_for_all_before_it,
    drain_with_nothing_in_flight,
    drain_holds_back_until_it_is_done,
    drain_holds_back_later_submissions,
    a_chain_with_drain_is_drained_as_a_whole,
    drain_and_skip_do_not_go_together,
    link_timeout_fires,
    link_timeout_is_cancelled,
    link_timeout_on_the_wrong_place,
    link_timeout_checks_its_fields,
    link_timeout_with_success,
    link_timeout_behind_a_silent_failure,
    a_timeout_in_a_chain,
    forced_async_in_a_chain,
];
