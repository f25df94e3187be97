//! Garbage: entries of random fields, and shared words overwritten while the ring is in use.
//!
//! Random entries name only harmless things: descriptors that the case made, paths in a directory of
//! its own, and addresses that are either its own buffers (with a guard page behind) or nobody's.

use crate::backend::{Abi, Kernel};
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::runner;
use crate::sqe::{self, SqeExt, nop};
use crate::sys;
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, Sqe, Timespec, raw, sqe_flags};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;

/// What one side's entries may name. Both sides get the same things in the same order.
struct World {
    fds: Vec<i32>,
    addresses: Vec<u64>,
    /// Pages that entries may name, each with a guard page behind.
    scratch: &'static mut [u8],
    vectors: &'static mut [u8],
    message: &'static mut [u8],
    text: &'static mut [u8],
    path: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = sys::tempdir();
        let (r, w) = sys::pipe();
        sys::write(w, b"some data in a pipe");
        let (a, b) = sys::socketpair(libc::SOCK_STREAM);
        sys::write(b, b"some data in a socket");
        let fds = vec![
            -1,
            sys::unused_fd(),
            sys::file_with(b"a file's contents"),
            sys::open("/dev/null", libc::O_RDWR),
            r,
            w,
            a,
            sys::eventfd(0, 0),
            sys::open(dir.path().to_str().unwrap(), libc::O_DIRECTORY),
        ];
        let [scratch, vectors, message, text] = [(); 4].map(|()| sys::guarded_page());
        let at = |page: &[u8]| page.as_ptr() as u64;
        let addresses = vec![
            0,
            1,
            at(scratch),
            at(scratch) + 4000,
            at(scratch) + 4095,
            at(vectors),
            at(vectors) + 8,
            at(message),
            at(text),
            sys::forbidden_page(),
            sys::read_only_page(),
            NOBODYS,
        ];
        let path = sys::c(dir.path().join("file")).into_bytes_with_nul();
        let mut world = World { fds, addresses, scratch, vectors, message, text, path, _dir: dir };
        world.refresh();
        world
    }

    /// Gives the pages their contents again: what an entry finds does not depend on earlier ones.
    fn refresh(&mut self) {
        let at = self.scratch.as_ptr() as u64;
        for page in [&mut self.scratch, &mut self.vectors, &mut self.message, &mut self.text] {
            page.fill(0);
        }
        let mut put = |page: &mut [u8], words: &[u64]| {
            for (place, word) in page.chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
        };
        // A short timespec, also a vector that nothing is at.
        put(self.scratch, &[0, 1000]);
        put(self.vectors, &[at, 8, at + 100, 8, at + 200, 8]);
        let vectors = self.vectors.as_ptr() as u64;
        put(self.message, &[0, 0, vectors, 2]);
        self.text[..self.path.len()].copy_from_slice(&self.path);
    }

    /// An entry in words, the same on both sides.
    fn describe(&self, sqe: &Sqe) -> String {
        let names =
            ["-1", "unused", "file", "null", "pipe r", "pipe w", "socket", "eventfd", "dir"];
        let fd = self.fds.iter().position(|fd| *fd == sqe.fd).map_or("?", |i| names[i]);
        let place = |address: u64| {
            let names = [
                "null",
                "1",
                "scratch",
                "scratch+4000",
                "scratch+4095",
                "vectors",
                "vectors+8",
                "message",
                "path",
                "forbidden",
                "read-only",
                "kernel",
            ];
            let known = self.addresses[2..].iter().position(|a| *a == address);
            known.map_or(format!("{address:#x}"), |i| names[i + 2].to_string())
        };
        let opcode = Opcode::from_raw(sqe.opcode).map_or("?", Opcode::name);
        let (off, addr) = (place(sqe.off), place(sqe.addr));
        let rest = [
            ("flags", sqe.flags as u64),
            ("ioprio", sqe.ioprio as u64),
            ("op_flags", sqe.op_flags as u64),
            ("buf_index", sqe.buf_index as u64),
            ("personality", sqe.personality as u64),
            ("file_index", sqe.file_index as u64),
            ("addr3", sqe.addr3),
        ];
        let mut text = format!("{opcode} fd={fd} off={off} addr={addr} len={:#x}", sqe.len);
        for (name, value) in rest.iter().filter(|(_, value)| *value != 0) {
            text.push_str(&format!(" {name}={value:#x}"));
        }
        text
    }

    fn close(self) {
        for fd in self.fds.iter().filter(|fd| sys::is_open(**fd)) {
            sys::close(*fd);
        }
    }
}

