//! Mappings of ring memory: a memory file of ours, or the program's own pages (NO_MMAP).
#![allow(unsafe_code)]

use crate::calls;
use soloring_abi::Errno;
use syscalls::{Sysno, raw_syscall};

/// Magic `mmap` offsets of the ring file (`IORING_OFF_*`).
pub const OFF_SQ_RING: u64 = 0;
pub const OFF_CQ_RING: u64 = 0x800_0000;
pub const OFF_SQES: u64 = 0x1000_0000;

const PAGE: usize = 4096;

pub(crate) fn check(ret: usize) -> Result<usize, Errno> {
    let value = ret as isize;
    if (-4095..0).contains(&value) { Err(Errno(-value as i32)) } else { Ok(ret) }
}

fn mmap(addr: usize, len: usize, prot: i32, flags: i32, fd: i32, off: u64) -> Result<usize, Errno> {
    // SAFETY: a new mapping at an address that the kernel chooses, or, with MAP_FIXED, at pages that
    // the caller vouches for (`NoMmap::adopt`, `Mapping::map_for_program`).
    check(unsafe { calls::mmap(addr, len, prot, flags, fd, off) })
}

/// The soft RLIMIT_FSIZE in bytes: growing a file beyond it is answered by a signal that kills.
fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: prlimit64 on ourselves writes one rlimit on our stack.
    unsafe { raw_syscall!(Sysno::prlimit64, 0, libc::RLIMIT_FSIZE, 0, &raw mut limit) };
    limit.rlim_cur
}

/// A shared memory region that the engine has mapped for itself. Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    addr: usize,
    len: usize,
    /// The memory file behind it; -1 when the pages are the program's own.
    memfd: i32,
}

impl Mapping {
    /// A new region of `len` bytes (a multiple of the page size), zeroed.
    ///
    /// `keep_fd` moves the memory file's descriptor out of the program's way and returns the new number.
    ///
    /// # Errors
    /// ENOMEM, EMFILE, ENFILE as memfd_create(2) and mmap(2) give them; ENOMEM also where RLIMIT_FSIZE allows no
    /// file of that size.
    pub fn create(len: usize, keep_fd: impl Fn(i32) -> Result<i32, Errno>) -> Result<Self, Errno> {
        // The kernel's rings are under no such limit, and a signal is not how a set-up fails.
        if len as u64 > file_size_limit() {
            return Err(Errno::ENOMEM);
        }
        let name = c"soloring";
        // SAFETY: the name is a NUL-terminated constant.
        let low =
            check(unsafe { raw_syscall!(Sysno::memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) })?
                as i32;
        // SAFETY: `low` is a descriptor that this function just made.
        if let Err(e) = check(unsafe { raw_syscall!(Sysno::ftruncate, low, len) }) {
            // SAFETY: as above; nobody else knows the number.
            unsafe { raw_syscall!(Sysno::close, low) };
            return Err(e);
        }
        let mapped = mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, low, 0);
        let addr = match mapped {
            Ok(addr) => addr,
            Err(e) => {
                // SAFETY: as above.
                unsafe { raw_syscall!(Sysno::close, low) };
                return Err(e);
            }
        };
        // `keep_fd` closes the low number in every case.
        match keep_fd(low) {
            Ok(memfd) => Ok(Mapping { addr, len, memfd }),
            Err(e) => {
                // SAFETY: the mapping made above, unknown to anyone else.
                unsafe { calls::munmap(addr, len) };
                Err(e)
            }
        }
    }

    /// First byte of the region.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// The memory file's descriptor, for the owner of private descriptors to close. -1: none.
    pub fn memfd(&self) -> i32 {
        self.memfd
    }

    /// Maps `len` bytes of the region, from byte `from` on, for the program, as mmap(2) on the ring file would.
    ///
    /// # Errors
    /// EPERM for an executable mapping, EINVAL for a private one or when there is no file; what mmap(2) gives otherwise.
    ///
    /// # Safety
    /// With MAP_FIXED in `flags` the program's pages at `addr` are replaced, as with mmap(2) itself.
    pub unsafe fn map_for_program(
        &self,
        addr: usize,
        len: usize,
        prot: i32,
        flags: i32,
        from: u64,
    ) -> Result<usize, Errno> {
        if prot & libc::PROT_EXEC != 0 {
            return Err(Errno::EPERM);
        }
        if self.memfd < 0 {
            return Err(Errno::EINVAL);
        }
        // The descriptor is a private one: its mmap would be taken for the program's. A second, low
        // number for the length of the call keeps the interception's rule simple.
        // SAFETY: dup of a descriptor that this mapping owns.
        let low = check(unsafe {
            raw_syscall!(
                Sysno::fcntl,
                self.memfd,
                libc::F_DUPFD_CLOEXEC,
                3,
                0,
                0,
                soloring_abi::cookie::COOKIE
            )
        })? as i32;
        let ret = mmap(addr, len, prot, flags, low, from);
        // SAFETY: the number made above.
        unsafe { raw_syscall!(Sysno::close, low) };
        ret
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping is owned by `self`, and `Rings` (the only user of its address) borrows
        // or owns the Mapping for as long as it lives. The descriptor is closed by the fd owner.
        unsafe { calls::munmap(self.addr, self.len) };
    }
}

