//! What a caller tries on a ring: one function for each row of the matrix.
//!
//! `before` runs on the ring's creator and makes the action possible; `act` runs on the caller and
//! gives what the call, or the request it made, returned.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, nop};
use crate::sys;
use soloring_abi::{CloneBuffers, GeteventsArg, Opcode, RsrcRegister, Sqe, Timespec};
use soloring_abi::{SyncCancelReg, raw};
use std::time::Duration;

/// One row of the matrix.
pub struct Action {
    pub name: &'static str,
    pub before: fn(&mut Ring<'_>),
    pub act: fn(&mut Ring<'_>) -> Res,
}

/// A completion that should have come has not; no call returns this.
pub const NO_COMPLETION: Res = Res(-5000);

pub const ACTIONS: &[Action] = &[
    Action { name: "enter: submit", before: nothing, act: submit },
    Action { name: "enter: submit and wait", before: nothing, act: submit_and_wait },
    Action { name: "enter: wait, completion there", before: a_completion, act: wait },
    Action { name: "enter: wait, none there", before: nothing, act: wait },
    Action { name: "enter: nothing", before: nothing, act: |r| r.enter(0, 0, 0) },
    Action { name: "register: files", before: nothing, act: files },
    Action { name: "register: files update", before: some_files, act: files_update },
    Action { name: "unregister: files", before: some_files, act: |r| plain(r, UNREG_FILES) },
    Action { name: "register: buffers", before: nothing, act: buffers },
    Action { name: "unregister: buffers", before: some_buffers, act: |r| plain(r, UNREG_BUFFERS) },
    Action { name: "register: eventfd", before: nothing, act: eventfd },
    Action { name: "unregister: eventfd", before: an_eventfd, act: |r| plain(r, UNREG_EVENTFD) },
    Action { name: "register: probe", before: nothing, act: probe },
    Action { name: "register: enable", before: nothing, act: |r| plain(r, ENABLE) },
    Action { name: "register: enable, then submit", before: nothing, act: enable_and_submit },
    Action { name: "register: restrictions", before: nothing, act: restrictions },
    Action { name: "register: iowq affinity", before: nothing, act: iowq_affinity },
    Action { name: "register: iowq max workers", before: nothing, act: max_workers },
    Action { name: "register: ring fds", before: nothing, act: ring_fds },
    Action { name: "unregister: ring fds", before: nothing, act: unregister_ring_fds },
    Action { name: "register: sync cancel", before: nothing, act: sync_cancel },
    Action { name: "register: personality", before: nothing, act: |r| plain(r, PERSONALITY) },
    Action { name: "clone: out of it", before: some_buffers, act: clone_out },
    Action { name: "clone: into it", before: nothing, act: clone_in },
    Action { name: "clone: out, and in again", before: some_buffers, act: clone_round },
    Action { name: "msg_ring: into it, data", before: nothing, act: msg_in },
    Action { name: "msg_ring: into it, flags", before: nothing, act: msg_in_flags },
    Action { name: "msg_ring: into it, file", before: some_files, act: msg_in_file },
    Action { name: "msg_ring: into it, no ring", before: nothing, act: msg_in_without_ring },
    Action { name: "msg_ring: out of it, data", before: nothing, act: msg_out },
    Action { name: "msg_ring: out of it, file", before: some_files, act: msg_out_file },
    Action { name: "close", before: nothing, act: close },
];

use raw::io_uring_register_op as reg;
const BUFFERS: u32 = reg::IORING_REGISTER_BUFFERS as u32;
const UNREG_BUFFERS: u32 = reg::IORING_UNREGISTER_BUFFERS as u32;
const FILES: u32 = reg::IORING_REGISTER_FILES as u32;
const UNREG_FILES: u32 = reg::IORING_UNREGISTER_FILES as u32;
const FILES_UPDATE: u32 = reg::IORING_REGISTER_FILES_UPDATE as u32;
const FILES2: u32 = reg::IORING_REGISTER_FILES2 as u32;
const EVENTFD: u32 = reg::IORING_REGISTER_EVENTFD as u32;
const UNREG_EVENTFD: u32 = reg::IORING_UNREGISTER_EVENTFD as u32;
const PROBE: u32 = reg::IORING_REGISTER_PROBE as u32;
const PERSONALITY: u32 = reg::IORING_REGISTER_PERSONALITY as u32;
const RESTRICTIONS: u32 = reg::IORING_REGISTER_RESTRICTIONS as u32;
const ENABLE: u32 = reg::IORING_REGISTER_ENABLE_RINGS as u32;
const IOWQ_AFF: u32 = reg::IORING_REGISTER_IOWQ_AFF as u32;
const MAX_WORKERS: u32 = reg::IORING_REGISTER_IOWQ_MAX_WORKERS as u32;
const RING_FDS: u32 = reg::IORING_REGISTER_RING_FDS as u32;
const UNREG_RING_FDS: u32 = reg::IORING_UNREGISTER_RING_FDS as u32;
const SYNC_CANCEL: u32 = reg::IORING_REGISTER_SYNC_CANCEL as u32;
const CLONE: u32 = reg::IORING_REGISTER_CLONE_BUFFERS as u32;
const SEND_MSG: u32 = reg::IORING_REGISTER_SEND_MSG_RING as u32;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    resv: u32,
    data: u64,
}

fn nothing(_: &mut Ring<'_>) {}

/// A NOP's completion lies in the ring, if the ring may be entered.
fn a_completion(ring: &mut Ring<'_>) {
    ring.push(nop().ud(1));
    let wakeup = wakeup(ring);
    if !ring.enter(1, 0, wakeup).is_err() {
        while ring.cq_ready() == 0 {
            std::thread::yield_now();
        }
    }
}

/// A table of four files; the first slot is taken.
fn some_files(ring: &mut Ring<'_>) {
    let fds = [sys::eventfd(0, 0), -1, -1, -1];
    assert_eq!(ring.register(FILES, fds.as_ptr(), 4), Res(0));
}

fn some_buffers(ring: &mut Ring<'_>) {
    assert_eq!(buffers(ring), Res(0));
}

fn an_eventfd(ring: &mut Ring<'_>) {
    assert_eq!(eventfd(ring), Res(0));
}

/// A call that takes no argument.
fn plain(ring: &mut Ring<'_>, opcode: u32) -> Res {
    ring.register(opcode, std::ptr::null::<u8>(), 0)
}

fn wakeup(ring: &Ring<'_>) -> u32 {
    match ring.params.flags & raw::IORING_SETUP_SQPOLL {
        0 => 0,
        _ => raw::IORING_ENTER_SQ_WAKEUP,
    }
}

fn submit(ring: &mut Ring<'_>) -> Res {
    ring.push(nop());
    let wakeup = wakeup(ring);
    ring.enter(1, 0, wakeup)
}

fn submit_and_wait(ring: &mut Ring<'_>) -> Res {
    ring.push(nop());
    let wakeup = wakeup(ring);
    wait_in(ring, 1, wakeup, Duration::from_secs(3))
}

fn wait(ring: &mut Ring<'_>) -> Res {
    wait_in(ring, 0, 0, Duration::from_millis(15))
}

/// Submits and waits for one completion.
fn wait_in(ring: &Ring<'_>, to_submit: u32, flags: u32, limit: Duration) -> Res {
    let ts = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos() as i64 };
    let ts = std::ptr::from_ref(&ts) as u64;
    let arg = GeteventsArg { sigmask: 0, sigmask_sz: 0, min_wait_usec: 0, ts };
    let flags = flags | raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG;
    let arg = std::ptr::from_ref(&arg).cast();
    ring.abi.enter_arg(ring.fd, to_submit, 1, flags, arg, size_of::<GeteventsArg>())
}

fn files(ring: &mut Ring<'_>) -> Res {
    let fds = [sys::eventfd(0, 0)];
    ring.register(FILES, fds.as_ptr(), 1)
}

fn files_update(ring: &mut Ring<'_>) -> Res {
    let fds = [sys::eventfd(0, 0)];
    let update = Update { offset: 1, resv: 0, data: fds.as_ptr() as u64 };
    ring.register(FILES_UPDATE, &update, 1)
}

fn buffers(ring: &mut Ring<'_>) -> Res {
    let iov = [sys::iovec(sys::buffer(4096))];
    ring.register(BUFFERS, iov.as_ptr(), 1)
}

fn eventfd(ring: &mut Ring<'_>) -> Res {
    let fd = sys::eventfd(0, 0);
    ring.register(EVENTFD, &fd, 1)
}

fn probe(ring: &mut Ring<'_>) -> Res {
    let room = [0u64; 2 + 64];
    ring.register(PROBE, room.as_ptr(), 64)
}

fn enable_and_submit(ring: &mut Ring<'_>) -> Res {
    let res = plain(ring, ENABLE);
    if res.is_err() { res } else { submit(ring) }
}

/// Allows PROBE and ENABLE_RINGS.
fn restrictions(ring: &mut Ring<'_>) -> Res {
    // `struct io_uring_restriction`: opcode (16 bits), what it restricts, reserved.
    let allow = |op: u32| [(op as u64) << 16, 0];
    let list = [allow(PROBE), allow(ENABLE)];
    ring.register(RESTRICTIONS, list.as_ptr(), 2)
}

fn iowq_affinity(ring: &mut Ring<'_>) -> Res {
    let mask = 1u64;
    ring.register(IOWQ_AFF, &mask, 8)
}

fn max_workers(ring: &mut Ring<'_>) -> Res {
    let limits = [0u32; 2];
    ring.register(MAX_WORKERS, limits.as_ptr(), 2)
}

fn ring_fds(ring: &mut Ring<'_>) -> Res {
    let update = Update { offset: u32::MAX, resv: 0, data: ring.fd as u64 };
    ring.register(RING_FDS, &update, 1)
}

fn unregister_ring_fds(ring: &mut Ring<'_>) -> Res {
    let update = Update { offset: 0, resv: 0, data: 0 };
    ring.register(UNREG_RING_FDS, &update, 1)
}

fn sync_cancel(ring: &mut Ring<'_>) -> Res {
    let forever = raw::__kernel_timespec { tv_sec: -1, tv_nsec: -1 };
    let arg = SyncCancelReg {
        addr: 12345,
        fd: -1,
        flags: 0,
        timeout: forever,
        opcode: 0,
        pad: [0; 7],
        pad2: [0; 3],
    };
    ring.register(SYNC_CANCEL, &arg, 1)
}

/// A ring of the caller's own, with nothing special about it.
fn own<'a>(abi: &'a Abi) -> Ring<'a> {
    Ring::build(abi, 4, params(0))
}

