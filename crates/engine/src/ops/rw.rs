//! READ, WRITE, READV, WRITEV, their forms with registered buffers, READ_MULTISHOT.
//!
//! Inline attempts are `preadv2`/`pwritev2` with RWF_NOWAIT. Storage that would block goes to a bounded
//! worker (writes hashed by inode), everything else waits for readiness.

use super::rwcall::{
    RWF_NOWAIT, advance, is_fixed_buf, is_storage, is_vectored, is_write, left, selects, transfer,
    transfer_anywhere, transfer_blocking, transfer_vector,
};
use super::{Attempt, BASE, OpDef, Outcome, retry_eintr, rwrules};
use crate::req::{AsyncData, File, Req, flag};
use crate::state::State;
use crate::sys::{self, FileKind, MAX_RW_COUNT};
use crate::{lent, usercopy};
use soloring_abi::{Errno, IoVec, Opcode, raw};
use soloring_iowq::{Class, Interrupt};
use std::sync::Arc;

pub const RW: OpDef = OpDef {
    prep,
    issue,
    run,
    has_run: true,
    block_when: is_storage,
    stabilise,
    needs_file: true,
    ioprio: true,
    iopoll: true,
    ..BASE
};

pub const READ: OpDef = OpDef { buffer_select: true, ..RW };
pub const WRITE: OpDef = OpDef { ..RW };
pub const READV: OpDef = OpDef { buffer_select: true, ..RW };
pub const WRITEV: OpDef = OpDef { ..RW };
pub const READ_FIXED: OpDef = OpDef { ..RW };
pub const WRITE_FIXED: OpDef = OpDef { ..RW };
pub const READV_FIXED: OpDef = OpDef { ..RW };
pub const WRITEV_FIXED: OpDef = OpDef { ..RW };

/// What is said of a descriptor without a file, and of a file that was not opened for this.
const NO_FILE: Outcome = Outcome::Done(-libc::EBADF, 0);
const UIO_MAXIOV: u32 = 1024;

/// Entries of 16 bytes that the kernel finds memory for in one piece.
const KMALLOC_MAX_ENTRIES: u64 = 1 << 18;

fn opcode(req: &Req) -> Opcode {
    Opcode::from_raw(req.sqe.opcode).expect("checked at submission")
}

pub fn prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    if sqe.ioprio != 0 {
        // IOPRIO_CLASS: none, real-time (1), best effort (2), idle (3); levels 0 to 7.
        let class = sqe.ioprio >> 13;
        if class > 3 || class == 0 && sqe.ioprio & 7 != 0 {
            return Err(Errno::EINVAL);
        }
    }
    if sqe.pad2 != 0 {
        // attr_type_mask: integrity metadata needs a device that the kernel ring talks to.
        return Err(if sqe.pad2 == raw::IORING_RW_ATTR_FLAG_PI as u64 {
            Errno::EOPNOTSUPP
        } else {
            Errno::EINVAL
        });
    }
    if selects(req) {
        return select_prep(req);
    }
    if is_vectored(req) {
        return prep_vectored(req);
    }
    if is_fixed_buf(req) {
        return Ok(());
    }
    usercopy::access_ok(sqe.addr, (sqe.len as u64).min(MAX_RW_COUNT))
}

/// Sees to the vector: it is copied, or lent to an attempt that follows at once.
#[inline(never)]
fn prep_vectored(req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    if sqe.len > UIO_MAXIOV {
        // More than the kernel would find memory for: it looks for that first, if only here.
        let huge = is_fixed_buf(req) && sqe.len > 1 << 18;
        return Err(if huge { Errno::ENOMEM } else { Errno::EINVAL });
    }
    if sqe.len == 0 {
        return Ok(());
    }
    if req.has(flag::PLAIN) && !is_fixed_buf(req) && sqe.op_flags == 0 && lent::is_possible() {
        req.flags |= flag::LENT;
        return Ok(());
    }
    copy_vector(req)
}

