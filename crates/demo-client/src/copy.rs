//! Copies a file with reads and writes in flight together, through registered files and buffers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use io_uring::{opcode, types};

use crate::part::{Part, differs};
use crate::pattern;
use crate::queue::{Kind, Queue, checked};

const BLOCK: usize = 128 * 1024;
const DEPTH: usize = 16;

/// Removes the file when the copy is over, however it ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// One block on its way: read until full, then written until empty.
#[derive(Clone, Copy, Default)]
struct Slot {
    offset: u64,
    len: usize,
    done: usize,
}

/// Copies `bytes` bytes from a fresh file to another and compares length and checksum.
pub fn run(dir: &Path, bytes: u64) -> io::Result<Part> {
    let source = Scratch(dir.join(format!("soloring-demo-{}-source", std::process::id())));
    let target = Scratch(dir.join(format!("soloring-demo-{}-copy", std::process::id())));
    let wanted = write_source(&source.0, bytes)?;

    let start = Instant::now();
    let mut queue = Queue::new(2 * DEPTH as u32, Kind::Deferred)?;
    let from = open(&mut queue, &source.0, libc::O_RDONLY)?;
    let to = open(&mut queue, &target.0, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)?;
    let len = size(&mut queue, &source.0)?;
    if len != bytes {
        return Err(differs(format!("statx says {len} bytes, {bytes} were written")));
    }
    queue.submitter().register_files(&[from.as_raw_fd(), to.as_raw_fd()])?;
    pump(&mut queue, len)?;
    // SAFETY: names a descriptor only.
    unsafe { queue.one(opcode::Fsync::new(types::Fixed(1)).build(), "fsync")? };
    queue.submitter().unregister_files()?;
    for file in [from, to] {
        let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
        // SAFETY: the descriptor was given up above, the request is its only user.
        unsafe { queue.one(opcode::Close::new(types::Fd(fd)).build(), "close")? };
    }
    let seconds = start.elapsed().as_secs_f64();

    let (got_len, got) = checksum(&target.0)?;
    if got_len != bytes || got != wanted {
        return Err(differs(format!(
            "copy differs: {got_len} bytes, crc32c {got:08x}; source {bytes} bytes, crc32c {wanted:08x}"
        )));
    }
    Ok(Part {
        name: "file copy".into(),
        work: format!(
            "{} MiB in blocks of {} KiB, {DEPTH} in flight, registered files and buffers",
            bytes >> 20,
            BLOCK >> 10
        ),
        checked: format!("{got_len} bytes, crc32c {got:08x} on both sides"),
        bytes: 2 * bytes,
        seconds,
        requests: queue.finished().clone(),
    })
}

/// Writes the file to copy with plain calls; returns its checksum.
fn write_source(path: &Path, bytes: u64) -> io::Result<u32> {
    let mut file = File::create_new(path)?;
    let mut block = vec![0; BLOCK];
    let mut crc = 0;
    let mut at = 0;
    while at < bytes {
        let len = BLOCK.min((bytes - at) as usize);
        pattern::fill(at, &mut block[..len]);
        crc = crc32c::crc32c_append(crc, &block[..len]);
        file.write_all(&block[..len])?;
        at += len as u64;
    }
    Ok(crc)
}

/// Length and checksum of a file, read with plain calls.
fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    let (mut len, mut crc) = (0, 0);
    loop {
        let got = file.read(&mut block)?;
        if got == 0 {
            return Ok((len, crc));
        }
        crc = crc32c::crc32c_append(crc, &block[..got]);
        len += got as u64;
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn open(queue: &mut Queue, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), name.as_ptr())
        .flags(flags | libc::O_CLOEXEC)
        .mode(0o600)
        .build();
    // SAFETY: `name` lives until the completion has been taken.
    let fd = unsafe { queue.one(entry, "openat")? };
    // SAFETY: the completion handed over a descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn size(queue: &mut Queue, path: &Path) -> io::Result<u64> {
    let name = c_path(path)?;
    // SAFETY: all-zero bytes are a valid `statx`.
    let mut stat: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
    let out: *mut libc::statx = &mut *stat;
    let entry = opcode::Statx::new(types::Fd(libc::AT_FDCWD), name.as_ptr(), out.cast())
        .mask(libc::STATX_SIZE)
        .build();
    // SAFETY: `name` and `stat` live until the completion has been taken.
    unsafe { queue.one(entry, "statx")? };
    Ok(stat.stx_size)
}

/// Moves all blocks: each slot is read until full, then written until empty, then takes the next block.
fn pump(queue: &mut Queue, len: u64) -> io::Result<()> {
    // Leaked: after an error return the ring may still be reading into them.
    let base = vec![0u8; DEPTH * BLOCK].leak().as_mut_ptr();
    let iovecs: Vec<libc::iovec> = (0..DEPTH)
        .map(|i| libc::iovec { iov_base: base.wrapping_add(i * BLOCK).cast(), iov_len: BLOCK })
        .collect();
    // SAFETY: the buffers are never freed.
    unsafe { queue.submitter().register_buffers(&iovecs)? };

    let mut slots = [Slot::default(); DEPTH];
    let mut next = 0u64;
    for index in 0..DEPTH {
        start(queue, &mut slots, index, &mut next, len, base)?;
    }
    let mut ready = Vec::new();
    while queue.in_flight() > 0 {
        ready.clear();
        ready.extend_from_slice(queue.turn(1)?);
        for done in &ready {
            let index = done.token as usize;
            let reading = done.opcode == opcode::ReadFixed::CODE;
            let moved = checked(done.res, if reading { "read" } else { "write" })? as usize;
            if moved == 0 {
                return Err(differs(format!("end of file at {}", slots[index].offset)));
            }
            let slot = &mut slots[index];
            slot.done += moved;
            let full = slot.done == slot.len;
            match (reading, full) {
                (true, false) => push(queue, slots[index], index, base, true)?,
                (true, true) => {
                    slot.done = 0;
                    push(queue, slots[index], index, base, false)?;
                }
                (false, false) => push(queue, slots[index], index, base, false)?,
                (false, true) => start(queue, &mut slots, index, &mut next, len, base)?,
            }
        }
    }
    queue.submitter().unregister_buffers()
}

/// Gives a slot the next block, if one is left.
fn start(
    queue: &mut Queue,
    slots: &mut [Slot; DEPTH],
    index: usize,
    next: &mut u64,
    len: u64,
    base: *mut u8,
) -> io::Result<()> {
    if *next >= len {
        return Ok(());
    }
    let take = BLOCK.min((len - *next) as usize);
    slots[index] = Slot { offset: *next, len: take, done: 0 };
    *next += take as u64;
    push(queue, slots[index], index, base, true)
}

/// Queues the rest of a slot's read or write.
fn push(queue: &mut Queue, slot: Slot, index: usize, base: *mut u8, read: bool) -> io::Result<()> {
    let at = base.wrapping_add(index * BLOCK + slot.done);
    let left = (slot.len - slot.done) as u32;
    let offset = slot.offset + slot.done as u64;
    let entry = if read {
        opcode::ReadFixed::new(types::Fixed(0), at, left, index as u16).offset(offset).build()
    } else {
        opcode::WriteFixed::new(types::Fixed(1), at, left, index as u16).offset(offset).build()
    };
    // SAFETY: `at` lies in the slot's own part of the buffers, which are never freed,
    // and a slot has one request at a time.
    unsafe { queue.push(entry, index as u32) }
}