/// Memory that the program brought (IORING_SETUP_NO_MMAP).
pub struct NoMmap;

impl NoMmap {
    /// Makes a second mapping of the program's pages, so that its munmap cannot hurt the engine.
    ///
    /// A shared mapping is duplicated as it is. A private one is replaced, at the same address and
    /// with the same contents, by pages of a memory file: the kernel pins pages, we share them.
    /// `keep_fd` is as for [`Mapping::create`]; `give_up` closes what it returned.
    ///
    /// # Errors
    /// EINVAL when `addr` is not page aligned; EFAULT when the pages are not all there and writable.
    pub fn adopt(
        addr: usize,
        len: usize,
        keep_fd: impl Fn(i32) -> Result<i32, Errno>,
        give_up: impl Fn(i32),
    ) -> Result<Mapping, Errno> {
        if addr == 0 || !addr.is_multiple_of(PAGE) {
            return Err(if addr == 0 { Errno::EFAULT } else { Errno::EINVAL });
        }
        let mut copy = vec![0u8; len];
        transfer(Sysno::process_vm_readv, copy.as_mut_ptr() as usize, addr, len)?;
        transfer(Sysno::process_vm_writev, copy.as_mut_ptr() as usize, addr, len)?;
        // SAFETY: old length 0 asks for a duplicate of a shared mapping and changes nothing else.
        let twin =
            check(unsafe { raw_syscall!(Sysno::mremap, addr, 0, len, libc::MREMAP_MAYMOVE) });
        if let Ok(twin) = twin {
            return Ok(Mapping { addr: twin, len, memfd: -1 });
        }
        let mapping = Mapping::create(len, keep_fd)?;
        // SAFETY: `mapping` spans `len` bytes and is not shared with anyone yet; `copy` has `len` bytes.
        unsafe { std::ptr::copy_nonoverlapping(copy.as_ptr(), mapping.addr as *mut u8, len) };
        // SAFETY: replaces the program's own pages, which it handed over for this purpose, by pages
        // with the same contents and access.
        let replaced = unsafe {
            mapping.map_for_program(
                addr,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                0,
            )
        };
        match replaced {
            Ok(_) => Ok(mapping),
            Err(e) => {
                give_up(mapping.memfd);
                // Too few descriptors is said as it is; what else the pages are, they cannot be a ring's.
                Err(if e == Errno::EMFILE { e } else { Errno::EINVAL })
            }
        }
    }
}

fn transfer(call: Sysno, local: usize, remote: usize, len: usize) -> Result<(), Errno> {
    let local_iov = [local, len];
    let remote_iov = [remote, len];
    // SAFETY: the local side is a buffer of `len` bytes; the remote side is checked by the kernel.
    let moved = check(unsafe {
        raw_syscall!(call, std::process::id(), local_iov.as_ptr(), 1, remote_iov.as_ptr(), 1, 0)
    })
    .map_err(|_| Errno::EFAULT)?;
    if moved == len { Ok(()) } else { Err(Errno::EFAULT) }
}