fn clone(to: &Ring<'_>, from: &Ring<'_>, flags: u32) -> Res {
    let arg =
        CloneBuffers { src_fd: from.fd as u32, flags, src_off: 0, dst_off: 0, nr: 0, pad: [0; 3] };
    to.register(CLONE, &arg, 1)
}

fn clone_out(ring: &mut Ring<'_>) -> Res {
    clone(&own(ring.abi), ring, 0)
}

fn clone_in(ring: &mut Ring<'_>) -> Res {
    let mut from = own(ring.abi);
    assert_eq!(buffers(&mut from), Res(0));
    clone(ring, &from, 0)
}

/// Both directions; the second replaces what is there.
fn clone_round(ring: &mut Ring<'_>) -> Res {
    let own = own(ring.abi);
    let out = clone(&own, ring, 0);
    if out.is_err() { out } else { clone(ring, &own, raw::IORING_REGISTER_DST_REPLACE as u32) }
}

/// The completion of one request submitted to `ring`, or what submitting it gave.
fn result_of(ring: &mut Ring<'_>, sqe: Sqe) -> Res {
    const MINE: u64 = 0x5151;
    ring.push(sqe.ud(MINE));
    let wakeup = wakeup(ring);
    let res = ring.enter(1, 0, wakeup);
    if res != Res(1) {
        return res;
    }
    match ring.wait_within(Duration::from_secs(2)) {
        Some(done) if done.ud == MINE => done.res,
        Some(done) => panic!("a completion of nobody's: {done:?}"),
        None => NO_COMPLETION,
    }
}

