//! Submission entries of all operations, alone and in chains, with fields gone wild.

use super::mismatch::Mismatch;
use super::numbers::{flags, number, one_in, pick};
use super::pages::Pages;
use super::world::{HINTS, VICTIM, World, open_now};
use crate::backend::{Abi, Kernel};
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt};
use crate::sys;
use fastrand::Rng;
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Batches of entries between two new worlds.
const BATCHES: usize = 6;
/// Worlds of one seed.
pub const WORLDS: usize = 8;
/// Completions of one batch that are looked at; one that repeats for ever must not keep us.
const COMPLETIONS_MAX: usize = 200;
/// How long they are looked at, before the cancellation and after it.
const TIME_MAX: Duration = Duration::from_millis(300);
/// User data of the first entry.
const FIRST: u64 = 1000;

/// What came of one batch, in words that can be compared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Outcome {
    /// Per entry, its completions; and what else is compared.
    parts: Vec<(String, String)>,
}

/// Operations that give a descriptor.
fn makes_a_descriptor(sqe: &Sqe) -> bool {
    use Opcode::{Accept, FixedFdInstall, Openat, Openat2, Socket};
    let makes = [Accept, Openat, Openat2, Socket].iter().any(|o| *o as u8 == sqe.opcode);
    makes && sqe.file_index == 0 || sqe.opcode == FixedFdInstall as u8
}

/// An entry whose fields make sense for its operation.
fn plausible(rng: &mut Rng, world: &World, pages: &Pages, opcode: Opcode) -> Sqe {
    use Opcode as O;
    let at = |page: &[u8]| page.as_ptr() as u64;
    let (scratch, vectors, message) = (at(pages.scratch), at(pages.vectors), at(pages.message));
    let (text, table) = (at(pages.text), at(pages.table));
    let any = pick(rng, &world.files).1;
    let offset = pick(rng, &[0, 0, u64::MAX, 4]);
    let mut s = Sqe { opcode: opcode as u8, fd: any, ..Sqe::default() };
    match opcode {
        O::Read | O::Write | O::ReadFixed | O::WriteFixed => {
            (s.addr, s.len, s.off) = (scratch + 100, pick(rng, &[0, 1, 8, 10, 64]), offset);
        }
        O::Readv | O::Writev | O::ReadvFixed | O::WritevFixed => {
            (s.addr, s.len, s.off) = (vectors, pick(rng, &[0, 1, 2]), offset);
        }
        O::ReadMultishot => (s.flags, s.buf_index) = (sqe_flags::BUFFER_SELECT, 1),
        O::PollAdd => (s.op_flags, s.len) = (pick(rng, &[1, 4, 0x2000, 5]), pick(rng, &[0, 0, 1])),
        O::PollRemove | O::TimeoutRemove | O::AsyncCancel => {
            s.addr = FIRST + rng.u64(..4);
            s.op_flags = pick(rng, &[0, 0, 1, 2, 4]);
        }
        O::Sendmsg | O::Recvmsg | O::SendmsgZc => (s.addr, s.len) = (message, 1),
        O::Send | O::Recv | O::SendZc => (s.addr, s.len) = (scratch, pick(rng, &[0, 8, 64])),
        O::Timeout | O::LinkTimeout => (s.addr, s.len) = (scratch, 1),
        O::Connect | O::Bind => (s.addr, s.off) = (message + 3000, pick(rng, &[7, 110, 0])),
        O::Fallocate => (s.off, s.addr, s.len) = (0, 8192, 0),
        O::Openat => (s.addr, s.op_flags) = (text, pick(rng, &[0, 2, 0o100])),
        O::Openat2 => (s.addr, s.off, s.len) = (text, scratch + 500, 24),
        O::Statx => (s.addr, s.off, s.len) = (text, scratch + 1000, 0x7ff),
        O::FilesUpdate => (s.addr, s.len, s.off) = (table, 3, pick(rng, &[0, 5, u64::MAX])),
        O::Madvise => (s.addr, s.len) = (scratch, 4096),
        O::Fadvise | O::SyncFileRange => s.len = 100,
        O::EpollCtl => {
            (s.fd, s.off, s.len) = (world.fd("epoll"), any as u64, rng.u32(1..4));
            s.addr = scratch;
        }
        O::EpollWait => (s.fd, s.addr, s.len) = (world.fd("epoll"), scratch, 2),
        O::Splice | O::Tee => {
            let ends = ["pipe r", "empty pipe", "file", "stream", "ring", "eventfd"];
            s.file_index = world.fd(pick(rng, &ends)) as u32;
            (s.len, s.addr, s.off) = (8, u64::MAX, u64::MAX);
        }
        O::ProvideBuffers => {
            (s.fd, s.addr, s.len) = (pick(rng, &[1, 2, 4]), scratch + 600, 16);
            s.buf_index = pick(rng, World::GROUPS);
        }
        O::RemoveBuffers => {
            (s.fd, s.buf_index) = (pick(rng, &[1, 2, 9]), pick(rng, World::GROUPS));
        }
        O::Renameat | O::Linkat => {
            (s.fd, s.addr, s.off) = (libc::AT_FDCWD, text, text + 8);
            s.len = libc::AT_FDCWD as u32;
        }
        O::Symlinkat => (s.fd, s.addr, s.off) = (libc::AT_FDCWD, text, text + 8),
        O::Unlinkat | O::Mkdirat => (s.fd, s.addr) = (libc::AT_FDCWD, text + 8),
        O::Fsetxattr | O::Fgetxattr => (s.addr, s.off, s.len) = (text + 2048, scratch, 4),
        O::Setxattr | O::Getxattr => {
            (s.addr, s.off, s.len, s.addr3) = (text + 2048, scratch, 4, text);
        }
        O::MsgRing => (s.fd, s.len) = (world.fd("other ring"), 5),
        O::Socket => {
            s.fd = pick(rng, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, 45, -1]);
            s.off = pick(rng, &[1, 2, 3, 5, 0x800]);
        }
        O::UringCmd => s.off = pick(rng, &[0, 1, 2, 3, 4]),
        O::Waitid => {
            s.len = pick(rng, &[0, 1, 2, 3]);
            (s.file_index, s.off) = (pick(rng, &[4, 2, 1 << 24, 5]), scratch);
        }
        O::FutexWait | O::FutexWake => {
            (s.addr, s.addr3, s.fd) = (scratch, u32::MAX as u64, pick(rng, &[2, 0x82, 0, 3]));
            s.off = pick(rng, &[0, 1]);
        }
        O::FutexWaitv => (s.addr, s.len) = (vectors, pick(rng, &[0, 1, 2])),
        O::FixedFdInstall => (s.fd, s.flags) = (pick(rng, &[0, 1, 2, 9]), sqe_flags::FIXED_FILE),
        O::Ftruncate => s.off = 10,
        O::Shutdown => s.len = pick(rng, &[0, 1, 2]),
        O::Listen => s.len = 1,
        O::Pipe => s.addr = scratch + 700,
        O::RecvZc => (s.ioprio, s.len) = (2, 8),
        O::Nop | O::Fsync | O::Accept | O::Close => {}
    }
    s
}

