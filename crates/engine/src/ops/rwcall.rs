//! The calls of reads and writes, and what a request of that family has left to transfer.
#![allow(unsafe_code)]

use super::rwrules;
use crate::creds::sys_as;
use crate::req::{AsyncData, File, Req, flag};
use crate::sys::{self, FileKind, MAX_RW_COUNT};
use soloring_abi::{Errno, IoVec, Opcode, sqe_flags};

pub const RWF_NOWAIT: u32 = libc::RWF_NOWAIT as u32;

/// Bits of what an opcode of this family is.
const WRITES: u8 = 1;
const VECTORED: u8 = 2;
const FIXED_BUF: u8 = 4;

/// By opcode number: a load instead of comparisons, several times for each transfer.
static KINDS: [u8; 64] = {
    let mut kinds = [0; 64];
    kinds[Opcode::Write as usize] = WRITES;
    kinds[Opcode::Readv as usize] = VECTORED;
    kinds[Opcode::Writev as usize] = VECTORED | WRITES;
    kinds[Opcode::ReadFixed as usize] = FIXED_BUF;
    kinds[Opcode::WriteFixed as usize] = FIXED_BUF | WRITES;
    kinds[Opcode::ReadvFixed as usize] = FIXED_BUF | VECTORED;
    kinds[Opcode::WritevFixed as usize] = FIXED_BUF | VECTORED | WRITES;
    kinds
};

#[inline(always)]
fn is(req: &Req, kind: u8) -> bool {
    KINDS[req.sqe.opcode as usize % 64] & kind != 0
}

#[inline(always)]
pub fn is_write(req: &Req) -> bool {
    is(req, WRITES)
}

#[inline(always)]
pub fn is_vectored(req: &Req) -> bool {
    is(req, VECTORED) && !selects(req)
}

/// Whether the buffer is a provided one.
pub fn selects(req: &Req) -> bool {
    req.sqe.flags & sqe_flags::BUFFER_SELECT != 0
}

#[inline(always)]
pub fn is_fixed_buf(req: &Req) -> bool {
    is(req, FIXED_BUF)
}

/// The bytes still to transfer, as one vector; `single` backs the non-vectored case.
fn remaining<'a>(req: &'a Req, single: &'a mut [IoVec; 1]) -> &'a [IoVec] {
    if let AsyncData::Iov(iov) = &req.data {
        return iov;
    }
    let left = (req.sqe.len as u64).min(MAX_RW_COUNT) - req.done as u64;
    *single = [IoVec { base: req.sqe.addr + req.done as u64, len: left }];
    if is_vectored(req) { &single[..0] } else { single }
}

/// Drops `n` transferred bytes from the front of a copied vector.
pub fn advance(req: &mut Req, mut n: u64) {
    req.done += n as u32;
    if let AsyncData::Iov(iov) = &mut req.data {
        for v in iov.iter_mut() {
            let step = n.min(v.len);
            v.base += step;
            v.len -= step;
            n -= step;
            if n == 0 {
                break;
            }
        }
        let skip = iov.iter().take_while(|v| v.len == 0).count();
        if skip < iov.len() {
            iov.drain(..skip);
        }
    }
}

/// Bytes of them.
#[inline]
pub fn left(req: &Req) -> u64 {
    match &req.data {
        AsyncData::Iov(iov) => iov.iter().map(|v| v.len).sum::<u64>().min(MAX_RW_COUNT),
        _ if is_vectored(req) => 0,
        _ => (req.sqe.len as u64).min(MAX_RW_COUNT) - req.done as u64,
    }
}

/// One `preadv2` or `pwritev2` for what is left.
#[inline]
pub fn transfer(req: &Req, extra_flags: u32) -> Result<usize, Errno> {
    let mut single = [IoVec::default()];
    let iov = remaining(req, &mut single);
    transfer_vector(req, (iov.as_ptr() as u64, iov.len()), extra_flags)
}

/// The same with a vector given by address and count.
#[inline(always)]
pub fn transfer_vector(req: &Req, vector: (u64, usize), extra_flags: u32) -> Result<usize, Errno> {
    let (iov, count) = vector;
    let pos = if req.has(flag::STREAM) || req.sqe.off == u64::MAX {
        u64::MAX
    } else {
        req.sqe.off.wrapping_add(req.done as u64)
    };
    let flags = req.sqe.op_flags | extra_flags;
    let fd = req.fd();
    // SAFETY: the kernel checks every range of the vector against the program's address space, and the vector
    // itself unless it is ours. Where it writes is where the program asked it to.
    unsafe {
        if is_write(req) {
            sys_as!(req, pwritev2, fd, iov, count, pos, pos >> 32, flags)
        } else {
            sys_as!(req, preadv2, fd, iov, count, pos, pos >> 32, flags)
        }
    }
}

/// As [`transfer`], falling back to the current position for files that have no other.
#[inline]
pub fn transfer_anywhere(req: &mut Req, extra_flags: u32) -> Result<usize, Errno> {
    match transfer(req, extra_flags) {
        Err(Errno::ESPIPE) if !req.has(flag::STREAM) => {
            // A pipe ignores the offset, but it has to be one; a socket refuses any but 0.
            (req.sqe.off as i64).checked_add(left(req) as i64).ok_or(Errno::EINVAL)?;
            let socket = || sys::file_kind(req.fd()).is_ok_and(FileKind::is_socket);
            if req.sqe.off != 0 && socket() {
                return Err(Errno::ESPIPE);
            }
            req.flags |= flag::STREAM;
            transfer(req, extra_flags)
        }
        other => other,
    }
}

/// As [`transfer_anywhere`] where it may block: a file without the vectored calls minds no flags.
pub fn transfer_blocking(req: &mut Req) -> Result<usize, Errno> {
    match transfer_anywhere(req, 0) {
        Err(Errno::EOPNOTSUPP) if rwrules::is_indifferent(req) => {
            req.sqe.op_flags = 0;
            transfer_anywhere(req, 0)
        }
        Ok(0) if left(req) == 0 && req.done == 0 => rwrules::empty_call(req, is_write(req)),
        other => other,
    }
}

pub fn is_storage(req: &Req) -> bool {
    match req.file {
        File::Fixed { storage, .. } => storage,
        _ if req.has(flag::STORAGE) => true,
        _ => sys::file_kind(req.fd()).is_ok_and(|k| k.is_storage()),
    }
}

/// Key under which punted writes are serialised: one file at a time, as the kernel hashes by inode.
pub fn write_hash(req: &Req) -> Option<u64> {
    if !is_write(req) {
        return None;
    }
    let kind = sys::file_kind(req.fd()).ok().filter(|k| k.is_regular())?;
    let direct =
        sys::fcntl(req.fd(), libc::F_GETFL, 0).is_ok_and(|f| f as i32 & libc::O_DIRECT != 0);
    (!direct).then(|| kind.key())
}
