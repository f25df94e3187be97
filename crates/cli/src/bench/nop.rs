//! NOP in batches against one system call each: the cost of the ring itself.
#![allow(unsafe_code)]

use std::io;

use soloring_abi::{Opcode, Sqe};

use super::ring::Ring;
use super::work::{Clock, Sample};
use crate::backend::Backend;

/// Submits `batch` NOPs, waits for all of them, takes their completions, until the time is over.
pub fn ring<B: Backend>(backend: B, flags: u32, batch: u32, ms: u64) -> io::Result<Sample> {
    let mut ring = Ring::new(backend, batch.max(8).next_power_of_two(), flags)?;
    let mut wrong = 0u64;
    let mut turn = || -> io::Result<u64> {
        for token in 0..u64::from(batch) {
            // Made anew each time, as a program's prep function does.
            let nop = Sqe { opcode: Opcode::Nop as u8, fd: -1, user_data: token, ..Sqe::default() };
            // SAFETY: the ring has at least `batch` entries, all taken each time; NOP names no memory.
            unsafe { ring.push(nop) };
        }
        ring.enter(batch)?;
        let mut next = 0;
        ring.reap(|cqe| {
            wrong += u64::from(cqe.user_data != next || cqe.res != 0);
            next += 1;
        });
        wrong += u64::from(next != u64::from(batch));
        Ok(next)
    };
    let clock = Clock::warm_up(ms, 1 + 256 / u64::from(batch), &mut turn)?;
    let sample = clock.run(1, turn)?;
    match wrong {
        0 => Ok(sample),
        _ => Err(io::Error::other("NOP completions were missing, out of order or failed")),
    }
}

/// `getppid` once an operation: the cheapest call that glibc does not answer itself.
pub fn plain(batch: u32, ms: u64) -> io::Result<Sample> {
    let mut turn = || {
        for _ in 0..batch {
            // SAFETY: takes nothing and cannot fail.
            std::hint::black_box(unsafe { libc::syscall(libc::SYS_getppid) });
        }
        Ok(u64::from(batch))
    };
    let clock = Clock::warm_up(ms, 1 + 256 / u64::from(batch), &mut turn)?;
    clock.run(1, turn)
}