/// One field becomes something else.
fn wild(rng: &mut Rng, world: &World, pages: &Pages, s: &mut Sqe) {
    let address = |rng: &mut Rng| pages.addresses[rng.usize(..pages.addresses.len())].1;
    let place = |rng: &mut Rng| if rng.bool() { number(rng) } else { address(rng) };
    match rng.u8(..14) {
        0 => s.flags ^= 1 << rng.u8(..8),
        1 => s.flags = rng.u8(..),
        2 => s.ioprio = if rng.bool() { 1 << rng.u8(..16) } else { number(rng) as u16 },
        3 => s.off = place(rng),
        4 | 5 => s.addr = place(rng),
        6 => s.len = number(rng) as u32,
        7 => s.op_flags = flags(rng),
        8 => s.buf_index = if rng.bool() { pick(rng, World::GROUPS) } else { number(rng) as u16 },
        9 => s.personality = number(rng) as u16,
        10 => s.file_index = number(rng) as u32,
        11 => s.addr3 = place(rng),
        12 => s.pad2 = place(rng),
        _ => {
            // Small numbers are the process's own.
            let any = number(rng) as i32;
            let any = if (0..1000).contains(&any) { world.fd("unused") } else { any };
            s.fd = if rng.bool() { pick(rng, &world.files).1 } else { any };
        }
    }
}

