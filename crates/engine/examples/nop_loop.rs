//! Submits NOPs for ever so long, or reads: something for `perf stat` and callgrind to look at.
//!
//! `nop_loop BATCH ENTERS [FILE [VECTORS]]`; with a file, 4096 bytes are read from its start each time, by READV where a
//! number of vectors is given. Prints nanoseconds per operation.
#![allow(unsafe_code)]

use soloring_abi::{IoVec, Opcode, Params, Sqe, raw};
use soloring_engine::uapi;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

fn main() {
    let arg =
        |n: usize, or: u32| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(or);
    let (batch, enters) = (arg(1, 1), arg(2, 10_000_000));
    // SAFETY: all-zero parameters are valid.
    let mut p: Params = unsafe { std::mem::zeroed() };
    p.flags = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
    // SAFETY: `p` is ours; the rings below are mapped at the sizes that setup reports.
    let (fd, rings, sqes) = unsafe {
        let fd = uapi::io_uring_setup(64, &raw mut p) as i32;
        assert!(fd >= 0, "setup: {fd}");
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let rings = uapi::ring_mmap(0, 4096, both, libc::MAP_SHARED, fd, 0).unwrap();
        let at = raw::IORING_OFF_SQES as i64;
        let sqes = uapi::ring_mmap(0, 64 * 64, both, libc::MAP_SHARED, fd, at).unwrap();
        (fd as u32, rings as usize, sqes as usize)
    };
    // SAFETY: offsets from setup, inside the mapping.
    let word = |off: u32| unsafe { AtomicU32::from_ptr((rings + off as usize) as *mut u32) };
    for i in 0..p.sq_entries {
        word(p.sq_off.array + i * 4).store(i, Ordering::Relaxed);
        // SAFETY: entry `i` of the mapped SQEs.
        unsafe { (sqes as *mut Sqe).add(i as usize).write(Sqe::default()) };
    }
    let file = std::env::args().nth(3).map(|path| std::fs::File::open(path).expect("the file"));
    let mut buffer = vec![0u8; 4096];
    let vectors = arg(4, 0);
    let base = buffer.as_mut_ptr() as u64;
    let piece = 4096 / u64::from(vectors.max(1));
    // On the heap, as programs have them.
    let iov: Vec<IoVec> =
        (0..u64::from(vectors)).map(|i| IoVec { base: base + i * piece, len: piece }).collect();
    let (opcode, file_fd, at, len) = match &file {
        Some(file) if vectors > 0 => {
            (Opcode::Readv as u8, file.as_raw_fd(), iov.as_ptr() as u64, vectors)
        }
        Some(file) => (Opcode::Read as u8, file.as_raw_fd(), base, 4096),
        None => (Opcode::Nop as u8, -1, 0, 0),
    };
    let start = std::time::Instant::now();
    let mut tail = 0u32;
    for _ in 0..enters {
        for i in 0..batch {
            // SAFETY: an entry of the mapped SQEs, which the engine has consumed. Field by field, as a
            // program's prep functions write it.
            unsafe {
                let sqe = (sqes as *mut Sqe).add((tail.wrapping_add(i) & 63) as usize);
                (&raw mut (*sqe).opcode).write_volatile(opcode);
                (&raw mut (*sqe).flags).write_volatile(0);
                (&raw mut (*sqe).ioprio).write_volatile(0);
                (&raw mut (*sqe).fd).write_volatile(file_fd);
                (&raw mut (*sqe).off).write_volatile(0);
                (&raw mut (*sqe).addr).write_volatile(at);
                (&raw mut (*sqe).len).write_volatile(len);
                (&raw mut (*sqe).op_flags).write_volatile(0);
                (&raw mut (*sqe).user_data).write_volatile(u64::from(tail));
            }
        }
        tail = tail.wrapping_add(batch);
        // Release: pairs with the engine's acquire load of the tail.
        word(p.sq_off.tail).store(tail, Ordering::Release);
        // SAFETY: the entries are NOPs, or reads into a buffer that stays.
        let done = unsafe {
            uapi::io_uring_enter(fd, batch, batch, raw::IORING_ENTER_GETEVENTS, std::ptr::null(), 0)
        };
        assert_eq!(done, batch as isize);
        // Acquire: pairs with the engine's release store of the CQ tail.
        let reaped = word(p.cq_off.tail).load(Ordering::Acquire);
        assert_eq!(reaped, tail);
        // Release: pairs with the engine's acquire load of the head.
        word(p.cq_off.head).store(reaped, Ordering::Release);
    }
    let ns = start.elapsed().as_nanos() as f64 / (enters as f64 * batch as f64);
    println!("{ns:.1} ns per operation at batch {batch}");
}
