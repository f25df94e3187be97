//! The three system calls, by four ways to make them: what `probe` and `bench` compare runs the same
//! code over each.
//!
//! Results are those of the raw calls: a value, or `-errno`. `errno` itself is never looked at.
#![allow(unsafe_code)]

use std::ffi::c_void;

use soloring_abi::Params;
use soloring_engine::uapi;

/// One way to make the three calls, and to map and close what they give.
pub trait Backend: Copy + Send + 'static {
    /// # Safety
    /// `params` names a writable `Params`; with NO_MMAP, what it points to stays valid for the ring's life.
    unsafe fn setup(self, entries: u32, params: *mut Params) -> isize;

    /// # Safety
    /// As for the system call: `arg` is what `flags` says and `argsz` long, and what queued entries
    /// point to stays valid until they complete.
    unsafe fn enter(
        self,
        fd: u32,
        submit: u32,
        wait: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize;

    /// # Safety
    /// As for the system call: `arg` is what `opcode` asks for.
    unsafe fn register(self, fd: u32, opcode: u32, arg: *mut c_void, nr: u32) -> isize;

    /// Maps `len` bytes of a ring, shared, readable and writable, at one of the magic offsets.
    ///
    /// # Safety
    /// The result may be used until [`Backend::unmap`]; nothing else is mapped away.
    unsafe fn map(self, fd: i32, len: usize, offset: i64) -> isize {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: the address is the kernel's choice, so nothing that exists is replaced.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        from_libc(at as isize)
    }

    /// # Safety
    /// `addr` and `len` are those of one [`Backend::map`], and nobody uses them any more.
    unsafe fn unmap(self, addr: usize, len: usize) {
        // SAFETY: passed on from the caller; the mapping is an ordinary one for every backend.
        unsafe { libc::munmap(addr as *mut c_void, len) };
    }

    fn close(self, fd: i32) {
        // SAFETY: callers own the descriptor: they got it from `setup`.
        unsafe { libc::close(fd) };
    }

    /// The program will say before it closes a descriptor that requests may wait on, in a process of its own
    /// making. Under `run` that is seen, and the kernel need not know.
    fn promise_to_announce_closes(self) {}

    /// As promised.
    fn announce_close(self, _fd: i32) {}

    /// Operations our own engine completed in this process.
    fn op_count(self) -> u64 {
        uapi::op_count()
    }
}

/// What `libc::mmap` and friends return, as the raw call returns it.
fn from_libc(result: isize) -> isize {
    if result == -1 { -(errno() as isize) } else { result }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The kernel's ring by raw system calls: as any program that carries its own system-call instructions.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

fn raw(result: Result<usize, syscalls::Errno>) -> isize {
    result.map_or_else(|errno| -(errno.into_raw() as isize), |value| value as isize)
}

impl Backend for Raw {
    unsafe fn setup(self, entries: u32, params: *mut Params) -> isize {
        // SAFETY: passed on from the caller.
        raw(unsafe { syscalls::syscall!(syscalls::Sysno::io_uring_setup, entries, params) })
    }

    #[inline]
    unsafe fn enter(
        self,
        fd: u32,
        submit: u32,
        wait: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize {
        // SAFETY: passed on from the caller.
        raw(unsafe {
            syscalls::syscall!(syscalls::Sysno::io_uring_enter, fd, submit, wait, flags, arg, argsz)
        })
    }

    unsafe fn register(self, fd: u32, opcode: u32, arg: *mut c_void, nr: u32) -> isize {
        // SAFETY: passed on from the caller.
        raw(unsafe { syscalls::syscall!(syscalls::Sysno::io_uring_register, fd, opcode, arg, nr) })
    }
}

/// Raw system calls where `enter` has the number in the instruction before, as liburing compiles it.
#[derive(Clone, Copy, Debug)]
pub struct Inline;

impl Backend for Inline {
    unsafe fn setup(self, entries: u32, params: *mut Params) -> isize {
        // SAFETY: passed on from the caller.
        unsafe { Raw.setup(entries, params) }
    }

    #[inline]
    unsafe fn enter(
        self,
        fd: u32,
        submit: u32,
        wait: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize {
        let result: isize;
        // SAFETY: the caller vouches for the call; a system call changes rax, rcx and r11 only.
        unsafe {
            std::arch::asm!(
                "mov eax, {number}",
                "syscall",
                number = const libc::SYS_io_uring_enter,
                lateout("rax") result,
                in("rdi") u64::from(fd),
                in("rsi") u64::from(submit),
                in("rdx") u64::from(wait),
                in("r10") u64::from(flags),
                in("r8") arg,
                in("r9") argsz,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result
    }

    unsafe fn register(self, fd: u32, opcode: u32, arg: *mut c_void, nr: u32) -> isize {
        // SAFETY: passed on from the caller.
        unsafe { Raw.register(fd, opcode, arg, nr) }
    }
}

/// The calls through libc's `syscall` function, as the io-uring crate and most language bindings make them.
#[derive(Clone, Copy, Debug)]
pub struct Libc;

impl Backend for Libc {
    unsafe fn setup(self, entries: u32, params: *mut Params) -> isize {
        // SAFETY: passed on from the caller.
        from_libc(unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params) } as isize)
    }

    #[inline]
    unsafe fn enter(
        self,
        fd: u32,
        submit: u32,
        wait: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize {
        // SAFETY: passed on from the caller.
        from_libc(unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, submit, wait, flags, arg, argsz)
        } as isize)
    }

    unsafe fn register(self, fd: u32, opcode: u32, arg: *mut c_void, nr: u32) -> isize {
        // SAFETY: passed on from the caller.
        from_libc(
            unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, arg, nr) } as isize
        )
    }
}

/// Our engine, called as functions in this process.
#[derive(Clone, Copy, Debug)]
pub struct Engine;

impl Backend for Engine {
    fn promise_to_announce_closes(self) {
        uapi::set_close_notified(true);
    }

    fn announce_close(self, fd: i32) {
        uapi::note_close(fd);
    }

    unsafe fn setup(self, entries: u32, params: *mut Params) -> isize {
        // SAFETY: passed on from the caller.
        unsafe { uapi::io_uring_setup(entries, params) }
    }

    #[inline]
    unsafe fn enter(
        self,
        fd: u32,
        submit: u32,
        wait: u32,
        flags: u32,
        arg: *const c_void,
        argsz: usize,
    ) -> isize {
        // SAFETY: passed on from the caller.
        unsafe { uapi::io_uring_enter(fd, submit, wait, flags, arg, argsz) }
    }

    unsafe fn register(self, fd: u32, opcode: u32, arg: *mut c_void, nr: u32) -> isize {
        // SAFETY: passed on from the caller.
        unsafe { uapi::io_uring_register(fd, opcode, arg, nr) }
    }

    unsafe fn map(self, fd: i32, len: usize, offset: i64) -> isize {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the address is the kernel's choice, so nothing that exists is replaced.
        unsafe { uapi::ring_mmap(0, len, prot, flags, fd, offset) }
            .unwrap_or(-(libc::EBADF as isize))
    }

    fn close(self, fd: i32) {
        uapi::ring_close(fd);
    }
}

/// The name of an error number, or the number.
pub fn errno_name(errno: i32) -> String {
    syscalls::Errno::new(errno).name().map_or_else(|| format!("errno {errno}"), str::to_owned)
}
