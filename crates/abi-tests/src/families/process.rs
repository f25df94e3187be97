//! Threads, forks, exits, and descriptors that go away while requests are in flight.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, ms, nop, poll_add, timeout};
use crate::sys;
use libc::{EBADF, ECANCELED, EEXIST, EPIPE};
use soloring_abi::raw;
use std::time::{Duration, Instant};

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const IN: u32 = libc::POLLIN as u32;

fn an_armed_read_keeps_its_closed_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1)]);
    check!(ring.quiet(), "early");
    sys::close(r);
    check_eq!(sys::write(w, b"still"), Res(5), "the read end is still open for the request");
    check_eq!(ring.wait().res, Res(5));
    check_eq!(&buf[..5], b"still");
    sys::catch(libc::SIGPIPE);
    let end = Instant::now() + Duration::from_secs(5);
    while sys::write(w, b"x") != err(EPIPE) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    check_eq!(sys::write(w, b"x"), err(EPIPE), "the request let go of the file");
}

fn an_armed_read_keeps_its_file_when_the_number_is_reused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let (r2, w2) = sys::pipe();
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1), poll_add(r, IN).ud(2)]);
    check!(ring.quiet(), "early");
    sys::dup2(r2, r);
    sys::write(w2, b"other");
    check!(ring.quiet(), "woken by the file that took the number");
    sys::write(w, b"own");
    check_eq!(ring.wait_n(2).iter().find(|d| d.ud == 1).map(|d| d.res), Some(Res(3)));
    check_eq!(&buf[..3], b"own");
}

fn a_forced_async_request_looks_its_file_up_on_the_worker(abi: &Abi) {
    // Closing races with the worker's lookup: either all or nothing, and never another file.
    let mut ring = Ring::new(abi, 8);
    for _ in 0..20 {
        let fd = sys::file_with(b"contents");
        let mut buf = [0; 8];
        ring.submit_all(&[sqe::read(fd, &mut buf, 0).forced_async()]);
        sys::close(fd);
        let res = ring.wait().res;
        check_in!(res, [Res(8), err(EBADF)], "read of a file that was closed");
        check_eq!(&buf, if res == Res(8) { b"contents" } else { &[0; 8] });
    }
}

fn a_waiting_link_looks_its_file_up_late(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let fd = sys::file_with(b"first");
    let mut buf = [0; 5];
    ring.submit_all(&[poll_add(r, IN).ud(1).link(), sqe::read(fd, &mut buf, 0).ud(2)]);
    sys::dup2(sys::file_with(b"later"), fd);
    sys::write(w, b"x");
    check_eq!(ring.results(2), [(1, Res(1)), (2, Res(5))]);
    check_eq!(&buf, b"later", "IORING_FEAT_LINKED_FILE");
}

fn closing_the_ring_lets_go_of_files(abi: &Abi) {
    sys::catch(libc::SIGPIPE);
    let (r, w) = sys::pipe();
    let (r2, w2) = sys::pipe();
    let mut ring = Ring::new(abi, 8);
    let mut buf = [0; 8];
    let t = ms(60_000);
    ring.submit_all(&[
        sqe::read(r, &mut buf, 0).ud(1),
        poll_add(r, IN).ud(2),
        timeout(&t, 0, 0).ud(3),
    ]);
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [r2].as_ptr(), 1), Res(0));
    sys::close(r);
    sys::close(r2);
    drop(ring);
    for w in [w, w2] {
        let end = Instant::now() + Duration::from_secs(5);
        while sys::write(w, b"x") != err(EPIPE) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        check_eq!(sys::write(w, b"x"), err(EPIPE), "the ring still holds the file");
    }
}

fn duplicates_name_the_same_ring(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let other = abi.dup(ring.fd).0 as i32;
    check!(other >= 0 && other != ring.fd, "dup");
    ring.push(nop().ud(4));
    check_eq!(abi.enter(other, 1, 1, GETEVENTS), Res(1), "by the duplicate");
    check_eq!(ring.pop().map(|d| d.ud), Some(4));
    check_eq!(abi.close(ring.fd), Res(0));
    check_eq!(abi.enter(ring.fd, 0, 0, 0), err(EBADF), "the closed number");
    ring.push(nop().ud(5));
    check_eq!(abi.enter(other, 1, 1, GETEVENTS), Res(1), "by the duplicate alone");
    check_eq!(abi.close(other), Res(0));
    ring.leave_open();
}

