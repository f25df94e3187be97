//! MSG_RING: completions and files for another ring, and the call that needs no ring to send from.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, CURRENT, SqeExt, nop};
use crate::sys;
use libc::{EBADF, EBADFD, EFAULT, EINVAL, ENFILE, ENXIO};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};
use std::time::Duration;

const FILES: u32 = reg::IORING_REGISTER_FILES as u32;
const FILES_UPDATE: u32 = reg::IORING_REGISTER_FILES_UPDATE as u32;
const EVENTFD: u32 = reg::IORING_REGISTER_EVENTFD as u32;
const ENABLE: u32 = reg::IORING_REGISTER_ENABLE_RINGS as u32;
const SYNC_MSG: u32 = reg::IORING_REGISTER_SEND_MSG_RING as u32;
const SKIP: u32 = raw::IORING_MSG_RING_CQE_SKIP;
const PASS: u32 = raw::IORING_MSG_RING_FLAGS_PASS;
const ALLOC: u32 = raw::IORING_FILE_INDEX_ALLOC as u32;
const SINGLE: u32 = raw::IORING_SETUP_SINGLE_ISSUER;
const DEFER: u32 = SINGLE | raw::IORING_SETUP_DEFER_TASKRUN;
const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const NULL: *const u8 = std::ptr::null();

fn data(to: i32, res: u32, user_data: u64) -> Sqe {
    sqe::op(Opcode::MsgRing, to, 0, res, user_data)
}

/// Sends slot `from` of the sender's table to `slot_plus_one` of the target's.
fn send_fd(to: i32, from: u32, slot_plus_one: u32, user_data: u64) -> Sqe {
    sqe::op(Opcode::MsgRing, to, 1, 0, user_data).with(|s| {
        s.addr3 = from as u64;
        s.file_index = slot_plus_one;
    })
}

fn target<'a>(abi: &'a Abi, flags: u32) -> Ring<'a> {
    Ring::build(abi, 8, params(flags))
}

fn a_message_to_another_ring(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    for flags in [0, SINGLE, DEFER, raw::IORING_SETUP_COOP_TASKRUN, raw::IORING_SETUP_IOPOLL] {
        let to = target(abi, flags);
        let done = from.run(data(to.fd, 0x1234, 77).ud(1));
        check_eq!((done.ud, done.res), (1, Res(0)), "flags {flags:#x}");
        let got = to.wait();
        check_eq!((got.ud, got.res, got.flags), (77, Res(0x1234), 0), "flags {flags:#x}");
        check_eq!(to.cq_ready(), 0, "nothing more");
    }
    check!(from.quiet(), "nothing more");
}

fn a_message_to_itself(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.submit_all(&[data(ring.fd, 5, 77).ud(1)]);
    check_eq!(ring.results(2), vec![(1, Res(0)), (77, Res(5))]);
    ring.submit_all(&[data(ring.fd, u32::MAX, 78).skip()]);
    let got = ring.wait();
    check_eq!((got.ud, got.res), (78, Res(-1)), "a negative result, and no completion of its own");
    check!(ring.quiet(), "nothing more");
}

fn it_is_there_when_the_sender_knows(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    for flags in [0, SINGLE, raw::IORING_SETUP_COOP_TASKRUN] {
        let to = target(abi, flags);
        check_eq!(from.res(data(to.fd, 1, 2)), Res(0));
        check_eq!(to.cq_ready(), 1, "flags {flags:#x}");
    }
    let to = target(abi, DEFER | raw::IORING_SETUP_TASKRUN_FLAG);
    check_eq!(from.res(data(to.fd, 1, 2)), Res(0));
    check_eq!(to.cq_ready(), 0, "it is task work");
    check_eq!(to.sq_flags() & raw::IORING_SQ_TASKRUN, raw::IORING_SQ_TASKRUN);
    check_eq!(to.enter(0, 0, raw::IORING_ENTER_GETEVENTS), Res(0));
    check_eq!(to.cq_ready(), 1);
    check_eq!(to.sq_flags() & raw::IORING_SQ_TASKRUN, 0);
}

