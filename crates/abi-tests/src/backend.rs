//! The two sides: the kernel's ring by raw system calls, and ours by its entry points.
#![allow(unsafe_code)]
// The cases hand over bad pointers on purpose; see `Abi` for why its methods are safe all the same.
#![allow(clippy::not_unsafe_ptr_arg_deref)]

use crate::res::Res;
use crate::trace;
use soloring_abi::Params;
use soloring_engine::uapi;
use std::ffi::c_void;
use syscalls::{Sysno, raw_syscall};

/// What a program can do with a ring, as system calls. All return `>= 0` or `-errno`.
///
/// # Safety
/// Pointers may be bad (that is what many cases test), but a good pointer must stay good for as
/// long as a request that was handed it is in flight.
pub trait Backend: Sync {
    fn name(&self) -> &'static str;
    /// # Safety
    /// See the trait.
    unsafe fn setup(&self, entries: u32, params: *mut Params) -> isize;
    /// # Safety
    /// See the trait.
    unsafe fn enter(
        &self,
        fd: u32,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize;
    /// # Safety
    /// See the trait.
    unsafe fn register(&self, fd: u32, opcode: u32, arg: *mut c_void, nr_args: u32) -> isize;
    /// Maps `len` bytes of `fd` at `off`, shared, readable and writable.
    ///
    /// # Safety
    /// The mapping is the caller's to unmap.
    unsafe fn mmap(&self, fd: i32, len: usize, prot: i32, flags: i32, off: i64) -> isize;
    fn close(&self, fd: i32) -> isize;
    fn dup(&self, fd: i32) -> isize;
    /// `poll(2)` on a ring's descriptor. Returns `revents`, 0 for none within `timeout_ms`.
    fn poll(&self, fd: i32, events: i16, timeout_ms: i32) -> isize;
}

fn signed(raw: usize) -> isize {
    raw as isize
}

fn native_poll(fd: i32, events: i16, timeout_ms: i32) -> isize {
    let mut pollfd = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd, alive for the call.
    let n = unsafe { libc::poll(&mut pollfd, 1, timeout_ms) };
    if n < 0 { n as isize } else { pollfd.revents as isize }
}

fn native_mmap(len: usize, prot: i32, flags: i32, fd: i32, off: i64) -> isize {
    // SAFETY: no fixed address is asked for, so no existing mapping is touched.
    signed(unsafe { raw_syscall!(Sysno::mmap, 0, len, prot, flags, fd, off) })
}

/// The kernel's own io_uring.
pub struct Kernel;

impl Backend for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }
    unsafe fn setup(&self, entries: u32, params: *mut Params) -> isize {
        // SAFETY: the kernel checks the pointer.
        signed(unsafe { raw_syscall!(Sysno::io_uring_setup, entries, params) })
    }
    unsafe fn enter(
        &self,
        fd: u32,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize {
        // SAFETY: the kernel checks all pointers; requests' buffers are kept by the caller.
        signed(unsafe {
            raw_syscall!(Sysno::io_uring_enter, fd, to_submit, min_complete, flags, arg, argsz)
        })
    }
    unsafe fn register(&self, fd: u32, opcode: u32, arg: *mut c_void, nr_args: u32) -> isize {
        // SAFETY: the kernel checks all pointers; registered memory is kept by the caller.
        signed(unsafe { raw_syscall!(Sysno::io_uring_register, fd, opcode, arg, nr_args) })
    }
    unsafe fn mmap(&self, fd: i32, len: usize, prot: i32, flags: i32, off: i64) -> isize {
        native_mmap(len, prot, flags, fd, off)
    }
    fn close(&self, fd: i32) -> isize {
        // SAFETY: closing a descriptor touches no memory.
        signed(unsafe { raw_syscall!(Sysno::close, fd) })
    }
    fn dup(&self, fd: i32) -> isize {
        // SAFETY: duplicating a descriptor touches no memory.
        signed(unsafe { raw_syscall!(Sysno::dup, fd) })
    }
    fn poll(&self, fd: i32, events: i16, timeout_ms: i32) -> isize {
        native_poll(fd, events, timeout_ms)
    }
}

/// Why the kernel's ring cannot be tested here, when it cannot.
pub fn kernel_refusal() -> Option<String> {
    // SAFETY: plain numbers; all zeroes is the ABI's "nothing asked for".
    let mut params: Params = unsafe { std::mem::zeroed() };
    // SAFETY: a good parameter block.
    let fd = Res(unsafe { Kernel.setup(1, &mut params) } as i64);
    if fd.is_err() {
        return Some(format!("io_uring_setup: {fd}"));
    }
    Kernel.close(fd.0 as i32);
    None
}

/// Our ring, through the entry points that interception uses.
pub struct Soloring;