fn a_request_in_flight_keeps_nothing_from_exiting(abi: &Abi) {
    for flags in [0, abi.mode_flags] {
        let status = sys::in_child(20, || {
            let mut ring = Ring::build(abi, 8, params(flags));
            let (r, _w) = sys::pipe();
            let buf = sys::buffer(64);
            let t = ms(60_000);
            let (b1, b2) = buf.split_at_mut(32);
            ring.submit_all(&[
                sqe::read(r, b1, 0),
                poll_add(r, IN),
                timeout(&t, 0, 0),
                sqe::read(r, b2, 0).forced_async(),
                nop(),
            ]);
            ring.leave_open();
            7
        });
        check_eq!(status, 7, "exit status with flags {flags:#x}");
    }
}

fn exec_goes_through_with_requests_in_flight(abi: &Abi) {
    let status = sys::in_child(20, || {
        let mut ring = Ring::new(abi, 8);
        let (r, _w) = sys::pipe();
        let buf = sys::buffer(64);
        ring.submit_all(&[sqe::read(r, buf, 0).forced_async(), poll_add(r, IN)]);
        ring.leave_open();
        use std::os::unix::process::CommandExt;
        let _ = std::process::Command::new("/bin/sh").args(["-c", "exit 9"]).exec();
        1
    });
    check_eq!(status, 9, "exit status of the new program");
}

fn a_signal_ends_a_process_that_waits(abi: &Abi) {
    let pid = sys::spawn_child(20, || {
        let ring = Ring::new(abi, 8);
        ring.enter(0, 1, GETEVENTS);
        1
    });
    std::thread::sleep(Duration::from_millis(50));
    sys::kill(pid, libc::SIGTERM);
    check_eq!(sys::wait_child(pid), 128 + libc::SIGTERM);
}

fn a_child_uses_the_inherited_ring(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(ring.wait().ud, 1, "before the fork");
    let status = sys::in_child(20, || {
        let (r, w) = sys::pipe();
        let buf = sys::buffer(16);
        ring.push(nop().ud(2));
        if ring.submit() != Res(1) || ring.wait().ud != 2 {
            return 1;
        }
        ring.push(sqe::read(r, buf, 0).ud(3));
        if ring.submit() != Res(1) {
            return 2;
        }
        sys::write(w, b"child");
        let done = ring.wait();
        if (done.ud, done.res) != (3, Res(5)) || &buf[..5] != b"child" {
            return 3;
        }
        ring.push(nop().ud(4));
        if ring.submit() == Res(1) { 0 } else { 4 }
    });
    check_eq!(status, 0, "the child's verdict");
    // The child's last completion is in the shared ring.
    check_eq!(ring.wait().ud, 4, "posted by the child");
    ring.set_tail(ring.sq_head());
    check_eq!(ring.run(nop().ud(5)).ud, 5, "the parent goes on");
}

fn a_parent_waits_for_a_childs_completion(abi: &Abi) {
    let ring = Ring::build(abi, 8, params(0));
    let pid = sys::spawn_child(20, || {
        std::thread::sleep(Duration::from_millis(60));
        let mut ring = Ring::map(abi, ring.fd, ring.params);
        ring.push(nop().ud(6));
        let submitted = ring.submit();
        ring.leave_open();
        if submitted == Res(1) { 0 } else { 1 }
    });
    // Without a limit: a wait that ends by one finds the completion as well.
    check_eq!(ring.enter(0, 1, GETEVENTS), Res(0), "woken by the child");
    check_eq!(ring.pop().map(|d| d.ud), Some(6));
    check_eq!(sys::wait_child(pid), 0, "the child's verdict");
}

fn a_childs_exit_leaves_the_parents_requests_alone(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    let t = ms(150);
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1), timeout(&t, 0, 0).ud(2)]);
    check_eq!(sys::in_child(20, || 0), 0);
    let status = sys::in_child(20, || {
        let mut ring = Ring::map(abi, ring.fd, ring.params);
        ring.push(poll_add(r, IN).ud(9));
        let submitted = ring.submit();
        abi.close(ring.fd);
        ring.leave_open();
        if submitted == Res(1) { 0 } else { 1 }
    });
    check_eq!(status, 0, "the child's verdict");
    sys::write(w, b"parent");
    let end = Instant::now() + Duration::from_secs(5);
    let mut seen = Vec::new();
    while !(seen.contains(&(1, Res(6))) && seen.contains(&(2, err(libc::ETIME))))
        && Instant::now() < end
    {
        if let Some(done) = ring.wait_within(Duration::from_millis(200)) {
            seen.push((done.ud, done.res));
        }
    }
    check!(seen.contains(&(1, Res(6))), "the parent's read: {seen:?}");
    check!(seen.contains(&(2, err(libc::ETIME))), "the parent's timeout: {seen:?}");
}