/// Takes out of an entry what would reach beyond the case, or cannot be the same on both sides.
fn tame(world: &World, pages: &Pages, s: &mut Sqe) {
    use Opcode as O;
    let Some(opcode) = Opcode::from_raw(s.opcode) else { return };
    let fixed = s.flags & sqe_flags::FIXED_FILE != 0;
    let named = world.files.iter().find(|(_, fd)| *fd == s.fd).map(|(name, _)| *name);
    if !names_a_file(opcode) || fixed {
        // The numbers of rings are not the same on both sides.
        if named.is_some_and(|name| name.contains("ring")) {
            s.fd = 7;
        }
    } else if !fixed && named.is_none() && s.fd >= 0 {
        s.fd = world.fd("unused");
    }
    if s.pad2 == 1 {
        // Integrity metadata is not offered.
        s.pad2 = 2;
    }
    match opcode {
        Opcode::Close if !fixed && s.file_index == 0 => {
            let may = ["-1", "unused", "ring", "other ring", VICTIM];
            if named.is_some_and(|name| !may.contains(&name)) {
                s.fd = world.fd(VICTIM);
            }
        }
        Opcode::Madvise => {
            // Nothing beside our pages, no poisoned memory, no guards in it.
            s.off = s.off.min(4096);
            s.len = s.len.min(4096);
            s.op_flags = [0, 1, 2, 3, 4, 8, 14, 200, 5, 7][s.op_flags as usize % 10];
            if s.op_flags == 4 || s.op_flags == 8 {
                s.addr = pages.table.as_ptr() as u64;
            }
        }
        Opcode::Fallocate | Opcode::Ftruncate => {
            // Not the disk's space.
            let limit = |n: u64| if (1 << 24..1 << 50).contains(&n) { 1 << 20 } else { n };
            (s.off, s.addr) = (limit(s.off), limit(s.addr));
        }
        // A number that loads no module.
        Opcode::Socket if !(-1..=2).contains(&s.fd) && ![10, 45].contains(&s.fd) => s.fd = 46,
        Opcode::Splice | Opcode::Tee => {
            let input = s.file_index as i32;
            if !world.files.iter().any(|(_, fd)| *fd == input) {
                s.file_index = u32::MAX;
            }
        }
        Opcode::EpollCtl if s.off < 200 && !world.files.iter().any(|f| f.1 as u64 == s.off) => {
            s.off = 9999;
        }
        // One that repeats comes to an end: how often it fires until it is cancelled is not the same.
        O::Timeout if s.op_flags & raw::IORING_TIMEOUT_MULTISHOT != 0 => s.off = 1 + s.off % 4,
        // The new directory, by number.
        O::Linkat | O::Renameat => s.len = libc::AT_FDCWD as u32,
        // Refused at once here; the kernel waits until the ring is ready to refuse it.
        O::Read | O::Readv | O::ReadFixed | O::ReadvFixed | O::Write | O::Writev
            if named.is_some_and(|name| name.contains("ring")) =>
        {
            s.fd = world.fd("epoll");
        }
        // To a file with no vectored form the kernel writes the vector itself instead of what it names.
        O::ReadvFixed | O::WritevFixed
            if named.is_some_and(|name| name.contains("eventfd") || name == VICTIM) || fixed =>
        {
            (s.fd, s.flags) = (world.fd("pipe r"), s.flags & !sqe_flags::FIXED_FILE);
        }
        // Nothing can be registered for it here, and the operation is not offered.
        O::RecvZc => s.opcode = O::Recv as u8,
        _ => {}
    }
}

/// Whether `sqe->fd` is a descriptor.
fn names_a_file(opcode: Opcode) -> bool {
    use Opcode as O;
    ![
        O::Socket,
        O::ProvideBuffers,
        O::RemoveBuffers,
        O::FutexWait,
        O::FutexWake,
        O::FutexWaitv,
        O::Waitid,
    ]
    .contains(&opcode)
}

