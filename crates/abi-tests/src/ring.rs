//! A ring as the cases use it: mapped, filled by hand, waited for with a bound.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use soloring_abi::{
    Cqe, GeteventsArg, Params, RsrcRegister, RsrcUpdate2, Sqe, Timespec, extra, raw,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a case waits for a completion that must come.
pub const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// An empty parameter block with these flags.
pub fn params(flags: u32) -> Params {
    // SAFETY: plain numbers; all zeroes is the ABI's "nothing asked for".
    let mut params: Params = unsafe { std::mem::zeroed() };
    params.flags = flags;
    params
}

/// A completion, with its result shown by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    pub ud: u64,
    pub res: Res,
    pub flags: u32,
    /// Second half of a 32-byte entry; zero for others.
    pub extra: [u64; 2],
}

impl Done {
    /// `IORING_CQE_F_MORE`: the request goes on.
    pub fn more(&self) -> bool {
        self.flags & raw::IORING_CQE_F_MORE != 0
    }
}

/// A mapped ring. Closed and unmapped when dropped.
pub struct Ring<'a> {
    pub abi: &'a Abi,
    pub fd: i32,
    pub params: Params,
    rings: *mut u8,
    rings_len: usize,
    sqes: *mut u8,
    sqes_len: usize,
    tail: u32,
    owns_memory: bool,
}