fn a_child_is_not_the_submitter_of_a_single_issuer_ring(abi: &Abi) {
    for flags in [0, raw::IORING_SETUP_DEFER_TASKRUN] {
        let mut ring = Ring::build(abi, 8, params(raw::IORING_SETUP_SINGLE_ISSUER | flags));
        check_eq!(ring.run(nop().ud(1)).ud, 1);
        let status = sys::in_child(20, || {
            let mut ring = Ring::map(abi, ring.fd, ring.params);
            ring.push(nop().ud(2));
            let refused = ring.submit() == err(EEXIST);
            ring.set_tail(ring.sq_head());
            ring.leave_open();
            if refused { 0 } else { 1 }
        });
        check_eq!(status, 0, "the child's verdict");
        check_eq!(ring.run(nop().ud(3)).ud, 3, "the parent goes on");
    }
}

fn a_child_makes_rings_of_its_own(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.run(nop().ud(1)).ud, 1);
    let children: Vec<_> = (0..4)
        .map(|_| {
            sys::spawn_child(20, || {
                let mut own = Ring::new(abi, 8);
                let (r, w) = sys::pipe();
                let buf = sys::buffer(8);
                own.submit_all(&[sqe::read(r, buf, 0).ud(1), nop().forced_async().ud(2)]);
                sys::write(w, b"x");
                if own.results(2) == [(1, Res(1)), (2, Res(0))] { 0 } else { 1 }
            })
        })
        .collect();
    for pid in children {
        check_eq!(sys::wait_child(pid), 0, "a child's verdict");
    }
    check_eq!(ring.run(nop().ud(2)).ud, 2, "the parent goes on");
}

fn a_threads_exit_with_requests_in_flight(abi: &Abi) {
    let ring = Ring::build(abi, 8, params(0));
    let (r, w) = sys::pipe();
    let (fd, p) = (ring.fd, ring.params);
    std::thread::scope(|s| {
        s.spawn(move || {
            let mut ring = Ring::map(abi, fd, p);
            let buf = sys::buffer(8);
            let t: &'static _ = Box::leak(Box::new(ms(60_000)));
            ring.submit_all(&[
                sqe::read(r, buf, 0).ud(1),
                poll_add(r, IN).ud(2),
                timeout(t, 0, 0).ud(3),
                nop().ud(4),
            ]);
            ring.leave_open();
        });
    });
    check_eq!(ring.wait().ud, 4, "the inline one");
    // The kernel may end what is in flight with the thread, or when it becomes ready.
    std::thread::sleep(Duration::from_millis(20));
    sys::write(w, b"x");
    let mut seen = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while seen.len() < 2 && Instant::now() < end {
        if let Some(done) = ring.wait_within(Duration::from_millis(200)) {
            seen.push((done.ud, done.res));
        }
    }
    seen.sort();
    check_eq!(seen.len(), 2, "completions of the thread's requests: {seen:?}");
    for (ud, res) in &seen {
        check_in!(*ud, [1, 2], "whose");
        check_in!(
            *res,
            [Res(1), err(ECANCELED), err(libc::EFAULT), err(libc::EINTR)],
            "request {ud}"
        );
    }
    let mut ring = Ring::map(abi, fd, p);
    check_eq!(ring.run(nop().ud(9)).ud, 9, "the ring goes on");
    ring.leave_open();
}

fn a_ring_outlives_the_thread_that_made_it(abi: &Abi) {
    for flags in [0, raw::IORING_SETUP_SINGLE_ISSUER] {
        let (fd, p) = std::thread::scope(|s| {
            s.spawn(|| {
                let mut ring = Ring::build(abi, 8, params(flags));
                check_eq!(ring.run(nop().ud(1)).ud, 1);
                let p = ring.params;
                (ring.leave_open(), p)
            })
            .join()
            .unwrap()
        });
        let mut ring = Ring::map(abi, fd, p);
        ring.push(nop().ud(2));
        let want = if flags == 0 { Res(1) } else { err(EEXIST) };
        check_eq!(ring.submit(), want, "flags {flags:#x}");
    }
}