fn flags_are_passed_when_asked(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    let to = target(abi, 0);
    let pass = |flags: u32| {
        data(to.fd, 1, 2).with(|s| {
            s.op_flags = PASS;
            s.file_index = flags;
        })
    };
    check_eq!(from.res(pass(0x1234)), Res(0));
    check_eq!(to.wait().flags, 0x1234);
    check_eq!(from.res(pass(u32::MAX)), Res(0));
    check_eq!(to.wait().flags, u32::MAX);
    check_eq!(from.res(data(to.fd, 1, 2).with(|s| s.file_index = 1)), err(EINVAL), "not asked");
    check!(to.quiet(), "nothing more");
}

fn bad_targets(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _) = sys::pipe();
    check_eq!(ring.res(data(r, 1, 2)), err(EBADFD), "a pipe");
    check_eq!(ring.res(data(-1, 1, 2)), err(EBADF), "-1");
    check_eq!(ring.res(data(sys::unused_fd(), 1, 2)), err(EBADF), "closed");
    check_eq!(ring.register(FILES, [r, -1].as_ptr(), 2), Res(0));
    check_eq!(ring.res(data(0, 1, 2).fixed()), err(EBADFD), "a registered pipe");
    check_eq!(ring.res(data(1, 1, 2).fixed()), err(EBADF), "an empty slot");
    check_eq!(ring.res(send_fd(r, 0, 1, 2)), err(EBADFD), "a file for a pipe");
}