/// The vector itself must be readable at submission, as the kernel imports it there.
fn copy_vector(req: &mut Req) -> Result<(), Errno> {
    let iov = usercopy::read_vectors(req.sqe.addr, req.sqe.len as usize)?;
    if !is_fixed_buf(req) {
        iov.iter().try_for_each(|v| usercopy::access_ok(v.base, v.len))?;
    }
    req.data = AsyncData::Iov(iov);
    req.flags |= flag::STABLE;
    Ok(())
}

/// READV with a provided buffer has one vector, of which only the length counts.
fn select_prep(req: &mut Req) -> Result<(), Errno> {
    if opcode(req) == Opcode::Readv {
        if req.sqe.len != 1 {
            return Err(Errno::EINVAL);
        }
        let iov: IoVec = usercopy::read(req.sqe.addr)?;
        req.sqe.len = iov.len.min(MAX_RW_COUNT) as u32;
    }
    Ok(())
}

/// Single buffers are plain numbers, and most vectors were copied at once.
fn stabilise(req: &mut Req) -> Result<(), Errno> {
    if req.has(flag::LENT) { lent::take(req, copy_vector) } else { Ok(()) }
}

/// Checks a range against the registered buffer that the request names.
///
/// # Errors
/// EFAULT when there is none or it does not hold the range.
pub fn check_fixed(st: &State, req: &Req, addr: u64, len: u64) -> Result<(), Errno> {
    let table = st.bufs.as_ref().ok_or(Errno::EFAULT)?;
    let node = table.get(req.sqe.buf_index as u32).ok_or(Errno::EFAULT)?;
    if node.item.contains(addr, len) { Ok(()) } else { Err(Errno::EFAULT) }
}

/// As [`check_fixed`], for each element; none may be empty.
pub fn check_fixed_vector(st: &State, req: &Req, iov: &[IoVec]) -> Result<(), Errno> {
    let table = st.bufs.as_ref().ok_or(Errno::EFAULT)?;
    let node = table.get(req.sqe.buf_index as u32).ok_or(Errno::EFAULT)?;
    let holds = iov.iter().all(|v| v.len != 0 && node.item.contains(v.base, v.len));
    if holds { Ok(()) } else { Err(outside(iov)) }
}

/// What is said of a vector that the buffer does not hold: the kernel first looks for memory to describe its pages,
/// by the lengths alone.
#[cold]
fn outside(iov: &[IoVec]) -> Errno {
    let pages: u64 = iov.iter().map(|v| (v.len >> 12) + 2).sum();
    match pages + iov.len() as u64 {
        _ if pages > i32::MAX as u64 => Errno::EOVERFLOW,
        entries if entries > KMALLOC_MAX_ENTRIES => Errno::ENOMEM,
        _ => Errno::EFAULT,
    }
}

fn import_fixed(st: &State, req: &Req) -> Result<(), Errno> {
    match &req.data {
        AsyncData::Iov(iov) => check_fixed_vector(st, req, iov),
        // No vector at all; the buffer is looked up all the same.
        _ if is_vectored(req) => {
            let table = st.bufs.as_ref().ok_or(Errno::EFAULT)?;
            table.get(req.sqe.buf_index as u32).map(drop).ok_or(Errno::EFAULT)
        }
        _ => check_fixed(st, req, req.sqe.addr, req.sqe.len as u64),
    }
}

/// Keeps the registered buffer alive beyond the inline attempt.
pub fn hold_fixed(st: &State, req: &mut Req) {
    if req.held_buf.is_none() {
        let node = st.bufs.as_ref().and_then(|t| t.get(req.sqe.buf_index as u32));
        req.held_buf = node.map(|n| Arc::clone(&n.item));
    }
}

fn hold_buf(st: &State, req: &mut Req) {
    if is_fixed_buf(req) {
        hold_fixed(st, req);
    }
}

/// Whether this may be a direct transfer, which RWF_NOWAIT would still wait for.
fn may_be_direct(st: &mut State, req: &Req) -> bool {
    if let File::Fixed { direct, .. } = req.file {
        return direct;
    }
    // O_DIRECT needs aligned offsets: the flag is asked for only then.
    req.sqe.off.is_multiple_of(512)
        && (req.has(flag::LENT) || left(req).is_multiple_of(512))
        && st.facts.is_direct(req.fd())
}