/// MSG_RING with data to the ring `to`.
fn message(to: &Ring<'_>) -> Sqe {
    sqe::op(Opcode::MsgRing, to.fd, raw::io_uring_msg_ring_flags::IORING_MSG_DATA as u64, 17, 99)
}

/// MSG_RING with the file of slot 0 for slot 2 of `to`.
fn message_file(to: &Ring<'_>) -> Sqe {
    let what = raw::io_uring_msg_ring_flags::IORING_MSG_SEND_FD as u64;
    sqe::op(Opcode::MsgRing, to.fd, what, 0, 99).with(|s| {
        s.addr3 = 0;
        s.file_index = 3;
    })
}

fn msg_in(ring: &mut Ring<'_>) -> Res {
    result_of(&mut own(ring.abi), message(ring))
}

fn msg_in_flags(ring: &mut Ring<'_>) -> Res {
    let sqe = message(ring).with(|s| {
        s.op_flags = raw::IORING_MSG_RING_FLAGS_PASS;
        s.file_index = 1 << 20;
    });
    result_of(&mut own(ring.abi), sqe)
}

fn msg_in_file(ring: &mut Ring<'_>) -> Res {
    let mut from = own(ring.abi);
    some_files(&mut from);
    result_of(&mut from, message_file(ring))
}

fn msg_in_without_ring(ring: &mut Ring<'_>) -> Res {
    ring.abi.register(-1, SEND_MSG, &message(ring), 1)
}

fn msg_out(ring: &mut Ring<'_>) -> Res {
    let to = own(ring.abi);
    let res = result_of(ring, message(&to));
    if res == Res(0) && to.wait_within(Duration::from_secs(2)).map(|d| d.ud) != Some(99) {
        return NO_COMPLETION;
    }
    res
}

fn msg_out_file(ring: &mut Ring<'_>) -> Res {
    let to = own(ring.abi);
    let table =
        RsrcRegister { nr: 4, flags: raw::IORING_RSRC_REGISTER_SPARSE, resv2: 0, data: 0, tags: 0 };
    let res = to.register(FILES2, &table, size_of::<RsrcRegister>() as u32);
    assert_eq!(res, Res(0));
    result_of(ring, message_file(&to))
}

fn close(ring: &mut Ring<'_>) -> Res {
    let res = ring.abi.close(ring.fd);
    if res.is_err() {
        return res;
    }
    match ring.enter(0, 0, 0) {
        bad if bad == err(libc::EBADF) => Res(0),
        other => panic!("closed, and yet enter gives {other}"),
    }
}