impl Backend for Soloring {
    fn name(&self) -> &'static str {
        "soloring"
    }
    unsafe fn setup(&self, entries: u32, params: *mut Params) -> isize {
        // SAFETY: the engine checks the pointer, as the kernel does.
        unsafe { uapi::io_uring_setup(entries, params) }
    }
    unsafe fn enter(
        &self,
        fd: u32,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize {
        // SAFETY: the engine checks all pointers; requests' buffers are kept by the caller.
        unsafe { uapi::io_uring_enter(fd, to_submit, min_complete, flags, arg, argsz) }
    }
    unsafe fn register(&self, fd: u32, opcode: u32, arg: *mut c_void, nr_args: u32) -> isize {
        // SAFETY: the engine checks all pointers; registered memory is kept by the caller.
        unsafe { uapi::io_uring_register(fd, opcode, arg, nr_args) }
    }
    unsafe fn mmap(&self, fd: i32, len: usize, prot: i32, flags: i32, off: i64) -> isize {
        // SAFETY: no fixed address is asked for, so no existing mapping is touched.
        unsafe { uapi::ring_mmap(0, len, prot, flags, fd, off) }
            .unwrap_or_else(|| native_mmap(len, prot, flags, fd, off))
    }
    fn close(&self, fd: i32) -> isize {
        uapi::ring_close(fd).unwrap_or_else(|| Kernel.close(fd))
    }
    fn dup(&self, fd: i32) -> isize {
        uapi::ring_dup(fd, 0, false).unwrap_or_else(|| Kernel.dup(fd))
    }
    fn poll(&self, fd: i32, events: i16, timeout_ms: i32) -> isize {
        uapi::note_polled(fd);
        uapi::refresh_readiness();
        native_poll(fd, events, timeout_ms)
    }
}

/// One side as the cases use it: recorded, and safe to call.
///
/// The safety of [`Backend`]'s calls rests on how cases run: in a process of their own, with the
/// buffers of requests alive until the ring is closed or the process exits.
pub struct Abi {
    backend: &'static dyn Backend,
    /// `IORING_SETUP_*` flags of the case's mode, added by [`crate::ring::Ring::new`].
    pub mode_flags: u32,
    /// Calls and completions go to the record. Not for programs that make millions of them.
    pub recorded: bool,
}

impl Abi {
    pub fn new(backend: &'static dyn Backend, mode_flags: u32) -> Abi {
        Abi { backend, mode_flags, recorded: true }
    }

    /// One side without a record.
    pub fn unrecorded(backend: &'static dyn Backend) -> Abi {
        Abi { backend, mode_flags: 0, recorded: false }
    }

    /// The side itself, for threads that may outlive the case.
    pub fn backend(&self) -> &'static dyn Backend {
        self.backend
    }

    /// Appends a line to the record, if there is one.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        if self.recorded {
            trace::note(line.to_string());
        }
    }

    pub fn is_kernel(&self) -> bool {
        self.backend.name() == "kernel"
    }

    /// `io_uring_setup`: a descriptor or `-errno`.
    pub fn setup(&self, entries: u32, params: &mut Params) -> Res {
        let flags = params.flags;
        let res = self.setup_at(entries, params);
        if res.is_err() {
            self.note(format_args!("setup({entries}, flags={flags:#x}) = {res}"));
        } else {
            self.note(format_args!(
                "setup({entries}, flags={flags:#x}) = a ring; sq={} cq={} flags={:#x}",
                params.sq_entries, params.cq_entries, params.flags
            ));
        }
        res
    }

    /// `io_uring_setup` with a pointer that may be bad.
    pub fn setup_at(&self, entries: u32, params: *mut Params) -> Res {
        // SAFETY: see the type.
        Res(unsafe { self.backend.setup(entries, params) } as i64)
    }

    pub fn enter(&self, fd: i32, to_submit: u32, min_complete: u32, flags: u32) -> Res {
        self.enter_arg(fd, to_submit, min_complete, flags, std::ptr::null(), 0)
    }

    pub fn enter_arg(
        &self,
        fd: i32,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> Res {
        // SAFETY: see the type.
        let res =
            unsafe { self.backend.enter(fd as u32, to_submit, min_complete, flags, arg, argsz) };
        let res = Res(res as i64);
        self.note(format_args!(
            "enter(submit={to_submit}, min={min_complete}, flags={flags:#x}, argsz={argsz}) = {res}"
        ));
        res
    }

    pub fn register<T: ?Sized>(&self, fd: i32, opcode: u32, arg: *const T, nr_args: u32) -> Res {
        // SAFETY: see the type.
        let res = unsafe {
            self.backend.register(fd as u32, opcode, arg as *const c_void as *mut c_void, nr_args)
        };
        let res = Res(res as i64);
        self.note(format_args!("register({opcode:#x}, nr={nr_args}) = {res}"));
        res
    }

    /// Shared, readable and writable mapping of the ring: an address or `-errno`.
    pub fn mmap(&self, fd: i32, len: usize, off: i64) -> Res {
        self.mmap_as(fd, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, off)
    }

    pub fn mmap_as(&self, fd: i32, len: usize, prot: i32, flags: i32, off: i64) -> Res {
        // SAFETY: see the type.
        let res = Res(unsafe { self.backend.mmap(fd, len, prot, flags, off) } as i64);
        if res.is_err() {
            self.note(format_args!("mmap(len={len}, off={off:#x}) = {res}"));
        }
        res
    }

    pub fn close(&self, fd: i32) -> Res {
        let res = Res(self.backend.close(fd) as i64);
        self.note(format_args!("close(a ring) = {res}"));
        res
    }

    pub fn dup(&self, fd: i32) -> Res {
        Res(self.backend.dup(fd) as i64)
    }

    pub fn poll(&self, fd: i32, events: i16, timeout_ms: i32) -> Res {
        let res = Res(self.backend.poll(fd, events, timeout_ms) as i64);
        self.note(format_args!("poll(a ring, {events:#x}) = {:#x}", res.0));
        res
    }
}