fn bad_entries(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let to = target(abi, 0);
    let good = data(to.fd, 1, 2);
    check_eq!(ring.res(good.with(|s| s.addr = 2)), err(EINVAL), "command");
    check_eq!(ring.res(good.with(|s| s.addr3 = 1)), err(EINVAL), "addr3");
    check_eq!(ring.res(good.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(good.with(|s| s.personality = 1)), err(EINVAL), "personality");
    check_eq!(ring.res(good.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ring.res(good.with(|s| s.op_flags = 4)), err(EINVAL), "flags");
    check_eq!(ring.res(good.with(|s| s.op_flags = SKIP)), err(EINVAL), "CQE_SKIP on data");
    check_eq!(ring.res(good.flag(soloring_abi::sqe_flags::BUFFER_SELECT)), err(libc::EOPNOTSUPP));
    check_eq!(ring.res(good.with(|s| s.pad2 = 1)), Res(0), "pad2 is not looked at");
    check_eq!(ring.res(good.forced_async()), Res(0), "IOSQE_ASYNC");
    check_eq!(to.results(2).len(), 2);
    check!(to.quiet(), "nothing more");
}

fn disabled_targets(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _) = sys::pipe();
    check_eq!(ring.register(FILES, [r].as_ptr(), 1), Res(0));
    for flags in [0, SINGLE, DEFER] {
        let to = target(abi, flags | raw::IORING_SETUP_R_DISABLED);
        check_eq!(to.register(FILES, [-1].as_ptr(), 1), Res(0));
        check_eq!(ring.res(data(to.fd, 1, 2)), err(EBADFD), "{flags:#x}");
        check_eq!(ring.res(send_fd(to.fd, 0, 1, 2)), err(EBADFD), "{flags:#x} file");
        check_eq!(to.register(ENABLE, NULL, 0), Res(0));
        check_eq!(ring.res(data(to.fd, 1, 2)), Res(0), "{flags:#x} enabled");
        check_eq!(to.wait().ud, 2);
    }
}

fn messages_keep_their_order(abi: &Abi) {
    let mut from = Ring::new(abi, 64);
    for flags in [0, DEFER] {
        let to = Ring::build(abi, 64, params(flags));
        for i in 0..100 {
            let one = |k| data(to.fd, 0, i * 10 + k).skip();
            from.submit_all(&(0..10).map(one).collect::<Vec<_>>());
            for k in 0..10 {
                check_eq!(to.wait().ud, i * 10 + k);
            }
        }
    }
    check!(from.quiet(), "nothing more");
}

fn a_full_target_overflows(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    let to = Ring::build(abi, 1, params(0));
    for i in 0..6 {
        check_eq!(from.res(data(to.fd, i, i as u64)), Res(0), "message {i}");
    }
    check_eq!(to.cq_ready(), 2);
    check!(to.sq_flags() & raw::IORING_SQ_CQ_OVERFLOW != 0, "overflow");
    for i in 0..6 {
        check_eq!(to.wait().ud, i);
    }
}

fn a_message_wakes_a_waiter(abi: &Abi) {
    for flags in [0, SINGLE, DEFER] {
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::scope(|s| {
            s.spawn(move || {
                let to = target(abi, flags);
                tx.send(to.fd).expect("the sender waits for this");
                let got = to.wait();
                check_eq!((got.ud, got.res), (42, Res(7)), "flags {flags:#x}");
            });
            let fd = rx.recv().expect("the target sends its descriptor");
            std::thread::sleep(Duration::from_millis(30));
            let mut from = Ring::new(abi, 8);
            check_eq!(from.res(data(fd, 7, 42)), Res(0));
        });
    }
}

fn many_senders(abi: &Abi) {
    const SENDERS: u64 = 3;
    const EACH: u64 = 400;
    for flags in [0, DEFER] {
        let to = Ring::build(abi, 256, params(flags));
        let fd = to.fd;
        std::thread::scope(|s| {
            for sender in 0..SENDERS {
                s.spawn(move || {
                    let mut from = Ring::new(abi, 8);
                    for i in 0..EACH {
                        check_eq!(from.res(data(fd, i as u32, sender)), Res(0));
                    }
                });
            }
            let mut next = [0; SENDERS as usize];
            for _ in 0..SENDERS * EACH {
                let got = to.wait();
                check_eq!(got.res, Res(next[got.ud as usize]), "order of sender {}", got.ud);
                next[got.ud as usize] = got.res.0 + 1;
            }
        });
        check!(to.quiet(), "nothing more");
    }
}

fn rings_send_to_each_other(abi: &Abi) {
    const EACH: u32 = 500;
    let (tx, rx) = (std::sync::Mutex::new(Vec::new()), std::sync::Barrier::new(2));
    std::thread::scope(|s| {
        for me in 0..2 {
            let (fds, both) = (&tx, &rx);
            s.spawn(move || {
                let mut ring = Ring::build(abi, 1024, params(abi.mode_flags));
                fds.lock().expect("no panic before this").push((me, ring.fd));
                both.wait();
                let peer = *fds.lock().expect("as above").iter().find(|f| f.0 != me).expect("two");
                for i in 0..EACH {
                    ring.submit_all(&[data(peer.1, i, 1).skip()]);
                }
                for i in 0..EACH {
                    check_eq!(ring.wait().res, Res(i as i64));
                }
                both.wait();
            });
        }
    });
}

fn an_eventfd_of_the_target_is_signalled(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    for flags in [0, DEFER] {
        let to = target(abi, flags);
        let fd = sys::eventfd(0, libc::EFD_NONBLOCK);
        check_eq!(to.register(EVENTFD, &fd, 1), Res(0));
        check_eq!(from.res(data(to.fd, 1, 2)), Res(0));
        check_eq!(sys::eventfd_count(fd), 1, "flags {flags:#x}");
        check_eq!(abi.poll(to.fd, libc::POLLIN, 0), Res(1), "the ring is readable");
        check_eq!(to.wait().ud, 2);
    }
}

fn a_file_for_a_slot(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    check_eq!(from.register(FILES, [r, w].as_ptr(), 2), Res(0));
    for flags in [0, SINGLE, DEFER] {
        let mut to = target(abi, flags);
        check_eq!(to.register(FILES, [-1, -1, -1].as_ptr(), 3), Res(0));
        from.push(send_fd(to.fd, 1, 2, 99).ud(5));
        check_eq!(from.submit(), Res(1));
        let got = to.wait();
        check_eq!((got.ud, got.res, got.flags), (99, Res(0), 0), "flags {flags:#x}");
        let done = from.wait();
        check_eq!((done.ud, done.res), (5, Res(0)));
        check_eq!(to.res(sqe::write(1, b"x", CURRENT).fixed()), Res(1), "slot 1 has the pipe");
        check_eq!(sys::read(r, &mut [0; 4]), Res(1));
        from.push(send_fd(to.fd, 1, ALLOC, 98).ud(6));
        check_eq!(from.submit(), Res(1));
        check_eq!(to.wait().res, Res(2), "the next slot after the last one filled");
        check_eq!(from.wait().res, Res(2));
        from.push(send_fd(to.fd, 1, 1, 97).with(|s| s.op_flags = SKIP));
        check_eq!(from.submit(), Res(1));
        check!(to.quiet(), "no completion there");
        check_eq!(from.wait().res, Res(0));
        check_eq!(to.res(sqe::write(0, b"x", CURRENT).fixed()), Res(1));
        check_eq!(sys::read(r, &mut [0; 4]), Res(1));
    }
}

/// The target's number names a slot then, and rings are not in the table.
fn targets_by_slot(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 4);
    let to = target(abi, 0);
    let files = [sys::eventfd(0, 0)];
    check_eq!(ring.register(FILES_UPDATE, [1, files.as_ptr() as u64].as_ptr(), 1), Res(1));
    for forced in [false, true] {
        let by = |slot: i32, sqe: Sqe| {
            let sqe = sqe.with(|s| (s.fd, s.flags) = (slot, s.flags | sqe_flags::FIXED_FILE));
            if forced { sqe.forced_async() } else { sqe }
        };
        for (slot, want) in [(0, EBADF), (1, EBADFD), (4, EBADF), (-1, EBADF), (to.fd, EBADF)] {
            for (what, sqe) in [
                ("data", data(to.fd, 5, 7)),
                ("a file", send_fd(to.fd, 1, 1, 7)),
                ("no command", data(to.fd, 5, 7).with(|s| s.addr = 9)),
            ] {
                let got = ring.res(by(slot, sqe));
                check_eq!(got, err(want), "{what} to slot {slot}, forced: {forced}");
            }
        }
    }
}

