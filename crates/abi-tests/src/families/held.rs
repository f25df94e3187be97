//! Requests hold their file: closed or reused numbers, many waiters on one file, who closes it last.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, poll_add, poll_multi, poll_remove};
use crate::sys;
use libc::ECANCELED;
use soloring_abi::raw;

const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;

fn mask(events: u32) -> Res {
    Res(events as i64)
}

fn closed_while_armed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
    check!(ring.quiet(), "early");
    sys::close(a);
    check!(ring.quiet(), "ended by the close");
    check_eq!(sys::write(b, b"late"), Res(4), "the request keeps the socket open");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (1, Res(4)));
    check_eq!(&buf[..4], b"late");
    // It was the last to hold the socket.
    check_eq!(sys::read(b, &mut [0; 1]), Res(0), "end of file at the peer");
}

fn closed_by_another_thread(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    ring.push(sqe::recv(a, &mut buf, 0).ud(1));
    let me = sys::thread_id();
    let other = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        sys::until_asleep(me);
        sys::close(a);
        std::thread::sleep(std::time::Duration::from_millis(20));
        sys::write(b, b"late")
    });
    check_eq!(ring.enter(1, 1, raw::IORING_ENTER_GETEVENTS), Res(1));
    check_eq!(ring.pop().map(|d| d.res), Some(Res(4)));
    check_eq!(other.join().unwrap(), Res(4));
}

fn number_reused_while_armed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (old, old_peer) = sys::socketpair(libc::SOCK_STREAM);
    let (new, new_peer) = sys::socketpair(libc::SOCK_STREAM);
    let (mut first, mut second) = ([0; 8], [0; 8]);
    ring.submit_all(&[sqe::recv(old, &mut first, 0).ud(1)]);
    check!(ring.quiet(), "early");
    check_eq!(sys::dup2(new, old), Res(old as i64));
    ring.submit_all(&[sqe::recv(old, &mut second, 0).ud(2)]);
    check!(ring.quiet(), "the new file has nothing either");
    sys::write(new_peer, b"new");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (2, Res(3)));
    check!(ring.quiet(), "the old file has nothing");
    sys::write(old_peer, b"older");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (1, Res(5)));
    check_eq!((&first[..5], &second[..3]), (&b"older"[..], &b"new"[..]));
}

fn number_reused_again_and_again(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    let number = sys::dup(sys::eventfd(0, 0));
    let mut peers = Vec::new();
    let mut bufs = vec![[0u8; 8]; 50];
    for (i, buf) in bufs.iter_mut().enumerate() {
        let (a, b) = sys::socketpair(libc::SOCK_STREAM);
        sys::dup2(a, number);
        // Half of the files stay open under another number, too.
        if i % 2 == 0 {
            sys::close(a);
        }
        ring.submit_all(&[sqe::recv(number, buf, 0).ud(i as u64)]);
        peers.push(b);
    }
    check!(ring.quiet(), "early");
    for (i, peer) in peers.iter().enumerate().rev() {
        sys::write(*peer, &[i as u8; 3]);
        let done = ring.wait();
        check_eq!((done.ud, done.res), (i as u64, Res(3)));
        check_eq!(bufs[i][..3], [i as u8; 3], "data of file {i}");
    }
    check!(ring.quiet(), "more than was sent");
}

fn number_goes_back_to_the_first_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, a_peer) = sys::socketpair(libc::SOCK_STREAM);
    let (b, b_peer) = sys::socketpair(libc::SOCK_STREAM);
    let number = sys::dup(a);
    let mut buf = [0; 8];
    for round in 0..3 {
        for (file, peer) in [(a, a_peer), (b, b_peer)] {
            sys::dup2(file, number);
            ring.submit_all(&[sqe::recv(number, &mut buf, 0).ud(round)]);
            check!(ring.quiet(), "early");
            sys::write(peer, b"x");
            check_eq!(ring.wait().res, Res(1), "round {round}");
        }
    }
    sys::dup2(a, number);
    ring.submit_all(&[poll_add(number, IN).ud(9)]);
    sys::write(b_peer, b"x");
    check!(ring.quiet(), "an event of the file that the number does not name");
    sys::write(a_peer, b"x");
    check_eq!(ring.wait().res, mask(IN));
}

