//! Memory of the process with many requests in flight, and after a million finished ones.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use soloring_abi::{Opcode, Sqe, Timespec};

use super::ring::Ring;
use super::work::{Armed, Memory};
use crate::backend::Backend;

const ENTRIES: u32 = 256;

/// Anonymous memory in use, in bytes: what the process allocated, without the rings (which are shared
/// memory), code and files.
fn anonymous() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    text.lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("/proc/self/status has no RssAnon"))
}

fn descriptors() -> io::Result<u64> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64)
}

/// Arms `requests` requests that nothing will complete, and looks at the memory then. One turn of
/// the same before that, completed, so that what a ring allocates once is not counted.
pub fn armed<B: Backend>(backend: B, flags: u32, kind: Armed, requests: u64) -> io::Result<Memory> {
    let (idle, _other) = UnixStream::pair()?;
    let limit = Box::leak(Box::new(Timespec { tv_sec: 3600, tv_nsec: 0 }));
    let into = vec![0u8; 64].leak().as_mut_ptr();
    let sqe = match kind {
        Armed::Poll => Sqe {
            opcode: Opcode::PollAdd as u8,
            fd: idle.as_raw_fd(),
            op_flags: libc::POLLIN as u32,
            ..Sqe::default()
        },
        Armed::Recv => Sqe {
            opcode: Opcode::Recv as u8,
            fd: idle.as_raw_fd(),
            addr: into as u64,
            len: 64,
            ..Sqe::default()
        },
        Armed::Timeout => Sqe {
            opcode: Opcode::Timeout as u8,
            fd: -1,
            addr: (&raw const *limit) as u64,
            len: 1,
            ..Sqe::default()
        },
    };
    let mut ring = Ring::new(backend, ENTRIES, flags)?;
    let arm = |ring: &mut Ring<B>, count: u64| -> io::Result<()> {
        for token in 0..count {
            // SAFETY: submitted as soon as the ring is full; socket, buffer and time are kept.
            unsafe { ring.push(Sqe { user_data: token, ..sqe }) };
            if token % u64::from(ENTRIES) == u64::from(ENTRIES) - 1 || token == count - 1 {
                ring.enter(0)?;
            }
        }
        Ok(())
    };
    arm(&mut ring, u64::from(ENTRIES))?;
    let (before, descriptors_before) = (anonymous()?, descriptors()?);
    arm(&mut ring, requests)?;
    let memory = Memory {
        requests,
        before,
        after: anonymous()?,
        descriptors: descriptors()?.saturating_sub(descriptors_before),
        engine_requests: 0,
    };
    let mut result = 0;
    let early = ring.reap(|cqe| result = cqe.res);
    if early != 0 {
        return Err(io::Error::other(format!(
            "{early} requests completed that should have waited, the last with {result}"
        )));
    }
    Ok(memory)
}

/// Finishes `operations` requests of four kinds: at once, by readiness, by time, and cancelled.
pub fn growth<B: Backend>(backend: B, flags: u32, operations: u64) -> io::Result<Memory> {
    let (near, far) = UnixStream::pair()?;
    let limit = Box::leak(Box::new(Timespec { tv_sec: 0, tv_nsec: 1000 }));
    let bytes = vec![0u8; 2].leak().as_mut_ptr();
    let mut ring = Ring::new(backend, ENTRIES, flags)?;
    let mut turn = || -> io::Result<u64> {
        let nop = Sqe { opcode: Opcode::Nop as u8, fd: -1, ..Sqe::default() };
        let recv = Sqe {
            opcode: Opcode::Recv as u8,
            fd: near.as_raw_fd(),
            addr: bytes as u64,
            len: 1,
            user_data: 1,
            ..Sqe::default()
        };
        let send = Sqe {
            opcode: Opcode::Send as u8,
            fd: far.as_raw_fd(),
            addr: bytes.wrapping_add(1) as u64,
            len: 1,
            ..Sqe::default()
        };
        let timeout = Sqe {
            opcode: Opcode::Timeout as u8,
            fd: -1,
            addr: (&raw const *limit) as u64,
            len: 1,
            ..Sqe::default()
        };
        let poll = Sqe {
            opcode: Opcode::PollAdd as u8,
            fd: far.as_raw_fd(),
            op_flags: libc::POLLIN as u32,
            user_data: 2,
            ..Sqe::default()
        };
        let cancel = Sqe { opcode: Opcode::AsyncCancel as u8, fd: -1, addr: 2, ..Sqe::default() };
        let list = [recv, poll, send, cancel, timeout, nop, nop, nop];
        for sqe in list {
            // SAFETY: the ring has room for a turn; sockets, buffers and the time are kept.
            unsafe { ring.push(sqe) };
        }
        let mut done = 0;
        while done < list.len() as u32 {
            ring.enter(list.len() as u32 - done)?;
            done += ring.reap(|_| ());
        }
        Ok(u64::from(done))
    };
    let mut finished = 0;
    while finished < operations / 10 {
        finished += turn()?;
    }
    let (before, descriptors_before) = (anonymous()?, descriptors()?);
    let mut requests = 0;
    while requests < operations {
        requests += turn()?;
    }
    Ok(Memory {
        requests,
        before,
        after: anonymous()?,
        descriptors: descriptors()?.saturating_sub(descriptors_before),
        engine_requests: 0,
    })
}