/// An address of the kernel's half.
const NOBODYS: u64 = 0xffff_8000_0000_0000;

/// Numbers that tend to matter.
const NUMBERS: &[u64] = &[
    0,
    0,
    0,
    0,
    1,
    2,
    3,
    4,
    8,
    16,
    24,
    32,
    64,
    128,
    4096,
    1 << 15,
    1 << 16,
    1 << 20,
    1 << 30,
    1 << 31,
    0xffff_ffff,
    1 << 32,
    1 << 62,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Operations whose results are compared, and how the entry names things.
const COMPARED: &[Opcode] = &[
    Opcode::Nop,
    Opcode::Readv,
    Opcode::Writev,
    Opcode::Fsync,
    Opcode::ReadFixed,
    Opcode::WriteFixed,
    Opcode::PollAdd,
    Opcode::PollRemove,
    Opcode::Sendmsg,
    Opcode::Recvmsg,
    Opcode::Timeout,
    Opcode::TimeoutRemove,
    Opcode::Accept,
    Opcode::AsyncCancel,
    Opcode::LinkTimeout,
    Opcode::Connect,
    Opcode::Openat,
    Opcode::Close,
    Opcode::Statx,
    Opcode::Read,
    Opcode::Write,
    Opcode::Send,
    Opcode::Recv,
    Opcode::Openat2,
    Opcode::Shutdown,
    Opcode::Socket,
    Opcode::Bind,
    Opcode::Listen,
];

/// An entry by random choice: mostly small and plausible, with a few fields gone wild.
fn entry(rng: &mut fastrand::Rng, world: &World, opcode: u8) -> Sqe {
    let number = |rng: &mut fastrand::Rng| NUMBERS[rng.usize(..NUMBERS.len())];
    let address = |rng: &mut fastrand::Rng| world.addresses[rng.usize(..world.addresses.len())];
    let mut sqe = Sqe {
        opcode,
        fd: world.fds[rng.usize(..world.fds.len())],
        addr: address(rng),
        len: [0, 1, 4, 16, 24, 4096][rng.usize(..6)],
        user_data: 1,
        ..Sqe::default()
    };
    for _ in 0..rng.usize(..4) {
        match rng.usize(..9) {
            0 => sqe.flags = 1 << rng.u8(..8),
            1 => sqe.ioprio = number(rng) as u16,
            2 => sqe.off = if rng.bool() { number(rng) } else { address(rng) },
            3 => sqe.len = number(rng) as u32,
            4 => sqe.op_flags = if rng.bool() { number(rng) as u32 } else { 1 << rng.u8(..32) },
            5 => sqe.buf_index = number(rng) as u16,
            6 => sqe.personality = number(rng) as u16,
            7 => sqe.file_index = number(rng) as u32,
            _ => sqe.addr3 = number(rng),
        }
    }
    sqe
}

/// How a request ended, as far as two sides must agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Success,
    Failure(Res),
    /// It waited, and the cancellation ended it (or it was asked to post nothing).
    Waited,
}

/// Runs one entry to its end: waits a little, then cancels whatever is in flight.
fn outcome(ring: &mut Ring, sqe: Sqe) -> Outcome {
    ring.push(sqe);
    ring.submit();
    let mut first = None;
    let mut limit = Duration::from_millis(15);
    for round in 0..2 {
        while let Some(done) = ring.wait_within(limit) {
            if done.ud == sqe.user_data && first.is_none() {
                first = Some(done);
            }
            discard(sqe, done.res);
            if round == 0 && done.ud == sqe.user_data && !done.more() {
                break;
            }
        }
        if round == 0 {
            if first.is_some_and(|d| !d.more()) {
                break;
            }
            let any = raw::IORING_ASYNC_CANCEL_ANY;
            ring.submit_all(&[sqe::cancel(0, -1, any).ud(2)]);
            limit = Duration::from_millis(30);
        }
    }
    match first.map(|d| d.res) {
        None => Outcome::Waited,
        Some(res) if res.0 >= 0 => Outcome::Success,
        Some(Res(-512)) => Outcome::Waited,
        Some(res) if [err(libc::ECANCELED), err(libc::EINTR)].contains(&res) => Outcome::Waited,
        Some(res) => Outcome::Failure(res),
    }
}

