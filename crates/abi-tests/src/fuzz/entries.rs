//! Submission entries of all operations, alone and in chains, with fields gone wild.

use super::numbers::{flags, number, one_in, pick};
use super::pages::Pages;
use super::world::{VICTIM, World};
use fastrand::Rng;
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};

/// User data of the first entry.
pub const FIRST: u64 = 1000;

/// Operations that give a descriptor.
pub fn makes_a_descriptor(sqe: &Sqe) -> bool {
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
            let flags = [2, 2, 0x82, 0x82, 0, 3, 6, 0x86, 0xa, 0x8a, 0xe, 0x12, 0x22, 0x42, 0x102];
            (s.addr, s.addr3, s.fd) =
                (scratch, pick(rng, &[u32::MAX as u64, 1, 0]), pick(rng, &flags));
            s.off = pick(rng, &[0, 1]);
        }
        O::FutexWaitv => {
            let at = pick(rng, &[0, 3072, 3072, 3096, 3200, 3300]);
            (s.addr, s.len) = (vectors + at, pick(rng, &[0, 1, 2, 2]));
        }
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
            let any =
                if (0..1000).contains(&any) || any == 1 << 16 { world.fd("unused") } else { any };
            s.fd = if rng.bool() { pick(rng, &world.files).1 } else { any };
        }
    }
}

/// Takes out of an entry what would reach beyond the case, or cannot be the same on both sides.
fn tame(world: &World, pages: &Pages, s: &mut Sqe) {
    use Opcode as O;
    let Some(opcode) = Opcode::from_raw(s.opcode) else { return };
    let fixed = s.flags & sqe_flags::FIXED_FILE != 0;
    let table = pages.table.as_ptr() as u64;
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
            if named == Some("pty") {
                s.fd = world.fd("null");
            }
        }
        // Nor the numbers of our rings.
        Opcode::EpollCtl if s.off == 1 << 16 && world.ring.fd != 1 << 16 => s.off = 9999,
        Opcode::EpollCtl if s.off < 200 && !world.files.iter().any(|f| f.1 as u64 == s.off) => {
            s.off = 9999;
        }
        // One that repeats comes to an end: how often it fires until it is cancelled is not the same.
        O::Timeout if s.op_flags & raw::IORING_TIMEOUT_MULTISHOT != 0 => s.off = 1 + s.off % 4,
        // The new directory, by number.
        O::Linkat | O::Renameat => s.len = libc::AT_FDCWD as u32,
        // Refused at once here; the kernel waits until the ring is ready to refuse it.
        O::Read
        | O::Readv
        | O::ReadFixed
        | O::ReadvFixed
        | O::Write
        | O::Writev
        | O::ReadMultishot
            if named.is_some_and(|name| name.contains("ring")) =>
        {
            s.fd = world.fd("epoll");
        }
        O::Recv if named.is_some_and(|name| name.contains("ring")) => {
            s.ioprio &= !(raw::IORING_RECVSEND_POLL_FIRST | raw::IORING_RECV_MULTISHOT) as u16;
        }
        // Its own time: what is written there comes back later.
        O::Write | O::Writev | O::WriteFixed | O::WritevFixed if named == Some("pty") => {
            s.fd = world.fd("null");
        }
        // Numbers that are not of this world are not the same on both sides.
        O::FilesUpdate if !(table..table + 4096).contains(&s.addr) => {
            s.addr = if s.addr < 4096 { s.addr } else { u64::MAX - 7 };
        }
        // To a file with no vectored form the kernel writes the vector itself instead of what it names.
        O::ReadvFixed | O::WritevFixed
            if named.is_some_and(|name| name.contains("eventfd") || name == VICTIM) || fixed =>
        {
            (s.fd, s.flags) = (world.fd("pipe r"), s.flags & !sqe_flags::FIXED_FILE);
        }
        // No program of 64 bits sets this, and the kernel then takes the header for another.
        O::Sendmsg | O::Recvmsg | O::SendmsgZc => s.op_flags &= !(1 << 31),
        // A ring's readiness is an eventfd's here, which has fewer names.
        O::PollAdd | O::PollRemove if named.is_some_and(|name| name.contains("ring")) => {
            s.op_flags &= !(libc::POLLRDNORM | libc::POLLWRNORM) as u32;
        }
        O::Accept if named.is_some_and(|name| name.contains("ring")) => {
            s.ioprio &= !raw::IORING_ACCEPT_POLL_FIRST as u16;
        }
        // A number that ends on another page: nothing of it is written there, one byte here.
        O::Waitid if s.off % 4096 == 4095 => s.off -= 7,
        // They can be polled, and wake nobody.
        O::PollAdd | O::PollRemove if matches!(named, Some("sys file" | "proc file")) => {
            s.fd = world.fd("pipe r");
        }
        // Which of two reasons not to is said first depends on the device.
        O::Write | O::Writev | O::WriteFixed | O::WritevFixed if s.op_flags & 0x41 == 0x41 => {
            s.op_flags &= !1;
        }
        // An address of no length is none to sendmsg(2).
        O::Send | O::SendZc if s.file_index & 0xffff == 0 => s.off = 0,
        // They can be polled, and give nothing.
        O::ReadMultishot if matches!(named, Some("sys file" | "proc file")) => {
            s.fd = world.fd("file r");
        }
        // Transmit timestamps are told of the Internet's sockets only (README).
        O::UringCmd if s.off == 4 => s.off = 5,
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
pub fn batch(rng: &mut Rng, world: &World, pages: &Pages, seed: u64, first: u64) -> Vec<Sqe> {
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

pub fn describe(world: &World, pages: &Pages, s: &Sqe) -> String {
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