/// A batch: mostly one entry, sometimes a few, which may be linked.
fn batch(rng: &mut Rng, world: &World, pages: &Pages, seed: u64, first: u64) -> Vec<Sqe> {
    let count = if rng.bool() { 1 } else { rng.usize(1..5) };
    let mut batch = Vec::with_capacity(count);
    for i in 0..count as u64 {
        let opcode = if one_in(rng, 60) { rng.u8(..) } else { rng.u8(..63) };
        let mut s = match Opcode::from_raw(opcode) {
            Some(known) => plausible(rng, world, pages, known),
            None => Sqe { opcode, ..Sqe::default() },
        };
        for _ in 0..pick(rng, &[0, 1, 1, 2, 3]) {
            wild(rng, world, pages, &mut s);
        }
        if count > 1 && rng.bool() {
            s.flags |= pick(
                rng,
                &[
                    sqe_flags::IO_LINK,
                    sqe_flags::IO_HARDLINK,
                    sqe_flags::IO_DRAIN,
                    sqe_flags::CQE_SKIP_SUCCESS,
                    sqe_flags::ASYNC,
                ],
            );
        }
        if s.flags & sqe_flags::FIXED_FILE != 0 && !one_in(rng, 3) {
            s.fd = rng.i32(..10);
        }
        if s.flags & sqe_flags::BUFFER_SELECT != 0 && !one_in(rng, 4) {
            s.buf_index = pick(rng, World::GROUPS);
        }
        tame(world, pages, &mut s);
        s.user_data = first + i;
        batch.push(s);
    }
    if let Some(last) = batch.last_mut() {
        // What a chain without an end is issued by is not the same: the kernel sends it to a worker.
        last.flags &= !(sqe_flags::IO_LINK | sqe_flags::IO_HARDLINK);
    }
    // Linux 6.18 counts the notification of a zero-copy send as a request that drained ones have to wait for, for
    // ever: a world has drained requests or such sends.
    let drained = seed.is_multiple_of(2);
    for s in &mut batch {
        match Opcode::from_raw(s.opcode) {
            Some(Opcode::SendZc) if drained => s.opcode = Opcode::Send as u8,
            Some(Opcode::SendmsgZc) if drained => s.opcode = Opcode::Sendmsg as u8,
            _ if !drained => s.flags &= !sqe_flags::IO_DRAIN,
            _ => {}
        }
    }
    batch
}

fn describe(world: &World, pages: &Pages, s: &Sqe) -> String {
    let opcode = Opcode::from_raw(s.opcode).map_or("?", Opcode::name);
    let mut text = format!("{opcode} fd={}", world.name(s.fd));
    let places = [("off", s.off), ("addr", s.addr), ("addr3", s.addr3), ("pad2", s.pad2)];
    for (name, value) in places.iter().filter(|(_, value)| *value != 0) {
        text.push_str(&format!(" {name}={}", pages.name(*value)));
    }
    let rest = [
        ("len", s.len),
        ("flags", s.flags as u32),
        ("ioprio", s.ioprio as u32),
        ("op_flags", s.op_flags),
        ("buf_index", s.buf_index as u32),
        ("personality", s.personality as u32),
        ("file_index", s.file_index),
    ];
    for (name, value) in rest.iter().filter(|(_, value)| *value != 0) {
        text.push_str(&format!(" {name}={value:#x}"));
    }
    text
}

/// A result as far as both sides must agree.
fn result(s: &Sqe, res: Res, flags: u32, canceled: bool) -> String {
    let interrupted = [err(libc::ECANCELED), err(libc::EINTR), Res(-512)].contains(&res);
    if canceled && interrupted {
        return "waited".into();
    }
    let flags = flags & !HINTS;
    let flags = if flags == 0 { String::new() } else { format!("/{flags:#x}") };
    if makes_a_descriptor(s) && res.0 >= 0 {
        "a descriptor".into()
    } else {
        format!("{res}{flags}")
    }
}