fn two_threads_share_a_ring(abi: &Abi) {
    let ring = Ring::build(abi, 64, params(0));
    let fd = ring.fd;
    let (r, w) = sys::pipe();
    let mut filler = Ring::map(abi, fd, ring.params);
    std::thread::scope(|s| {
        let reaper = s.spawn(move || {
            let mut total = 0;
            while total < 400 {
                let res = abi.enter(fd, 0, 1, GETEVENTS);
                if res != Res(0) {
                    return res;
                }
                total += 1;
                if total % 50 == 0 {
                    std::thread::yield_now();
                }
                // Reaping happens through the mapping of the filling thread.
                sys::read(r, &mut [0; 1]);
            }
            Res(total)
        });
        for i in 0..400 {
            filler.submit_all(&[nop().ud(i)]);
            sys::write(w, b"x");
            check_eq!(filler.wait().ud, i);
            // One is left for the reaper's next wait.
            filler.submit_all(&[nop().ud(1000)]);
            filler.wait();
            if i % 20 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // Let the reaper's last waits end: something stays in the CQ.
        filler.submit_all(&[nop()]);
        sys::write(w, &[b'x'; 400]);
        check_eq!(reaper.join().unwrap(), Res(400));
    });
    filler.leave_open();
}

fn rings_close_while_another_thread_waits(abi: &Abi) {
    let ring = Ring::build(abi, 8, params(0));
    let fd = ring.fd;
    std::thread::scope(|s| {
        let waiter = s.spawn(|| ring_wait(abi, fd));
        std::thread::sleep(Duration::from_millis(50));
        check_eq!(abi.close(fd), Res(0), "close");
        // The waiter holds the ring: it goes on until its own time is up.
        check_in!(
            waiter.join().unwrap(),
            [err(libc::ETIME), err(EBADF), err(ECANCELED)],
            "the waiter"
        );
    });
    ring.leave_open();
}

fn ring_wait(abi: &Abi, fd: i32) -> Res {
    let ts = ms(400);
    let arg = soloring_abi::GeteventsArg {
        sigmask: 0,
        sigmask_sz: 0,
        min_wait_usec: 0,
        ts: std::ptr::from_ref(&ts) as u64,
    };
    let flags = GETEVENTS | raw::IORING_ENTER_EXT_ARG;
    abi.enter_arg(fd, 0, 1, flags, std::ptr::from_ref(&arg).cast(), size_of_val(&arg))
}

fn completions_appear_without_a_call(abi: &Abi) {
    // A program may only look at the CQ. Rings with deferred or cooperative task work do not
    // promise it, so this is a plain one.
    let mut ring = Ring::build(abi, 8, params(0));
    let (r, w) = sys::pipe();
    let t = ms(20);
    let mut buf = [0; 8];
    ring.submit_all(&[
        timeout(&t, 0, 0).ud(1),
        sqe::read(r, &mut buf, 0).ud(2),
        nop().forced_async().ud(3),
    ]);
    sys::write(w, b"x");
    let end = Instant::now() + Duration::from_secs(5);
    while ring.cq_ready() < 3 && Instant::now() < end {
        // No system call on the ring; an unrelated one lets the kernel run this thread's work.
        std::thread::sleep(Duration::from_millis(2));
    }
    check_eq!(ring.cq_ready(), 3, "completions seen by looking");
}

family!["process", modes;
    an_armed_read_keeps_its_closed_file,
    an_armed_read_keeps_its_file_when_the_number_is_reused,
    a_forced_async_request_looks_its_file_up_on_the_worker,
    a_waiting_link_looks_its_file_up_late,
    closing_the_ring_lets_go_of_files,
    duplicates_name_the_same_ring,
    a_request_in_flight_keeps_nothing_from_exiting,
    exec_goes_through_with_requests_in_flight,
    a_signal_ends_a_process_that_waits,
    a_child_uses_the_inherited_ring,
    a_parent_waits_for_a_childs_completion,
    a_childs_exit_leaves_the_parents_requests_alone,
    a_child_is_not_the_submitter_of_a_single_issuer_ring,
    a_child_makes_rings_of_its_own,
    a_threads_exit_with_requests_in_flight,
    a_ring_outlives_the_thread_that_made_it,
    two_threads_share_a_ring,
    rings_close_while_another_thread_waits,
    completions_appear_without_a_call,
];