fn reused_with_nothing_armed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let mut buf = [0; 8];
    let number = sys::dup(sys::eventfd(0, 0));
    for i in 0..20 {
        let (a, b) = sys::socketpair(libc::SOCK_STREAM);
        if a != number {
            sys::dup2(a, number);
            sys::close(a);
        }
        ring.submit_all(&[sqe::recv(number, &mut buf, 0).ud(i)]);
        check!(ring.quiet(), "early");
        sys::write(b, b"x");
        let done = ring.wait();
        check_eq!((done.ud, done.res), (i, Res(1)));
        if i % 3 == 0 {
            sys::close(number);
            check_eq!(sys::read(b, &mut buf), Res(0), "end of file at the peer");
        }
        sys::close(b);
    }
}

fn peer_sees_the_end_when_the_program_closes(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::tcp_pair();
    let mut buf = [0; 8];
    for _ in 0..3 {
        ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
        check!(ring.quiet(), "early");
        sys::write(b, b"x");
        check_eq!(ring.wait().res, Res(1));
    }
    sys::close(a);
    check_eq!(sys::read(b, &mut buf), Res(0), "end of file at the peer");
}

fn peer_sees_the_end_after_a_cancel(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1), poll_add(a, IN).ud(2)]);
    sys::close(a);
    sys::set_nonblocking(b);
    check_eq!(sys::read(b, &mut buf), err(libc::EAGAIN), "held by two requests");
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(3)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (3, Res(0))]);
    check_eq!(sys::read(b, &mut buf), err(libc::EAGAIN), "held by one");
    ring.submit_all(&[poll_remove(2).ud(3)]);
    check_eq!(ring.results(2), [(2, err(ECANCELED)), (3, Res(0))]);
    check_eq!(sys::read(b, &mut buf), Res(0), "held by none");
}

fn closed_by_an_operation_while_armed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1), sqe::close(a).ud(2)]);
    let done = ring.wait();
    check_eq!((done.ud, done.res), (2, Res(0)), "the close");
    check!(!sys::is_open(a), "closed");
    check!(ring.quiet(), "ended by the close");
    let (c, _d) = sys::socketpair(libc::SOCK_STREAM);
    sys::dup2(c, a);
    sys::write(b, b"late");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (1, Res(4)));
}

fn closed_by_an_operation_of_another_ring(abi: &Abi) {
    let mut waits = Ring::new(abi, 8);
    let mut closes = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    waits.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
    check!(waits.quiet(), "early");
    check_eq!(closes.res(sqe::close(a)), Res(0));
    check!(!sys::is_open(a), "closed");
    sys::write(b, b"late");
    let done = waits.wait();
    check_eq!((done.ud, done.res), (1, Res(4)));
    check_eq!(sys::read(b, &mut buf), Res(0), "end of file at the peer");
}

fn two_thousand_polls_on_one_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 1024);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    for half in [0, 1000] {
        ring.submit_all(&(0..1000).map(|i| poll_add(a, IN).ud(half + i)).collect::<Vec<_>>());
    }
    check!(ring.quiet(), "early");
    sys::write(b, b"x");
    check_eq!(ring.results(2000), (0..2000).map(|i| (i, mask(IN))).collect::<Vec<_>>());
}

fn many_multishot_polls_on_one_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 1024);
    let (r, w) = sys::pipe();
    for half in [0, 700] {
        ring.submit_all(&(0..700).map(|i| poll_multi(r, IN).ud(half + i)).collect::<Vec<_>>());
    }
    check!(ring.quiet(), "early");
    sys::write(w, b"x");
    check_eq!(ring.results(1400), (0..1400).map(|i| (i, mask(IN))).collect::<Vec<_>>());
}

fn readers_of_one_file_take_turns(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    let (a, b) = sys::socketpair(libc::SOCK_DGRAM);
    let mut bufs = vec![[0u8; 8]; 40];
    let numbered = bufs.iter_mut().enumerate();
    let sqes: Vec<_> = numbered.map(|(i, m)| sqe::recv(a, m, 0).ud(i as u64)).collect();
    ring.submit_all(&sqes);
    check!(ring.quiet(), "early");
    for i in 0..20u8 {
        sys::write(b, &[i]);
        check_eq!(ring.wait().res, Res(1), "message {i}");
        check!(ring.quiet(), "one message, one completion");
    }
    for i in 20..40u8 {
        sys::write(b, &[i]);
    }
    check_eq!(ring.results(20).iter().filter(|r| r.1 == Res(1)).count(), 20);
    let mut seen: Vec<u8> = bufs.iter().map(|b| b[0]).collect();
    seen.sort_unstable();
    check_eq!(seen, (0..40).collect::<Vec<u8>>(), "each message once");
}

