//! Random 4 KiB reads of a file in the page cache, 32 in flight, each block checked.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use soloring_abi::{Opcode, Sqe, sqe_flags};

use super::ring::Ring;
use super::work::{Clock, Sample, Way};
use crate::backend::Backend;

pub const BLOCK: usize = 4096;
const DEPTH: usize = 32;
const PIECES: usize = 4;

/// xorshift64*: block numbers that all variants read in the same order.
struct Blocks {
    state: u64,
    count: u64,
}

impl Blocks {
    fn new(count: u64) -> Blocks {
        Blocks { state: 0x9e37_79b9_7f4a_7c15, count }
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let word = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(word) * u128::from(self.count)) >> 64) as u64
    }
}

/// Writes a file of `blocks` blocks, each starting with its number.
pub fn write_file(path: &Path, blocks: u64) -> io::Result<()> {
    use std::io::Write;
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    let mut block = [0u8; BLOCK];
    for number in 0..blocks {
        block[..8].copy_from_slice(&number.to_ne_bytes());
        file.write_all(&block)?;
    }
    file.flush()
}

fn wrong_block(number: u64) -> io::Error {
    io::Error::other(format!("a read of block {number} failed or gave other bytes"))
}

/// A block's buffer as vectors.
fn pieces(buffer: *mut u8) -> [libc::iovec; PIECES] {
    std::array::from_fn(|i| libc::iovec {
        iov_base: buffer.wrapping_add(i * BLOCK / PIECES).cast(),
        iov_len: BLOCK / PIECES,
    })
}

/// Keeps 32 reads in flight; a turn submits as many as have come back, and waits for one.
pub fn ring<B: Backend>(
    backend: B,
    flags: u32,
    path: &Path,
    blocks: u64,
    way: Way,
    ms: u64,
) -> io::Result<Sample> {
    let file = File::open(path)?;
    // Leaked, as after an error return the ring may still be reading into them; a worker lives briefly.
    let base = vec![0u8; (DEPTH + 1) * BLOCK].leak().as_mut_ptr();
    let base = base.wrapping_add(base.align_offset(BLOCK));
    let buffer = |slot: usize| base.wrapping_add(slot * BLOCK);
    let mut ring = Ring::new(backend, DEPTH as u32, flags)?;
    if way == Way::Registered {
        let mut list: Vec<libc::iovec> = (0..DEPTH)
            .map(|slot| libc::iovec { iov_base: buffer(slot).cast(), iov_len: BLOCK })
            .collect();
        // SAFETY: the buffers are never freed.
        unsafe { ring.register(file.as_raw_fd(), &mut list)? };
    }
    let vectors: Vec<_> = (0..DEPTH).map(|slot| pieces(buffer(slot))).collect();
    let vectors = vectors.leak();
    let fd = file.as_raw_fd();
    let template = match way {
        Way::Plain => Sqe { opcode: Opcode::Read as u8, fd, ..Sqe::default() },
        Way::Vectored => Sqe { opcode: Opcode::Readv as u8, fd, ..Sqe::default() },
        Way::Registered => {
            Sqe { opcode: Opcode::ReadFixed as u8, flags: sqe_flags::FIXED_FILE, ..Sqe::default() }
        }
    };

    let mut numbers = Blocks::new(blocks);
    let mut reading = [0u64; DEPTH];
    let mut idle: Vec<usize> = (0..DEPTH).collect();
    let mut wrong = None;
    let mut turn = || -> io::Result<u64> {
        while let Some(slot) = idle.pop() {
            reading[slot] = numbers.next();
            let (addr, len) = match way {
                Way::Vectored => (vectors[slot].as_ptr() as u64, PIECES as u32),
                _ => (buffer(slot) as u64, BLOCK as u32),
            };
            let sqe = Sqe {
                off: reading[slot] * BLOCK as u64,
                addr,
                len,
                user_data: slot as u64,
                buf_index: if way == Way::Registered { slot as u16 } else { 0 },
                ..template
            };
            // SAFETY: at most `DEPTH` are in flight; a slot's buffer has one request at a time.
            unsafe { ring.push(sqe) };
        }
        ring.enter(1)?;
        let done = ring.reap(|cqe| {
            let slot = cqe.user_data as usize % DEPTH;
            // SAFETY: the slot's buffer is valid for ever and its request has completed.
            let got = unsafe { buffer(slot).cast::<u64>().read() };
            if cqe.res != BLOCK as i32 || got != reading[slot] {
                wrong = Some(reading[slot]);
            }
            idle.push(slot);
        });
        match wrong {
            Some(number) => Err(wrong_block(number)),
            None => Ok(u64::from(done)),
        }
    };
    let clock = Clock::warm_up(ms, 64, &mut turn)?;
    clock.run(1, turn)
}

/// One `pread` or `preadv` after the other, into as many buffers as the rings use: the caches see the same.
pub fn plain(path: &Path, blocks: u64, way: Way, ms: u64) -> io::Result<Sample> {
    let file = File::open(path)?;
    let mut numbers = Blocks::new(blocks);
    let mut buffers = vec![[0u8; BLOCK]; DEPTH];
    let mut turn = || -> io::Result<u64> {
        for buffer in &mut buffers {
            let number = numbers.next();
            let offset = number * BLOCK as u64;
            let got = if way == Way::Vectored {
                let vectors = pieces(buffer.as_mut_ptr());
                let (fd, offset) = (file.as_raw_fd(), offset as libc::off_t);
                // SAFETY: the vectors are four parts of a buffer that is borrowed for the call.
                let got = unsafe { libc::preadv(fd, vectors.as_ptr(), PIECES as i32, offset) };
                usize::try_from(got).map_err(|_| io::Error::last_os_error())?
            } else {
                file.read_at(buffer, offset)?
            };
            if got != BLOCK || buffer[..8] != number.to_ne_bytes() {
                return Err(wrong_block(number));
            }
        }
        Ok(DEPTH as u64)
    };
    let clock = Clock::warm_up(ms, 64, &mut turn)?;
    clock.run(1, turn)
}