/// Closes a descriptor that a successful request made.
fn discard(sqe: Sqe, res: Res) {
    let makes = [Opcode::Openat, Opcode::Openat2, Opcode::Socket, Opcode::Accept];
    let makes = makes.iter().any(|o| *o as u8 == sqe.opcode);
    if makes && res.0 > 2 && sqe.file_index == 0 {
        sys::close(res.0 as i32);
    }
}

/// The outcomes of a seed's entries on one side.
fn outcomes(abi: &Abi, seed: u64, count: usize) -> Vec<(String, Outcome)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    while all.len() < count {
        // Everything is made anew from time to time, so that one odd entry does not set the tone.
        let mut world = World::new();
        let mut ring = Ring::new(abi, 8);
        let buffer = libc::iovec { iov_base: world.addresses[2] as *mut _, iov_len: 4096 };
        ring.register(reg::IORING_REGISTER_BUFFERS as u32, &buffer, 1);
        let files = [world.fds[2], world.fds[4], -1, world.fds[3]];
        ring.register(reg::IORING_REGISTER_FILES as u32, files.as_ptr(), 4);
        for _ in 0..20 {
            let opcode = COMPARED[rng.usize(..COMPARED.len())];
            let mut sqe = entry(&mut rng, &world, opcode as u8);
            // Provided buffers are compared elsewhere; closing has its own cases, and would take
            // the descriptors of the entries behind away.
            sqe.flags &= !sqe_flags::BUFFER_SELECT;
            if opcode == Opcode::Close && sqe.fd >= 0 && sqe.fd != world.fds[1] {
                sqe.fd = -1;
            }
            // A name of its own: what comes late is not taken for another entry's completion.
            sqe.user_data = 1000 + all.len() as u64;
            world.refresh();
            let outcome = outcome(&mut ring, sqe);
            all.push((world.describe(&sqe), outcome));
        }
        drop(ring);
        world.close();
    }
    all
}

/// Runs a seed's entries on both sides and tells, in words, where the kernel's outcome is another.
/// Compares the kernel with itself when `abi` is the kernel.
pub fn mismatches(abi: &Abi, seed: u64) -> Vec<String> {
    sys::catch(libc::SIGPIPE);
    let ours = outcomes(abi, seed, 200);
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let theirs = outcomes(&kernel, seed, 200);
    let differing = ours.iter().zip(&theirs).filter(|((_, ours), (_, theirs))| ours != theirs);
    differing
        .map(|((sqe, ours), (_, theirs))| format!("kernel {theirs:?}, got {ours:?}: {sqe}"))
        .collect()
}

fn compare(abi: &Abi, seed: u64) {
    if runner::kernel_refusal().is_some() {
        // Nothing to compare with: the entries must still neither crash nor hang.
        outcomes(abi, seed, 200);
        return;
    }
    for mismatch in mismatches(abi, seed) {
        check!(false, "seed {seed}: {mismatch}");
    }
}

fn random_entries_1(abi: &Abi) {
    compare(abi, 1);
}
fn random_entries_2(abi: &Abi) {
    compare(abi, 20_26);
}
fn random_entries_3(abi: &Abi) {
    compare(abi, 0x5010_4146);
}

/// All bytes random, only addresses and descriptors kept harmless: nothing may crash or hang, and
/// every entry that is not asked to be silent completes or can be cancelled.
fn random_bytes(abi: &Abi) {
    sys::catch(libc::SIGPIPE);
    let mut rng = fastrand::Rng::with_seed(77);
    for _ in 0..10 {
        let world = World::new();
        let mut ring = Ring::with_flags(abi, 16, raw::IORING_SETUP_SUBMIT_ALL);
        for _ in 0..40 {
            for _ in 0..8 {
                ring.push(wild(&mut rng, &world));
            }
            ring.submit();
            // Descriptors that were made are left open: there are not many.
            while ring.pop().is_some() {}
        }
        let all = raw::IORING_ASYNC_CANCEL_ANY | raw::IORING_ASYNC_CANCEL_ALL;
        drain(&ring);
        ring.push(sqe::cancel(0, -1, all).ud(u64::MAX));
        ring.submit();
        drain(&ring);
    }
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.run(nop().ud(9)).ud, 9, "the process is whole");
}