fn a_multishot_poll_is_not_stirred_by_others(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    sys::fill(a);
    ring.submit_all(&[poll_multi(a, IN).ud(1)]);
    sys::write(b, b"xyz");
    check_eq!(ring.wait().ud, 1);
    // Others come to wait on the same file while there is something to read.
    ring.submit_all(&[sqe::send(a, b"0123456789", 0).ud(2)]);
    ring.submit_all(&[poll_add(a, OUT).ud(3)]);
    check!(ring.quiet(), "no event, a completion");
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(4)]);
    check_eq!(ring.wait().ud, 4);
    sys::write(b, b"x");
    check_eq!(ring.wait().ud, 1, "the next event");
}

fn unregistered_while_armed(abi: &Abi) {
    const FILES: u32 = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    const UNREGISTER: u32 = raw::io_uring_register_op::IORING_UNREGISTER_FILES as u32;
    let mut ring = Ring::new(abi, 8);
    let mut buf = [0; 8];
    for round in 0..3 {
        let (a, b) = sys::socketpair(libc::SOCK_STREAM);
        check_eq!(ring.register(FILES, [a].as_ptr(), 1), Res(0));
        for i in 0..4 {
            ring.submit_all(&[sqe::recv(0, &mut buf, 0).fixed().ud(i)]);
            check!(ring.quiet(), "early");
            sys::write(b, b"x");
            check_eq!(ring.wait().res, Res(1), "round {round}, {i}");
        }
        ring.submit_all(&[sqe::recv(0, &mut buf, 0).fixed().ud(7)]);
        check!(ring.quiet(), "early");
        check_eq!(ring.register(UNREGISTER, std::ptr::null::<u8>(), 0), Res(0));
        sys::close(a);
        sys::write(b, b"late");
        check_eq!(ring.wait().res, Res(4), "held by the request");
        check_eq!(sys::read(b, &mut buf), Res(0), "end of file at the peer");
    }
}

fn two_rings_on_one_file(abi: &Abi) {
    let mut one = Ring::new(abi, 8);
    let mut two = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    one.submit_all(&[poll_add(a, IN).ud(1)]);
    two.submit_all(&[poll_add(a, IN).ud(2)]);
    check!(one.quiet() && two.quiet(), "early");
    sys::close(a);
    sys::write(b, b"x");
    check_eq!(one.wait().res, mask(IN));
    check_eq!(two.wait().res, mask(IN));
    let (c, d) = sys::socketpair(libc::SOCK_STREAM);
    sys::dup2(c, a);
    one.submit_all(&[poll_add(a, IN).ud(3)]);
    check!(one.quiet(), "another file");
    sys::write(d, b"x");
    check_eq!(one.wait().res, mask(IN));
}

fn both_directions_wait_for_their_own(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 4];
    let full = sys::fill(a);
    ring.submit_all(&[sqe::recv(a, &mut buf, 0).ud(1)]);
    ring.submit_all(&[sqe::send(a, b"more", 0).ud(2)]);
    check!(ring.quiet(), "early");
    sys::close(a);
    sys::write(b, b"in");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (1, Res(2)));
    check!(ring.quiet(), "still full");
    let mut all = vec![0; full + 64];
    check!(sys::read(b, &mut all).0 > 0, "room");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (2, Res(4)));
}

family!["held", modes;
    closed_while_armed,
    closed_by_another_thread,
    number_reused_while_armed,
    number_reused_again_and_again,
    number_goes_back_to_the_first_file,
    reused_with_nothing_armed,
    peer_sees_the_end_when_the_program_closes,
    peer_sees_the_end_after_a_cancel,
    closed_by_an_operation_while_armed,
    closed_by_an_operation_of_another_ring,
    two_thousand_polls_on_one_file,
    many_multishot_polls_on_one_file,
    readers_of_one_file_take_turns,
    a_multishot_poll_is_not_stirred_by_others,
    unregistered_while_armed,
    two_rings_on_one_file,
    both_directions_wait_for_their_own,
];