fn bad_files(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    let to = target(abi, 0);
    check_eq!(from.res(send_fd(to.fd, 0, 1, 2)), err(EBADF), "no table here");
    let (_, w) = sys::pipe();
    check_eq!(from.register(FILES, [w, -1].as_ptr(), 2), Res(0));
    check_eq!(from.res(send_fd(to.fd, 0, 1, 2)), err(ENXIO), "no table there");
    check_eq!(from.res(send_fd(to.fd, 0, ALLOC, 2)), err(ENFILE), "no table there, any slot");
    check_eq!(to.register(FILES, [-1, w].as_ptr(), 2), Res(0));
    check_eq!(from.res(send_fd(to.fd, 1, 1, 2)), err(EBADF), "an empty slot");
    check_eq!(from.res(send_fd(to.fd, 2, 1, 2)), err(EBADF), "beyond the table");
    check_eq!(from.res(send_fd(to.fd, 0, 0, 2)), err(EINVAL), "no slot");
    check_eq!(from.res(send_fd(to.fd, 0, 3, 2)), err(EINVAL), "beyond its table");
    check_eq!(from.res(send_fd(from.fd, 0, 1, 2)), err(EINVAL), "to itself");
    check_eq!(from.res(send_fd(to.fd, 0, 1, 2).with(|s| s.len = 1)), err(EINVAL), "len");
    check_eq!(from.res(send_fd(to.fd, 0, 1, 2).with(|s| s.op_flags = PASS)), Res(0), "FLAGS_PASS");
    check_eq!(to.wait().ud, 2);
    check_eq!(from.res(send_fd(to.fd, 0, ALLOC, 2)), err(ENFILE), "its table is full");
    check!(to.quiet(), "nothing more");
}

fn a_message_in_a_chain(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    let to = target(abi, 0);
    from.submit_all(&[nop().ud(1).link(), data(to.fd, 1, 2).ud(2).link(), nop().ud(3)]);
    check_eq!(from.results(3), vec![(1, Res(0)), (2, Res(0)), (3, Res(0))]);
    check_eq!(to.wait().ud, 2);
    from.submit_all(&[data(-1, 1, 2).ud(2).link(), nop().ud(3)]);
    check_eq!(from.results(2), vec![(2, err(EBADF)), (3, err(libc::ECANCELED))]);
}