/// Whether there is no point in an attempt that must not wait.
#[inline(always)]
fn waits_anyway(st: &mut State, req: &mut Req) -> bool {
    may_be_direct(st, req) || is_write(req) && is_slow_write(st, req)
}

#[inline(never)]
fn is_slow_write(st: &mut State, req: &mut Req) -> bool {
    let known = req.sqe.len > 0 && st.facts.slow_writes(req.fd()).is_some();
    if known {
        req.flags |= flag::STORAGE;
    }
    known
}

/// What an IOPOLL ring reads and writes: storage opened O_DIRECT.
fn is_direct_storage(req: &Req) -> bool {
    let direct =
        || sys::fcntl(req.fd(), libc::F_GETFL, 0).is_ok_and(|f| f as i32 & libc::O_DIRECT != 0);
    is_storage(req) && direct()
}

#[inline]
fn check_iopoll(st: &State, req: &Req) -> Result<(), Errno> {
    if !st.setup_has(raw::IORING_SETUP_IOPOLL) || is_direct_storage(req) {
        return Ok(());
    }
    Err(rwrules::check_mode(req, is_write(req)).err().unwrap_or(Errno::EOPNOTSUPP))
}

fn done(req: &mut Req, total: i32) -> Outcome {
    let wanted = req.done as u64 + left(req);
    if (total as u64) < wanted {
        req.flags |= flag::FAIL;
    }
    Outcome::Done(total, 0)
}

/// What the kernel says of `rw_flags` once it has the file, whatever the length is.
#[cold]
pub fn check_rw_flags(st: &State, req: &Req) -> Result<(), Errno> {
    const HIPRI: u32 = 1;
    rwrules::check_open(req)?;
    if is_fixed_buf(req) && req.held_buf.is_none() {
        import_fixed(st, req)?;
    }
    rwrules::check_all(req, is_write(req))?;
    if req.sqe.op_flags & HIPRI != 0 && !st.setup_has(raw::IORING_SETUP_IOPOLL) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if req.sqe.op_flags != 0
        && let Err(e) = check_rw_flags(st, req)
    {
        return Outcome::err(e);
    }
    if selects(req) && req.cqe_flags == 0 {
        return issue_select(st, req, attempt);
    }
    issue_at(st, req, attempt)
}

/// As [`issue_at`], with the buffer that the group would give now. It is taken when the attempt used
/// it, and when a worker goes on with it.
#[inline(never)]
fn issue_select(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    let group = req.sqe.buf_index;
    let Some(buf) = st.kbuf.peek(group, req.sqe.len) else {
        let woken = attempt != Attempt::First;
        if woken && sys::poll_now(req.fd(), libc::POLLIN) == 0 {
            return Outcome::Arm(libc::POLLIN as u32);
        }
        return Outcome::err(rwrules::check_open(req).err().unwrap_or(Errno::ENOBUFS));
    };
    let before = (req.sqe.addr, req.sqe.len);
    (req.sqe.addr, req.sqe.len) = (buf.addr, buf.len);
    let outcome = issue_at(st, req, attempt);
    match outcome {
        Outcome::Done(res, _) if res >= 0 => {
            // A file that cannot be polled has its whole share taken before the attempt.
            let whole = st.kbuf.is_incremental(group) && is_storage(req);
            let used = if whole { buf.len as u64 } else { res as u64 };
            req.cqe_flags = st.kbuf.commit(group, used);
        }
        // What cannot be waited for has taken its buffer already, and classic ones are not put back.
        // Nor does a buffer go to what is no file to read at all.
        Outcome::Done(..) if outcome == NO_FILE && rwrules::check_open(req).is_err() => {
            (req.sqe.addr, req.sqe.len) = before;
        }
        Outcome::Done(..) if !st.kbuf.is_ring(group) || is_storage(req) => {
            req.cqe_flags = st.kbuf.commit(group, buf.len as u64);
        }
        Outcome::Punt(_) => req.cqe_flags = st.kbuf.commit(group, buf.len as u64),
        _ => (req.sqe.addr, req.sqe.len) = before,
    }
    outcome
}

