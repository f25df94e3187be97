//! Entries of random fields, compared with the kernel's outcomes.
//!
//! They name only harmless things: descriptors that the case made, paths in a directory of its own, and
//! addresses that are either its own buffers (with a guard page behind) or nobody's.

use crate::backend::{Abi, Kernel, kernel_refusal};
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop};
use crate::sys;
use crate::trace;
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

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
        let put = |page: &mut [u8], words: &[u64]| {
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

/// What ends by itself is given so long to do so.
const SHORT: Duration = Duration::from_millis(15);
/// The same, when the short time has told the two sides apart: nobody may be served on a busy machine for that long.
const LONG: Duration = Duration::from_millis(1500);

/// Entries that are given the long time; a case has 60 s in all.
const DOUBTFUL_MAX: usize = 12;

/// Runs one entry to its end: waits for `limit`, then cancels whatever is in flight.
fn outcome(ring: &mut Ring, sqe: Sqe, mut limit: Duration) -> Outcome {
    ring.push(sqe);
    ring.submit();
    let mut first = None;
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

/// The outcomes of a seed's entries on one side. Those in `doubtful` are waited for longer.
fn outcomes(abi: &Abi, seed: u64, count: usize, doubtful: &[usize]) -> Vec<(String, Outcome)> {
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
            if matches!(opcode, Opcode::Send | Opcode::Recv | Opcode::Sendmsg | Opcode::Recvmsg) {
                // Bundles and vectorized sends: later features, which a ring may refuse.
                sqe.ioprio &= !0x30;
            }
            if opcode == Opcode::Close && sqe.fd >= 0 && sqe.fd != world.fds[1] {
                sqe.fd = -1;
            }
            // A name of its own: what comes late is not taken for another entry's completion.
            sqe.user_data = 1000 + all.len() as u64;
            world.refresh();
            let limit = if doubtful.contains(&all.len()) { LONG } else { SHORT };
            let outcome = outcome(&mut ring, sqe, limit);
            all.push((world.describe(&sqe), outcome));
        }
        drop(ring);
        world.close();
    }
    all
}

/// An entry that ended differently, by its number and in words.
type Mismatch = (usize, String);

/// Runs a seed's entries on both sides and tells where the kernel's outcome is another.
/// Compares the kernel with itself when `abi` is the kernel.
pub fn mismatches(abi: &Abi, seed: u64, doubtful: &[usize]) -> Vec<Mismatch> {
    sys::catch(libc::SIGPIPE);
    let ours = outcomes(abi, seed, 200, doubtful);
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let theirs = outcomes(&kernel, seed, 200, doubtful);
    let pairs = ours.iter().zip(&theirs).enumerate();
    let differing = pairs.filter(|(_, ((_, ours), (_, theirs)))| ours != theirs);
    differing
        .map(|(number, ((sqe, ours), (_, theirs)))| {
            (number, format!("kernel {theirs:?}, got {ours:?}: {sqe}"))
        })
        .collect()
}

fn compare(abi: &Abi, seed: u64) {
    if kernel_refusal().is_some() {
        // Nothing to compare with: the entries must still neither crash nor hang.
        outcomes(abi, seed, 200, &[]);
        return;
    }
    let first = mismatches(abi, seed, &[]);
    if first.is_empty() {
        return;
    }
    // What waits on a busy machine looks like what waits for ever: only what happens twice counts, the second
    // time with patience. Not with more of it than a case's time allows for.
    let first = &first[..first.len().min(DOUBTFUL_MAX)];
    let doubtful: Vec<usize> = first.iter().map(|(number, _)| *number).collect();
    let second = mismatches(abi, seed, &doubtful);
    for mismatch in first.iter().filter(|m| second.contains(m)) {
        trace::fail(format!("seed {seed}: {}", mismatch.1));
    }
}

fn entries_1(abi: &Abi) {
    compare(abi, 1);
}
fn entries_2(abi: &Abi) {
    compare(abi, 20_26);
}
fn entries_3(abi: &Abi) {
    compare(abi, 0x5010_4146);
}

/// All bytes random, only addresses and descriptors kept harmless: nothing may crash or hang, and
/// every entry that is not asked to be silent completes or can be cancelled.
fn bytes(abi: &Abi) {
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

/// Words of an entry that are written over: all but the last.
const WORDS: u32 = 14;

/// As [`bytes`], while another thread writes over the words of all entries: what is taken is any mix of several.
/// Halves of their addresses make no address that is somebody's.
fn torn(abi: &Abi) {
    sys::catch(libc::SIGPIPE);
    for round in 0..4 {
        let world = World::new();
        let ring = Ring::with_flags(abi, 16, raw::IORING_SETUP_SUBMIT_ALL);
        let tail = ring.word(ring.params.sq_off.tail);
        let stop = AtomicBool::new(false);
        for slot in 0..16 {
            ring.set_array(slot, slot);
        }
        let words: Vec<&AtomicU32> =
            (0..16 * WORDS).map(|i| ring.sqe_word(i / WORDS, i % WORDS * 4)).collect();
        let (stop_ref, world) = (&stop, &world);
        std::thread::scope(|s| {
            s.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(round);
                while !stop_ref.load(Ordering::Relaxed) {
                    scribble(&mut rng, world, &words);
                }
            });
            for i in 0..400 {
                // Release pairs with the Acquire by which a ring reads its tail.
                tail.store(tail.load(Ordering::Relaxed).wrapping_add(16), Ordering::Release);
                let res = abi.enter(ring.fd, 16, 0, 0);
                check!(!res.is_err() || res == err(libc::EBUSY), "enter {i} = {res}");
                while ring.pop().is_some() {}
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.run(nop().ud(9)).ud, 9, "the process is whole");
}

/// Writes some words of one random entry to a random place.
fn scribble(rng: &mut fastrand::Rng, world: &World, slots: &[&AtomicU32]) {
    let harmless = [0, 1, NOBODYS, u64::MAX];
    let mut sqe = wild(rng, world);
    [sqe.addr, sqe.off, sqe.addr3] = [(); 3].map(|()| harmless[rng.usize(..harmless.len())]);
    sqe.pad2 = 0;
    if sqe.opcode == Opcode::Madvise as u8 {
        sqe.opcode = 0;
    }
    let first = sqe.opcode as u32 | (sqe.flags as u32) << 8 | (sqe.ioprio as u32) << 16;
    let half = |word: u64| [word as u32, (word >> 32) as u32];
    let ([o0, o1], [a0, a1], [t0, t1]) = (half(sqe.off), half(sqe.addr), half(sqe.addr3));
    let group = sqe.buf_index as u32;
    let words = [
        first,
        sqe.fd as u32,
        o0,
        o1,
        a0,
        a1,
        sqe.len,
        sqe.op_flags,
        1,
        0,
        group,
        sqe.file_index,
        t0,
        t1,
    ];
    let slot = rng.usize(..16) * WORDS as usize;
    for (place, word) in slots[slot..].iter().zip(words) {
        if rng.bool() {
            place.store(word, Ordering::Relaxed);
        }
    }
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

family!["random", modes;
    entries_1,
    entries_2,
    entries_3,
    bytes,
    torn,
];