fn sync_messages(abi: &Abi) {
    let send = |sqe: &Sqe| abi.register(-1, SYNC_MSG, sqe, 1);
    for flags in [0, SINGLE, DEFER] {
        let to = target(abi, flags);
        check_eq!(send(&data(to.fd, 3, 4)), Res(0), "flags {flags:#x}");
        let got = to.wait();
        check_eq!((got.ud, got.res), (4, Res(3)));
    }
    let to = target(abi, 0);
    let good = data(to.fd, 3, 4);
    check_eq!(abi.register(-1, SYNC_MSG, &good, 0), err(EINVAL), "nr_args");
    check_eq!(abi.register(-1, SYNC_MSG, NULL, 1), err(EINVAL), "null");
    check_eq!(abi.register(-1, SYNC_MSG, sys::BAD, 1), err(EFAULT), "bad pointer");
    check_eq!(to.register(SYNC_MSG, &good, 1), err(EINVAL), "on a ring");
    check_eq!(send(&good.skip()), err(EINVAL), "flags of the entry");
    check_eq!(send(&good.with(|s| s.opcode = 0)), err(EINVAL), "opcode");
    check_eq!(send(&good.with(|s| s.addr = 1)), err(EINVAL), "a file");
    check_eq!(send(&good.with(|s| s.fd = -1)), err(EBADF), "-1");
    check_eq!(send(&good.with(|s| s.fd = sys::pipe().0)), err(EBADFD), "a pipe");
    check_eq!(send(&good.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check!(to.quiet(), "nothing more");
    let to = target(abi, raw::IORING_SETUP_R_DISABLED);
    check_eq!(send(&data(to.fd, 3, 4)), err(EBADFD), "disabled");
}

/// A child that has not used the inherited ring otherwise does not know how far its parent has got.
fn a_child_sends_to_the_ring_of_its_parent(abi: &Abi) {
    for (flags, sync) in [(0, false), (0, true), (DEFER, false), (DEFER, true)] {
        let mut to = target(abi, flags);
        let (r, w) = sys::pipe();
        let child = sys::spawn_child(20, || {
            sys::read(r, &mut [0]);
            let message = data(to.fd, 5, 77);
            let mut from = Ring::build(abi, 4, params(0));
            let sent = match sync {
                true => abi.register(-1, SYNC_MSG, &message, 1),
                false => from.res(message),
            };
            i32::from(sent != Res(0))
        });
        to.submit_all(&[nop().ud(1), nop().ud(2), nop().ud(3)]);
        sys::write(w, b"x");
        let got: Vec<_> = to.wait_n(4).iter().map(|d| (d.ud, d.res)).collect();
        check_eq!(
            got,
            [(1, Res(0)), (2, Res(0)), (3, Res(0)), (77, Res(5))],
            "flags {flags:#x}, sync {sync}"
        );
        check_eq!(sys::wait_child(child), 0, "what the child was told");
        check_eq!(to.run(nop().ud(4)).ud, 4, "and the ring goes on");
    }
}

/// Two processes post to one ring at the same time.
fn a_child_sends_while_its_parent_submits(abi: &Abi) {
    const EACH: u64 = 6000;
    // Room for all: what does not fit stays, here, with the process that posts it.
    let mut p = params(raw::IORING_SETUP_CQSIZE);
    p.cq_entries = 2 * EACH as u32;
    let mut to = Ring::build(abi, 64, p);
    let child = sys::spawn_child(50, || {
        let mut from = Ring::build(abi, 16, params(0));
        let sent = (0..EACH).all(|i| from.res(data(to.fd, 1, 1 << 32 | i)) == Res(0));
        i32::from(!sent)
    });
    let (mut pushed, mut own, mut theirs) = (0, 0, 0);
    while own < EACH || theirs < EACH {
        // No faster than the child, so that the two meet.
        if pushed == own && pushed < EACH && pushed < theirs + 64 {
            let batch: Vec<Sqe> = (pushed..EACH.min(pushed + 16)).map(|i| nop().ud(i)).collect();
            to.push_all(&batch);
            check_eq!(to.enter(batch.len() as u32, 0, GETEVENTS), Res(batch.len() as i64), "all");
            pushed += batch.len() as u64;
        }
        let done = to.wait();
        let is_own = done.ud >> 32 == 0;
        let next = if is_own { &mut own } else { &mut theirs };
        check_eq!(done.ud, if is_own { *next } else { 1 << 32 | *next }, "once, and in order");
        *next += 1;
    }
    check_eq!((own, theirs), (EACH, EACH));
    check_eq!(sys::wait_child(child), 0, "what the child was told");
}

family!["msg", modes;
    a_message_to_another_ring,
    a_message_to_itself,
    it_is_there_when_the_sender_knows,
    flags_are_passed_when_asked,
    bad_targets,
    bad_entries,
    disabled_targets,
    messages_keep_their_order,
    a_full_target_overflows,
    a_message_wakes_a_waiter,
    many_senders,
    rings_send_to_each_other,
    an_eventfd_of_the_target_is_signalled,
    a_file_for_a_slot,
    targets_by_slot,
    bad_files,
    a_message_in_a_chain,
    sync_messages,
    a_child_sends_to_the_ring_of_its_parent,
    a_child_sends_while_its_parent_submits,
];