impl<'a> Ring<'a> {
    /// A ring with the flags of the case's mode.
    pub fn new(abi: &'a Abi, entries: u32) -> Ring<'a> {
        Ring::with_flags(abi, entries, 0)
    }

    /// A ring with these flags and those of the case's mode.
    pub fn with_flags(abi: &'a Abi, entries: u32, flags: u32) -> Ring<'a> {
        Ring::build(abi, entries, params(flags | abi.mode_flags))
    }

    /// A ring with exactly these parameters; it must come up.
    /// A ring of 8 entries with so many empty slots for files.
    pub fn with_slots(abi: &'a Abi, slots: usize) -> Ring<'a> {
        let ring = Ring::new(abi, 8);
        let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
        assert_eq!(ring.register(files, vec![-1i32; slots].as_ptr(), slots as u32), Res(0));
        ring
    }

    pub fn build(abi: &'a Abi, entries: u32, mut params: Params) -> Ring<'a> {
        let flags = params.flags;
        let fd = abi.setup(entries, &mut params);
        assert!(!fd.is_err(), "setup({entries}, flags={flags:#x}) = {fd}");
        Ring::map(abi, fd.0 as i32, params)
    }

    /// Maps the rings of `fd`.
    pub fn map(abi: &'a Abi, fd: i32, params: Params) -> Ring<'a> {
        let rings_len = rings_len(&params);
        let sqes_len = sqes_len(&params);
        let rings = abi.mmap(fd, rings_len, raw::IORING_OFF_SQ_RING as i64);
        assert!(!rings.is_err(), "mmap of the rings = {rings}");
        let sqes = abi.mmap(fd, sqes_len, raw::IORING_OFF_SQES as i64);
        assert!(!sqes.is_err(), "mmap of the SQEs = {sqes}");
        let (rings, sqes) = (rings.0 as usize as *mut u8, sqes.0 as usize as *mut u8);
        Ring::over(abi, fd, params, rings, sqes, true)
    }

    /// The same ring in the memory that it has now (`IORING_REGISTER_RESIZE_RINGS`).
    pub fn mapped_anew(self, params: Params) -> Ring<'a> {
        let (abi, fd) = (self.abi, self.fd);
        self.unmap();
        Ring::map(abi, fd, params)
    }

    /// A ring whose memory the case supplied (`IORING_SETUP_NO_MMAP`).
    pub fn in_user_memory(abi: &'a Abi, fd: i32, params: Params) -> Ring<'a> {
        let (rings, sqes) = (params.cq_off.user_addr, params.sq_off.user_addr);
        Ring::over(abi, fd, params, rings as *mut u8, sqes as *mut u8, false)
    }

    fn over(
        abi: &'a Abi,
        fd: i32,
        params: Params,
        rings: *mut u8,
        sqes: *mut u8,
        owns_memory: bool,
    ) -> Ring<'a> {
        let (rings_len, sqes_len) = (rings_len(&params), sqes_len(&params));
        let mut ring =
            Ring { abi, fd, params, rings, rings_len, sqes, sqes_len, tail: 0, owns_memory };
        ring.tail = ring.word(params.sq_off.tail).load(Ordering::Relaxed);
        ring
    }

    /// The shared 32-bit word at a byte offset of the ring mapping.
    pub fn word(&self, offset: u32) -> &AtomicU32 {
        assert!(
            offset as usize + 4 <= self.rings_len && offset.is_multiple_of(4),
            "offset {offset}"
        );
        // SAFETY: inside the mapping (just checked), aligned, and mapped as long as `self` lives.
        unsafe { AtomicU32::from_ptr(self.rings.add(offset as usize).cast()) }
    }

    /// The shared 32-bit word at a byte offset of an entry of the SQ.
    pub fn sqe_word(&self, index: u32, offset: u32) -> &AtomicU32 {
        let stride = if self.has(raw::IORING_SETUP_SQE128) { 128 } else { 64 };
        assert!(index < self.params.sq_entries && offset < stride && offset.is_multiple_of(4));
        // SAFETY: inside the mapping (just checked), aligned, and mapped as long as `self` lives.
        unsafe { AtomicU32::from_ptr(self.sqes.add((index * stride + offset) as usize).cast()) }
    }

    pub fn sq_head(&self) -> u32 {
        // Acquire: pairs with the ring's release store after it has copied the entries out.
        self.word(self.params.sq_off.head).load(Ordering::Acquire)
    }
    pub fn sq_tail(&self) -> u32 {
        self.tail
    }
    pub fn sq_flags(&self) -> u32 {
        self.word(self.params.sq_off.flags).load(Ordering::Relaxed)
    }
    pub fn sq_dropped(&self) -> u32 {
        self.word(self.params.sq_off.dropped).load(Ordering::Relaxed)
    }
    pub fn cq_overflow(&self) -> u32 {
        self.word(self.params.cq_off.overflow).load(Ordering::Relaxed)
    }
    pub fn cq_head(&self) -> u32 {
        self.word(self.params.cq_off.head).load(Ordering::Relaxed)
    }
    pub fn cq_tail(&self) -> u32 {
        // Acquire: pairs with the ring's release store of the tail after it wrote the entries.
        self.word(self.params.cq_off.tail).load(Ordering::Acquire)
    }
    pub fn cq_ready(&self) -> u32 {
        self.cq_tail().wrapping_sub(self.cq_head())
    }

    pub fn has(&self, flag: u32) -> bool {
        self.params.flags & flag != 0
    }

    /// Writes an entry to the next slot and publishes it. The SQ must have room.
    pub fn push(&mut self, sqe: Sqe) {
        self.push_wide(sqe, [0; 8]);
    }

    /// Writes an entry to a slot of the SQ, and does not publish it.
    pub fn write_entry(&mut self, slot: u32, sqe: Sqe) {
        assert!(slot < self.params.sq_entries);
        let stride = if self.has(raw::IORING_SETUP_SQE128) { 128 } else { 64 };
        // SAFETY: the slot lies inside the SQE mapping (just checked).
        unsafe { self.sqes.add(slot as usize * stride).cast::<Sqe>().write_volatile(sqe) };
    }

    /// The first 16 bytes of a slot of the CQ, whether it holds a completion or not.
    pub fn peek_slot(&self, slot: u32) -> Cqe {
        assert!(slot < self.params.cq_entries);
        let stride = if self.has(raw::IORING_SETUP_CQE32) { 32 } else { 16 };
        let offset = self.params.cq_off.cqes as usize + slot as usize * stride;
        // SAFETY: the slot lies inside the mapping of the rings (just checked).
        unsafe { self.rings.add(offset).cast::<Cqe>().read_volatile() }
    }

    /// As `push`, with the second half that an `IORING_SETUP_SQE128` ring has.
    pub fn push_wide(&mut self, sqe: Sqe, second: [u64; 8]) {
        assert!(self.pending() < self.params.sq_entries, "SQ full");
        let index = self.tail & (self.params.sq_entries - 1);
        let stride = if self.has(raw::IORING_SETUP_SQE128) { 128 } else { 64 };
        // SAFETY: `index < sq_entries`, so the slot lies inside the SQE mapping; the ring reads it
        // only after the tail is published below.
        unsafe {
            let slot = self.sqes.add(index as usize * stride);
            slot.cast::<Sqe>().write_volatile(sqe);
            if stride == 128 {
                slot.add(64).cast::<[u64; 8]>().write_volatile(second);
            }
        }
        if !self.has(raw::IORING_SETUP_NO_SQARRAY) {
            self.set_array(index, index);
        }
        self.set_tail(self.tail.wrapping_add(1));
    }

    pub fn push_all(&mut self, sqes: &[Sqe]) {
        // One tail for all: a ring's own thread takes them together.
        let tail = self.tail;
        assert!(self.pending() as usize + sqes.len() <= self.params.sq_entries as usize, "SQ full");
        for (i, sqe) in sqes.iter().enumerate() {
            let slot = tail.wrapping_add(i as u32) & (self.params.sq_entries - 1);
            self.write_entry(slot, *sqe);
            if !self.has(raw::IORING_SETUP_NO_SQARRAY) {
                self.set_array(slot, slot);
            }
        }
        self.set_tail(tail.wrapping_add(sqes.len() as u32));
    }

    /// Stores into the SQ index array.
    pub fn set_array(&self, slot: u32, value: u32) {
        self.word(self.params.sq_off.array + 4 * slot).store(value, Ordering::Relaxed);
    }

    /// Publishes an SQ tail, sensible or not.
    pub fn set_tail(&mut self, tail: u32) {
        self.tail = tail;
        // Release: pairs with the ring's acquire load; the entries must be seen with the tail.
        self.word(self.params.sq_off.tail).store(tail, Ordering::Release);
    }

    /// Entries published and not consumed yet.
    pub fn pending(&self) -> u32 {
        self.tail.wrapping_sub(self.sq_head())
    }

    /// Submits all pending entries, waiting for none.
    pub fn submit(&self) -> Res {
        self.abi.enter(self.fd, self.pending(), 0, 0)
    }

    /// Pushes, submits and checks that all of them were taken.
    pub fn submit_all(&mut self, sqes: &[Sqe]) {
        self.push_all(sqes);
        let n = sqes.len() as i64;
        let res = self.submit();
        assert!(res == Res(n), "submitting {n} entries = {res}");
    }

    pub fn enter(&self, to_submit: u32, min_complete: u32, flags: u32) -> Res {
        self.abi.enter(self.fd, to_submit, min_complete, flags)
    }

    /// `enter` to wait for `n` completions, at most `limit`.
    pub fn wait_for(&self, n: u32, limit: Duration) -> Res {
        let ts = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos() as i64 };
        let arg = GeteventsArg {
            sigmask: 0,
            sigmask_sz: 0,
            min_wait_usec: 0,
            ts: std::ptr::from_ref(&ts) as u64,
        };
        let flags = raw::IORING_ENTER_GETEVENTS | raw::IORING_ENTER_EXT_ARG;
        let arg = std::ptr::from_ref(&arg).cast();
        self.abi.enter_arg(self.fd, 0, n, flags, arg, size_of::<GeteventsArg>())
    }

    /// The next completion that is already there. On a ring with CQE_MIXED this may be one to skip.
    pub fn pop(&self) -> Option<Done> {
        if self.cq_ready() == 0 {
            return None;
        }
        let head = self.cq_head();
        let mixed = self.has(extra::IORING_SETUP_CQE_MIXED);
        let stride = if self.has(raw::IORING_SETUP_CQE32) { 32 } else { 16 };
        let index = head & (self.params.cq_entries - 1);
        let offset = self.params.cq_off.cqes as usize + index as usize * stride;
        assert!(offset + stride <= self.rings_len);
        // SAFETY: inside the mapping (just checked); the acquire load of the tail ordered the
        // ring's writes before this read.
        let cqe = unsafe { self.rings.add(offset).cast::<Cqe>().read_volatile() };
        let two_slots = mixed && cqe.flags & extra::IORING_CQE_F_32 != 0;
        let mut extra = [0, 0];
        if stride == 32 || two_slots {
            assert!(offset + 32 <= self.rings_len);
            // SAFETY: as above.
            extra = unsafe { self.rings.add(offset + 16).cast::<[u64; 2]>().read_volatile() };
        }
        let slots = if two_slots { 2 } else { 1 };
        // Release: pairs with the ring's acquire load; the slot may be reused after this.
        self.word(self.params.cq_off.head).store(head.wrapping_add(slots), Ordering::Release);
        let done = Done { ud: cqe.user_data, res: Res(cqe.res as i64), flags: cqe.flags, extra };
        self.abi
            .note(format_args!("  cqe ud={} res={} flags={:#x}", done.ud, done.res, done.flags));
        Some(done)
    }

    /// The next completion; waits for it, and panics when none comes within [`WAIT_LIMIT`].
    pub fn wait(&self) -> Done {
        self.wait_within(WAIT_LIMIT)
            .unwrap_or_else(|| panic!("no completion within {WAIT_LIMIT:?}"))
    }

    /// The next completion, or `None` when none comes within `limit`.
    pub fn wait_within(&self, limit: Duration) -> Option<Done> {
        let end = Instant::now() + limit;
        loop {
            if let Some(done) = self.pop() {
                return Some(done);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let res = self.wait_for(1, left);
            assert!(
                [Res(0), crate::res::err(libc::ETIME), crate::res::err(libc::EINTR)].contains(&res),
                "waiting = {res}"
            );
        }
    }

    /// The next `n` completions in the order they were posted.
    pub fn wait_n(&self, n: usize) -> Vec<Done> {
        (0..n).map(|_| self.wait()).collect()
    }

    /// Results of the next `n` completions, ordered by user data.
    pub fn results(&self, n: usize) -> Vec<(u64, Res)> {
        let mut all: Vec<_> = self.wait_n(n).iter().map(|d| (d.ud, d.res)).collect();
        all.sort();
        all
    }

    /// One request from submission to completion. Nothing else may be in flight.
    pub fn run(&mut self, sqe: Sqe) -> Done {
        self.push(sqe);
        let res = self.submit();
        assert!(res == Res(1), "submitting one entry = {res}");
        self.wait()
    }

    /// As `run`, the result alone.
    pub fn res(&mut self, sqe: Sqe) -> Res {
        self.run(sqe).res
    }

    /// Checks that no completion comes within a short while.
    pub fn quiet(&self) -> bool {
        self.wait_within(Duration::from_millis(40)).is_none()
    }

    pub fn register<T: ?Sized>(&self, opcode: u32, arg: *const T, nr_args: u32) -> Res {
        self.abi.register(self.fd, opcode, arg, nr_args)
    }

    /// Registers `nr` resources with `data` and `tags`, each a null pointer where empty. `opcode` is
    /// REGISTER_FILES2 or REGISTER_BUFFERS2.
    pub fn register_tagged<T>(
        &self,
        opcode: u32,
        nr: u32,
        flags: u32,
        data: &[T],
        tags: &[u64],
    ) -> Res {
        let at = |empty: bool, p: u64| if empty { 0 } else { p };
        let data = at(data.is_empty(), data.as_ptr() as u64);
        let tags = at(tags.is_empty(), tags.as_ptr() as u64);
        let arg = RsrcRegister { nr, flags, resv2: 0, data, tags };
        self.register(opcode, &arg, size_of::<RsrcRegister>() as u32)
    }

    /// Changes resources from `offset` on; without tags when there are none. `opcode` is REGISTER_FILES_UPDATE2
    /// or REGISTER_BUFFERS_UPDATE.
    pub fn update_tagged<T>(&self, opcode: u32, offset: u32, data: &[T], tags: &[u64]) -> Res {
        let tags = if tags.is_empty() { 0 } else { tags.as_ptr() as u64 };
        let (nr, data) = (data.len() as u32, data.as_ptr() as u64);
        let arg = RsrcUpdate2 { offset, resv: 0, data, tags, nr, resv2: 0 };
        self.register(opcode, &arg, size_of::<RsrcUpdate2>() as u32)
    }

    /// Each of the changes makes an entry of this one that is refused with EINVAL.
    pub fn check_refuses(&mut self, sqe: Sqe, changes: &[fn(&mut Sqe)]) {
        for (i, change) in changes.iter().enumerate() {
            let mut changed = sqe;
            change(&mut changed);
            check_eq!(self.res(changed), err(libc::EINVAL), "opcode {}: field {i}", sqe.opcode);
        }
    }

    /// Unmaps the memory and leaves the descriptor open.
    pub fn unmap(self) {
        // SAFETY: our own two mappings; `self` is gone after this, so nothing uses them.
        unsafe {
            libc::munmap(self.rings.cast(), self.rings_len);
            libc::munmap(self.sqes.cast(), self.sqes_len);
        }
        std::mem::forget(self);
    }

    /// Changes the protection of this mapping of the ring's memory.
    pub fn protect(&self, prot: i32) {
        // SAFETY: our own two mappings; the case does not write through them while they are
        // read-only.
        unsafe {
            assert_eq!(libc::mprotect(self.rings.cast(), self.rings_len, prot), 0);
            assert_eq!(libc::mprotect(self.sqes.cast(), self.sqes_len, prot), 0);
        }
    }

    /// Leaves the mapping and the descriptor as they are, for good.
    pub fn leave_open(self) -> i32 {
        let fd = self.fd;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        self.abi.close(self.fd);
        if self.owns_memory {
            // SAFETY: our own two mappings; nothing keeps a pointer into them past `self`.
            unsafe {
                libc::munmap(self.rings.cast(), self.rings_len);
                libc::munmap(self.sqes.cast(), self.sqes_len);
            }
        }
    }
}

/// Bytes to map for both rings (`IORING_FEAT_SINGLE_MMAP`).
pub fn rings_len(p: &Params) -> usize {
    let wide = p.flags & raw::IORING_SETUP_CQE32 != 0;
    let cq = p.cq_off.cqes as usize + p.cq_entries as usize * if wide { 32 } else { 16 };
    let array = p.flags & raw::IORING_SETUP_NO_SQARRAY == 0;
    let sq = if array { p.sq_off.array as usize + p.sq_entries as usize * 4 } else { 0 };
    cq.max(sq)
}

/// Bytes to map for the submission entries.
pub fn sqes_len(p: &Params) -> usize {
    let wide = p.flags & raw::IORING_SETUP_SQE128 != 0;
    p.sq_entries as usize * if wide { 128 } else { 64 }
}