/// Sees to the buffer of a request that goes straight to a worker: checks a registered one, chooses a provided one.
///
/// # Errors
/// EFAULT, EBADF, ENOBUFS, EOPNOTSUPP.
pub fn select_for_worker(st: &mut State, req: &mut Req) -> Result<(), Errno> {
    if is_fixed_buf(req) && req.held_buf.is_none() {
        import_fixed(st, req).map_err(|e| rwrules::check_open(req).err().unwrap_or(e))?;
        hold_fixed(st, req);
    }
    check_iopoll(st, req)?;
    if selects(req) && req.cqe_flags == 0 {
        rwrules::check_open(req)?;
        let group = req.sqe.buf_index;
        let buf = st.kbuf.peek(group, req.sqe.len).ok_or(Errno::ENOBUFS)?;
        (req.sqe.addr, req.sqe.len) = (buf.addr, buf.len);
        req.cqe_flags = st.kbuf.commit(group, buf.len as u64);
    }
    Ok(())
}

fn issue_at(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if is_fixed_buf(req)
        && req.held_buf.is_none()
        && let Err(e) = import_fixed(st, req)
    {
        // The file comes first.
        return Outcome::err(rwrules::check_open(req).err().unwrap_or(e));
    }
    if let Err(e) = check_iopoll(st, req) {
        return Outcome::err(e);
    }
    if req.has(flag::LENT)
        && let Some(outcome) = issue_lent(st, req)
    {
        return outcome;
    }
    if attempt == Attempt::First && req.sqe.op_flags & RWF_NOWAIT == 0 && waits_anyway(st, req) {
        hold_buf(st, req);
        return Outcome::Punt(Class::Bounded);
    }
    let result = match transfer_anywhere(req, RWF_NOWAIT) {
        Ok(0) if left(req) == 0 => return settle_empty(st, req),
        Ok(n) => return after_progress(st, req, n),
        Err(e) => e,
    };
    match result {
        Errno::EINVAL if req.done == 0 => {
            let first = attempt == Attempt::First;
            hold_to_wait(st, req, |req| rwrules::invalid(req, is_write(req), first))
        }
        Errno::EAGAIN => would_block(st, req, false),
        Errno::EOPNOTSUPP => would_block(st, req, true),
        Errno::EINTR => {
            hold_buf(st, req);
            Outcome::Punt(Class::Bounded)
        }
        e => finish_err(req, e),
    }
}

/// One attempt with the vector where the program has it. `None`: it was copied, and there is more to do.
fn issue_lent(st: &mut State, req: &mut Req) -> Option<Outcome> {
    let vector = (req.sqe.addr, req.sqe.len as usize);
    let slow = waits_anyway(st, req);
    let attempted = (!slow).then(|| transfer_vector(req, vector, RWF_NOWAIT));
    if let Some(Ok(n)) = attempted
        && n > 0
        && lent::bytes(vector.0, vector.1) == Some(n as u64)
    {
        return Some(Outcome::Done(n as i32, 0));
    }
    if let Err(e) = lent::take(req, copy_vector) {
        return Some(Outcome::err(e));
    }
    match attempted? {
        Ok(n) if n > 0 => Some(after_progress(st, req, n)),
        Err(Errno::EAGAIN) => Some(would_block(st, req, false)),
        Err(Errno::EOPNOTSUPP) => Some(would_block(st, req, true)),
        _ => None,
    }
}

#[cold]
fn settle_empty(st: &State, req: &mut Req) -> Outcome {
    if req.done > 0 {
        return Outcome::Done(req.done as i32, 0);
    }
    hold_to_wait(st, req, |req| rwrules::empty(req, is_write(req)))
}

/// Keeps the registered buffer if the outcome is that the request goes on.
fn hold_to_wait(st: &State, req: &mut Req, decide: impl FnOnce(&mut Req) -> Outcome) -> Outcome {
    let outcome = decide(req);
    if !matches!(outcome, Outcome::Done(..)) {
        hold_buf(st, req);
    }
    outcome
}