/// Runs a batch to its end: waits a little, then cancels whatever is in flight.
fn run(ring: &mut Ring, pages: &Pages, batch: &[Sqe]) -> Outcome {
    let mut outcome = Outcome::default();
    ring.push_all(batch);
    let mut submitted = Vec::new();
    for _ in 0..batch.len() {
        if ring.pending() > 0 {
            submitted.push(ring.submit().to_string());
        }
    }
    let mut results: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut open: usize = batch.len();
    for canceled in [false, true] {
        let limit = Duration::from_millis(if canceled { 30 } else { 12 });
        if canceled && open > 0 {
            let all = raw::IORING_ASYNC_CANCEL_ANY | raw::IORING_ASYNC_CANCEL_ALL;
            ring.submit_all(&[sqe::cancel(0, -1, all).ud(2)]);
        }
        let begun = Instant::now();
        for _ in 0..COMPLETIONS_MAX {
            if open == 0 || begun.elapsed() > TIME_MAX {
                break;
            }
            let Some(done) = ring.wait_within(limit) else { break };
            let Some(s) = batch.iter().find(|s| s.user_data == done.ud) else { continue };
            if done.flags & raw::IORING_CQE_F_NOTIF != 0 {
                // May come when nobody waits for it any more.
                continue;
            }
            let text = result(s, done.res, done.flags, canceled);
            results.entry(done.ud).or_default().push(text);
            open -= usize::from(!done.more());
        }
    }
    outcome.parts.push(("submit".into(), submitted.join(" ")));
    for s in batch {
        let name = Opcode::from_raw(s.opcode).map_or("?", Opcode::name);
        let results = results.remove(&s.user_data).unwrap_or_default();
        outcome.parts.push((name.into(), results.join(" ")));
    }
    let words = (ring.sq_dropped(), ring.cq_overflow(), ring.sq_flags());
    outcome.parts.push(("words".into(), format!("{words:?}")));
    let own = [Opcode::Statx, Opcode::Pipe, Opcode::FilesUpdate].map(|o| o as u8);
    if !batch.iter().any(|s| own.contains(&s.opcode)) {
        outcome.parts.push(("memory".into(), format!("{:x}", pages.digest())));
    }
    outcome
}

/// The batches of a world and what came of them.
fn play(abi: &Abi, pages: &mut Pages, seed: u64) -> Vec<(String, Outcome)> {
    let before = open_now();
    let mut rng = Rng::with_seed(seed);
    let setup = pick(&mut rng, &[0, 0, raw::IORING_SETUP_SUBMIT_ALL]);
    let mut world = World::new(abi, pages, setup);
    let mut all = Vec::new();
    for i in 0..BATCHES as u64 {
        pages.refresh(&world.list());
        let batch = batch(&mut rng, &world, pages, seed, FIRST + 16 * i);
        let words: Vec<String> = batch.iter().map(|s| describe(&world, pages, s)).collect();
        let outcome = run(&mut world.ring, pages, &batch);
        while world.other.pop().is_some() {}
        world.sweep();
        all.push((words.join(" ; "), outcome));
    }
    world.close(&before);
    all
}

/// Where the kernel's outcome is another: the first in each world, since the rest may follow from it.
pub fn mismatches(abi: &Abi, seed: u64) -> Vec<Mismatch> {
    sys::catch(libc::SIGPIPE);
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let mut pages = Pages::new(b"file\0".to_vec());
    let mut found = Vec::new();
    for world in 0..WORLDS as u64 {
        let seed = seed * WORLDS as u64 + world;
        let mut once = || first_difference(abi, &kernel, &mut pages, seed);
        // What waits on a busy machine looks like what waits for ever: only what happens each time counts.
        let Some(first) = once() else { continue };
        if once().as_ref() == Some(&first) && once().as_ref() == Some(&first) {
            found.push(first);
        }
    }
    found
}

/// One world, batch by batch, with what both sides say of it.
pub fn story(abi: &Abi, world: u64) -> String {
    sys::catch(libc::SIGPIPE);
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let mut pages = Pages::new(b"file\0".to_vec());
    let ours = play(abi, &mut pages, world);
    let theirs = play(&kernel, &mut pages, world);
    let mut text = String::new();
    for ((input, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        text.push_str(&format!("{}\n", input.replace(" ; ", "\n")));
        for (a, b) in ours.parts.iter().zip(&theirs.parts) {
            let mark = if a == b { "  " } else { "!!" };
            text.push_str(&format!("  {mark} {}: kernel {}, got {}\n", a.0, b.1, a.1));
        }
    }
    text
}

fn first_difference(abi: &Abi, kernel: &Abi, pages: &mut Pages, seed: u64) -> Option<Mismatch> {
    let ours = play(abi, pages, seed);
    let theirs = play(kernel, pages, seed);
    for ((input, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let parts = ours.parts.iter().zip(&theirs.parts);
        let Some((ours, theirs)) = parts.into_iter().find(|(a, b)| a != b) else { continue };
        let kind = match ours.0.as_str() {
            "memory" => format!("memory after {}", input.split(' ').next().unwrap_or("")),
            name => format!("{name}: kernel {}, got {}", theirs.1, ours.1),
        };
        return Some(Mismatch { kind, input: format!("(world {seed}) {input}") });
    }
    None
}