/// Reaps until nothing more comes for a short while.
fn drain(ring: &Ring) {
    for _ in 0..2000 {
        if ring.wait_within(Duration::from_millis(10)).is_none() {
            return;
        }
    }
}

/// An entry of random bytes with harmless addresses and descriptors.
fn wild(rng: &mut fastrand::Rng, world: &World) -> Sqe {
    let harmless = [0, 1, NOBODYS, world.addresses[9], u64::MAX];
    let [addr, off, addr3] = [(); 3].map(|()| harmless[rng.usize(..harmless.len())]);
    let opcode = match rng.u8(..) % 80 {
        // Waits for a child of the process, or acts on the whole process or machine.
        n if n == Opcode::Waitid as u8 => 0,
        n => n,
    };
    Sqe {
        opcode,
        flags: rng.u8(..),
        ioprio: rng.u16(..),
        fd: world.fds[rng.usize(..world.fds.len())],
        off,
        addr,
        len: rng.u32(..),
        op_flags: rng.u32(..),
        user_data: rng.u64(..),
        buf_index: rng.u16(..),
        personality: if rng.bool() { 0 } else { rng.u16(..) },
        file_index: if rng.bool() { 0 } else { 9999 },
        addr3,
        pad2: rng.u64(..),
    }
}

/// Runs `body` while another thread keeps overwriting words of the ring.
fn while_scribbling(words: &[&AtomicU32], body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(4);
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    let value = if rng.bool() { rng.u32(..) } else { rng.u32(..16) };
                    words[rng.usize(..words.len())].store(value, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        body();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Makes a ring sane again: nothing to submit, nothing to reap. Its SQEs must all be harmless.
fn repair(ring: &mut Ring) {
    for slot in 0..ring.params.sq_entries {
        ring.set_array(slot, slot);
    }
    // A submission makes the ring publish its true head, whatever was written over it.
    for step in 1..1000u32 {
        ring.set_tail(ring.sq_tail().wrapping_add(step));
        if ring.enter(1, 0, 0) == Res(1) {
            break;
        }
    }
    ring.set_tail(ring.sq_head());
    // GETEVENTS fills the CQ from the overflow list: an empty CQ afterwards means an empty list. The
    // flag cannot be asked, it may have been written over.
    for _ in 0..1_000_000 {
        let tail = ring.cq_tail();
        ring.word(ring.params.cq_off.head).store(tail, Ordering::Relaxed);
        ring.enter(0, 0, GETEVENTS);
        if ring.cq_ready() == 0 {
            return;
        }
    }
    panic!("the CQ is never empty");
}

fn scribble(abi: &Abi, pick: fn(&Ring) -> Vec<u32>) {
    let mut ring = Ring::new(abi, 8);
    for i in 0..8 {
        ring.submit_all(&[nop().ud(i)]);
        ring.wait();
    }
    let words: Vec<&AtomicU32> = pick(&ring).into_iter().map(|at| ring.word(at)).collect();
    let fd = ring.fd;
    while_scribbling(&words, || {
        for i in 0..3000 {
            let submit = if i % 3 == 0 { 0 } else { 8 };
            let flags = if i % 2 == 0 { GETEVENTS } else { 0 };
            let res = abi.enter(fd, submit, 0, flags);
            if res.is_err() {
                check_in!(res, [err(libc::EBUSY), err(libc::EAGAIN)], "enter {i}");
            }
        }
    });
    repair(&mut ring);
    for ud in 100..110 {
        check_eq!(ring.run(nop().ud(ud)).ud, ud, "after the repair");
    }
}

fn garbage_in_the_sq_tail(abi: &Abi) {
    scribble(abi, |ring| vec![ring.params.sq_off.tail]);
}
fn garbage_in_the_array(abi: &Abi) {
    scribble(abi, |ring| {
        let array = ring.params.sq_off.array;
        (0..8).map(|i| array + 4 * i).chain([ring.params.sq_off.tail]).collect()
    });
}
fn garbage_in_the_cq_head(abi: &Abi) {
    scribble(abi, |ring| vec![ring.params.cq_off.head, ring.params.sq_off.tail]);
}
fn garbage_in_what_the_ring_writes(abi: &Abi) {
    scribble(abi, |ring| {
        let (sq, cq) = (ring.params.sq_off, ring.params.cq_off);
        vec![
            sq.head,
            sq.ring_mask,
            sq.ring_entries,
            sq.flags,
            sq.dropped,
            cq.ring_mask,
            cq.ring_entries,
            cq.overflow,
            cq.flags,
            sq.tail,
            cq.head,
        ]
    });
}

/// Entries that change while they are read: whatever mix of old and new comes out is checked as a
/// whole. First words (opcode and flags) are chosen among harmless ones.
fn garbage_in_the_entries(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, raw::IORING_SETUP_SUBMIT_ALL);
    for i in 0..8 {
        ring.submit_all(&[nop().ud(i)]);
        ring.wait();
    }
    let stop = AtomicBool::new(false);
    let fd = ring.fd;
    let (ring_ref, tail) = (&ring, ring.word(ring.params.sq_off.tail));
    let words: Vec<[&AtomicU32; 6]> =
        (0..8).map(|i| [0, 24, 28, 32, 40, 44].map(|at| ring_ref.sqe_word(i, at))).collect();
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(5);
            // NOP, linked, drained, hard-linked, forced async, silent, and what is no operation.
            let firsts = [0, 0, 0, 0x400, 0x200, 0x800, 0x1000, 0x4000, 200, 0xff00];
            while !stop.load(Ordering::Relaxed) {
                for [first, rest @ ..] in &words {
                    first.store(firsts[rng.usize(..firsts.len())], Ordering::Relaxed);
                    rest[rng.usize(..5)].store(rng.u32(..), Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        for i in 0..2000u32 {
            tail.store(tail.load(Ordering::Relaxed).wrapping_add(8), Ordering::Release);
            let res = abi.enter(fd, 8, 0, if i % 2 == 0 { GETEVENTS } else { 0 });
            check!(!res.is_err(), "enter {i} = {res}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    for slot in 0..8 {
        for at in (0..64).step_by(4) {
            ring.sqe_word(slot, at).store(0, Ordering::Relaxed);
        }
    }
    std::thread::sleep(Duration::from_millis(20));
    repair(&mut ring);
    check_eq!(ring.run(nop().ud(100)).ud, 100, "after the repair");
}

fn garbage_with_requests_in_flight(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    let (r, w) = sys::pipe();
    let t = sqe::ms(1);
    let words = [ring.params.sq_off.tail, ring.params.cq_off.head];
    for round in 0..20 {
        ring.submit_all(&[
            sqe::poll_add(r, libc::POLLIN as u32),
            sqe::timeout(&t, 0, 0),
            nop().forced_async(),
        ]);
        let fd = ring.fd;
        let words: Vec<&AtomicU32> = words.iter().map(|at| ring.word(*at)).collect();
        while_scribbling(&words, || {
            sys::write(w, b"x");
            for _ in 0..50 {
                abi.enter(fd, 0, 0, GETEVENTS);
            }
        });
        sys::read(r, &mut [0; 8]);
        std::thread::sleep(Duration::from_millis(2));
        repair(&mut ring);
        check_eq!(ring.sq_head(), ring.sq_tail(), "round {round}");
    }
}

fn unmapped_ring_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push(nop().ud(1));
    let (fd, p) = (ring.fd, ring.params);
    // Both mappings go away; the ring itself does not live in them.
    ring.unmap();
    check_eq!(abi.enter(fd, 1, 1, GETEVENTS), Res(1), "submitting without a mapping");
    let again = Ring::map(abi, fd, p);
    check_eq!(again.pop().map(|d| d.ud), Some(1), "seen through a new mapping");
}

fn read_only_ring_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push(nop().ud(1));
    ring.protect(libc::PROT_READ);
    check_eq!(ring.enter(1, 1, GETEVENTS), Res(1), "the program's protection is its own affair");
    ring.protect(libc::PROT_READ | libc::PROT_WRITE);
    check_eq!(ring.pop().map(|d| d.ud), Some(1));
}

family!["garbage", modes;
    random_entries_1,
    random_entries_2,
    random_entries_3,
    random_bytes,
    garbage_in_the_sq_tail,
    garbage_in_the_array,
    garbage_in_the_cq_head,
    garbage_in_what_the_ring_writes,
    garbage_in_the_entries,
    garbage_with_requests_in_flight,
    unmapped_ring_memory,
    read_only_ring_memory,
];