fn finish_err(req: &mut Req, e: Errno) -> Outcome {
    // Bytes that an earlier attempt transferred are reported before the error, as a short result.
    if req.done > 0 { done_short(req) } else { Outcome::err(e) }
}

fn done_short(req: &mut Req) -> Outcome {
    req.flags |= flag::FAIL;
    Outcome::Done(req.done as i32, 0)
}

/// `n` bytes were transferred inline: finished, unless storage gave less than there is.
fn after_progress(st: &mut State, req: &mut Req, n: usize) -> Outcome {
    let wanted = left(req);
    if n as u64 >= wanted || n == 0 {
        let total = req.done as i32 + n as i32;
        if (n as u64) < wanted {
            req.flags |= flag::FAIL;
        }
        return Outcome::Done(total, 0);
    }
    short(st, req, n)
}

#[cold]
fn short(st: &mut State, req: &mut Req, n: usize) -> Outcome {
    if !is_storage(req) || req.sqe.op_flags & RWF_NOWAIT != 0 {
        return done(req, req.done as i32 + n as i32);
    }
    advance(req, n as u64);
    match transfer(req, RWF_NOWAIT) {
        Ok(0) => done_short(req),
        Ok(n) => after_progress(st, req, n),
        Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::EINTR) => {
            hold_buf(st, req);
            Outcome::Punt(Class::Bounded)
        }
        Err(e) => finish_err(req, e),
    }
}

#[cold]
fn would_block(st: &mut State, req: &mut Req, unsupported: bool) -> Outcome {
    let user_nowait = req.sqe.op_flags & RWF_NOWAIT != 0;
    if is_storage(req) {
        req.flags |= flag::STORAGE;
        if user_nowait {
            // A file system that knows the flag and cannot write so says that it would have to wait.
            let refused = unsupported && !(is_write(req) && rwrules::knows_nowait(req));
            let e = if refused { Errno::EOPNOTSUPP } else { Errno::EAGAIN };
            return finish_err(req, e);
        }
        if unsupported && is_write(req) {
            let regular = sys::file_kind(req.fd()).ok().filter(|k| k.is_regular());
            st.facts.note_slow_writes(req.fd(), regular.map(FileKind::key));
        }
        hold_buf(st, req);
        return Outcome::Punt(Class::Bounded);
    }
    let events = if is_write(req) { libc::POLLOUT } else { libc::POLLIN };
    if unsupported {
        // No non-blocking form for this file: do it when it is ready, as the kernel does.
        if sys::poll_now(req.fd(), events) != 0 {
            req.sqe.op_flags &= !RWF_NOWAIT;
            return match transfer_blocking(req) {
                Ok(n) => after_progress(st, req, n),
                Err(Errno::EAGAIN) => finish_err(req, Errno::EAGAIN),
                Err(e) => finish_err(req, e),
            };
        }
    }
    // O_NONBLOCK only matters for a file that has no per-call form of it.
    let nonblock =
        || sys::fcntl(req.fd(), libc::F_GETFL, 0).is_ok_and(|f| f as i32 & libc::O_NONBLOCK != 0);
    if user_nowait || unsupported && nonblock() {
        return finish_err(req, Errno::EAGAIN);
    }
    hold_buf(st, req);
    Outcome::Arm(events as u32)
}

/// Blocking form, on a worker: all of it for storage, one transfer for anything else.
fn run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let storage = is_storage(req);
    if req.sqe.op_flags != 0
        && let Err(e) = rwrules::check_all(req, is_write(req))
    {
        return e.neg();
    }
    // A worker may wait, whatever was asked for.
    req.sqe.op_flags &= !RWF_NOWAIT;
    loop {
        match retry_eintr(interrupt, || transfer_blocking(req)) {
            Ok(n) => {
                let wanted = left(req);
                advance(req, n as u64);
                if n as u64 == wanted {
                    return req.done as i32;
                }
                if n == 0 || !storage {
                    req.flags |= flag::FAIL;
                    return req.done as i32;
                }
            }
            Err(e) if req.done == 0 => return e.neg(),
            Err(_) => {
                req.flags |= flag::FAIL;
                return req.done as i32;
            }
        }
    }
}
