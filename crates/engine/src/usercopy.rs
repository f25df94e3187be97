//! Copies between the program's memory and ours that fail with EFAULT instead of crashing.
//!
//! Memory on the calling thread's own stack above the program's stack pointer is certainly mapped: it is read
//! directly, which is the usual case (timespecs and argument blocks of `io_uring_enter`). Everything
//! else goes through process_vm_readv(2)/process_vm_writev(2) on ourselves, where the kernel checks.
#![allow(unsafe_code)]

use crate::sys::sys;
use soloring_abi::{Errno, IoVec};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

soloring_tls::thread_word! {
    /// Lowest address of this thread's stack.
    mod stack_low
}
soloring_tls::thread_word! {
    /// Its end; 0 until asked for, 1 when it cannot be known.
    mod stack_end
}
soloring_tls::thread_word! {
    /// Where the program's own frames begin while this thread works on a stack of ours; else 0.
    mod program_frames
}

/// While this thread works on another stack, the program's frames are those from `stack_pointer` on. 0: it does not.
#[inline]
pub fn set_program_frames(stack_pointer: usize) {
    program_frames::set(stack_pointer as u64);
}

/// Low end and end of this thread's stack, found out at its first use.
#[inline]
fn stack() -> (usize, usize) {
    match stack_end::get() {
        0 => find_stack(),
        end => (stack_low::get() as usize, end as usize),
    }
}

#[cold]
fn find_stack() -> (usize, usize) {
    let (mut start, mut end) = (0, 1);
    // SAFETY: pthread_getattr_np fills the attribute object of the calling thread, which is destroyed
    // after the two values were read.
    unsafe {
        let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
        if libc::pthread_getattr_np(libc::pthread_self(), attr.as_mut_ptr()) == 0 {
            let (mut low, mut size) = (std::ptr::null_mut(), 0);
            if libc::pthread_attr_getstack(attr.as_ptr(), &raw mut low, &raw mut size) == 0 {
                (start, end) = (low as usize, low as usize + size);
            }
            libc::pthread_attr_destroy(attr.as_mut_ptr());
        }
    }
    stack_low::set(start as u64);
    stack_end::set(end as u64);
    (start, end)
}

/// Whether `[addr, addr + len)` lies on the live part of the calling thread's stack.
#[inline]
fn on_own_stack(addr: u64, len: usize) -> bool {
    let marker = 0u8;
    is_live(stack(), &raw const marker as usize, program_frames::get() as usize, addr as usize, len)
}

/// The same for a stack from `low` to `end`, with the stack pointer at `sp` and the program's frames from `frames` on.
///
/// A coroutine or a handler may be on another stack: its pointer says nothing of this one. While we are on a stack of
/// our own, what is below the program's frames need not be mapped.
#[inline]
fn is_live((low, end): (usize, usize), sp: usize, frames: usize, addr: usize, len: usize) -> bool {
    let live = if (low..end).contains(&sp) { sp } else { frames };
    (low..end).contains(&live) && (live..end).contains(&addr) && end - addr >= len
}

/// A page of its own, which a forked child finds empty.
#[repr(C, align(4096))]
struct WipedInChild([AtomicU32; 1024]);

/// This process's id, asked for once: a call less for every copy.
fn own_pid() -> u32 {
    static PAGE: WipedInChild = WipedInChild([const { AtomicU32::new(0) }; 1024]);
    static WIPED: OnceLock<bool> = OnceLock::new();
    let known = PAGE.0[0].load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let pid = std::process::id();
    let wiped = *WIPED.get_or_init(|| {
        const MADV_WIPEONFORK: i32 = 18;
        let page = &raw const PAGE as usize;
        // SAFETY: advice for that page alone, which holds nothing but these atomics.
        unsafe { sys!(madvise, page, size_of::<WipedInChild>(), MADV_WIPEONFORK) }.is_ok()
    });
    if wiped {
        PAGE.0[0].store(pid, Ordering::Relaxed);
    }
    pid
}

fn transfer(read: bool, local: usize, remote: u64, len: usize) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    let local_iov = [local, len];
    let remote_iov = [remote as usize, len];
    let pid = own_pid();
    // SAFETY: the local side is `len` bytes that the callers own; the kernel checks the remote side.
    let moved = unsafe {
        if read {
            sys!(process_vm_readv, pid, local_iov.as_ptr(), 1, remote_iov.as_ptr(), 1, 0)
        } else {
            sys!(process_vm_writev, pid, local_iov.as_ptr(), 1, remote_iov.as_ptr(), 1, 0)
        }
    };
    match moved {
        Ok(n) if n == len => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => transfer_by_pipe(read, local, remote, len),
        _ => Err(Errno::EFAULT),
    }
}

/// One piece of a copy: `len` bytes at our address `local` from the program's `remote`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Part {
    pub local: usize,
    pub remote: u64,
    pub len: usize,
}

/// Copies several pieces in, in order, with one call.
///
/// # Errors
/// EFAULT when the bytes are not all readable; what was copied until then stays.
pub fn read_parts(parts: &[Part]) -> Result<(), Errno> {
    transfer_parts(true, parts)
}

/// Copies several pieces out, in order, with one call.
///
/// # Errors
/// EFAULT when the bytes are not all writable; what was copied until then stays.
pub fn write_parts(parts: &[Part]) -> Result<(), Errno> {
    if parts.iter().all(|p| on_own_stack(p.remote, p.len)) {
        for p in parts {
            // SAFETY: the target lies on this thread's stack above the stack pointer: mapped and
            // writable; the source is memory that the caller owns.
            unsafe { std::ptr::copy(p.local as *const u8, p.remote as *mut u8, p.len) };
        }
        return Ok(());
    }
    transfer_parts(false, parts)
}

fn transfer_parts(read: bool, parts: &[Part]) -> Result<(), Errno> {
    const MAX: usize = 4;
    assert!(parts.len() <= MAX);
    let (mut local, mut remote) = ([[0usize; 2]; MAX], [[0usize; 2]; MAX]);
    let mut total = 0;
    for (i, part) in parts.iter().enumerate() {
        local[i] = [part.local, part.len];
        remote[i] = [part.remote as usize, part.len];
        total += part.len;
    }
    let (pid, n) = (own_pid(), parts.len());
    let (local, remote) = (local.as_ptr(), remote.as_ptr());
    // SAFETY: the local sides are memory that the caller owns; the kernel checks the remote sides.
    let moved = unsafe {
        if read {
            sys!(process_vm_readv, pid, local, n, remote, n, 0)
        } else {
            sys!(process_vm_writev, pid, local, n, remote, n, 0)
        }
    };
    match moved {
        Ok(n) if n == total => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => parts
            .iter()
            .try_for_each(|part| transfer_by_pipe(read, part.local, part.remote, part.len)),
        _ => Err(Errno::EFAULT),
    }
}

/// For sandboxes that refuse process_vm_readv: the bytes go through a pipe, where write(2) and
/// read(2) check the program's side.
#[cold]
fn transfer_by_pipe(read: bool, local: usize, remote: u64, len: usize) -> Result<(), Errno> {
    let mut ends = [0i32; 2];
    // SAFETY: writes two ints on our stack.
    unsafe { sys!(pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }
        .map_err(|_| Errno::EFAULT)?;
    let (from, to) = if read { (remote as usize, local) } else { (local, remote as usize) };
    let mut done = 0;
    let mut result = Ok(());
    while done < len {
        let chunk = (len - done).min(4096);
        // SAFETY: one side is ours for `len` bytes, the other is checked by the kernel.
        let moved = unsafe {
            sys!(write, ends[1], from + done, chunk).and_then(|n| sys!(read, ends[0], to + done, n))
        };
        match moved {
            Ok(n) if n > 0 => done += n,
            _ => {
                result = Err(Errno::EFAULT);
                break;
            }
        }
    }
    crate::sys::close(ends[0]);
    crate::sys::close(ends[1]);
    result
}

/// Marker for types that are plain bytes in both directions: no padding that matters, every bit
/// pattern valid.
///
/// # Safety
/// The implementor must be `repr(C)` and made of integers only.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($t:ty),* $(,)?) => {
        $(
            // SAFETY: a repr(C) record of integers (or an integer), from the kernel's UAPI.
            unsafe impl Plain for $t {}
        )*
    };
}

plain!(
    u8,
    u16,
    u32,
    i32,
    u64,
    [u32; 2],
    [u64; 2],
    [u64; 3],
    soloring_abi::Params,
    soloring_abi::Timespec,
    soloring_abi::Sqe,
    soloring_abi::raw::io_uring_mem_region_reg,
    soloring_abi::raw::io_uring_region_desc,
    soloring_abi::raw::io_uring_reg_wait,
    soloring_abi::IoVec,
    soloring_abi::GeteventsArg,
    soloring_abi::RsrcRegister,
    soloring_abi::RsrcUpdate2,
    soloring_abi::FilesUpdate,
    soloring_abi::FileIndexRange,
    soloring_abi::SyncCancelReg,
    soloring_abi::CloneBuffers,
    soloring_abi::ProbeOp,
    soloring_abi::raw::io_uring_buf_reg,
    soloring_abi::raw::io_uring_buf_status,
    soloring_abi::raw::io_uring_clock_register,
    soloring_abi::raw::io_uring_restriction,
    libc::msghdr,
    libc::open_how,
);

/// Whether `[addr, addr + len)` can be the program's at all: below the kernel's half.
///
/// # Errors
/// EFAULT.
#[inline]
pub fn access_ok(addr: u64, len: u64) -> Result<(), Errno> {
    const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
    match addr.checked_add(len) {
        Some(end) if end <= TASK_SIZE_MAX => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Copies one `T` in.
///
/// # Errors
/// EFAULT when the bytes are not all readable.
#[inline]
pub fn read<T: Plain>(addr: u64) -> Result<T, Errno> {
    let len = size_of::<T>();
    if on_own_stack(addr, len) {
        // SAFETY: the bytes lie on this thread's stack above the stack pointer: mapped and readable.
        return Ok(unsafe { std::ptr::read_unaligned(addr as *const T) });
    }
    let mut value = MaybeUninit::<T>::uninit();
    transfer(true, value.as_mut_ptr() as usize, addr, len)?;
    // SAFETY: all bytes were written, and any bytes are a `T` (`Plain`).
    Ok(unsafe { value.assume_init() })
}

/// The `count` values of `T` at `addr`, one after the other, if they lie on the live part of the calling thread's stack.
#[inline]
pub fn on_stack<T: Plain>(addr: u64, count: usize) -> Option<impl Iterator<Item = T>> {
    let here = on_own_stack(addr, count.checked_mul(size_of::<T>())?);
    let at = addr as *const T;
    // SAFETY: the bytes lie on this thread's stack above the stack pointer, which stays above whoever takes them from
    // the iterator: it is not sent anywhere.
    here.then(|| (0..count).map(move |i| unsafe { at.add(i).read_unaligned() }))
}

/// Copies one `T` out.
///
/// # Errors
/// EFAULT when the bytes are not all writable.
#[inline]
pub fn write<T: Plain>(addr: u64, value: &T) -> Result<(), Errno> {
    let len = size_of::<T>();
    if on_own_stack(addr, len) {
        // SAFETY: the bytes lie on this thread's stack above the stack pointer: mapped and writable.
        unsafe { std::ptr::write_unaligned(addr as *mut T, *value) };
        return Ok(());
    }
    transfer(false, value as *const T as usize, addr, len)
}

/// Copies `count` values of `T` in.
///
/// # Errors
/// EFAULT; ENOMEM for a count that cannot be a real array.
pub fn read_vec<T: Plain>(addr: u64, count: usize) -> Result<Vec<T>, Errno> {
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Errno::ENOMEM)?;
    let mut values = Vec::<T>::new();
    values.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    transfer(true, values.as_mut_ptr() as usize, addr, bytes)?;
    // SAFETY: capacity is `count` and all its bytes were written; any bytes are a `T` (`Plain`).
    unsafe { values.set_len(count) };
    Ok(values)
}

/// Reads vectors of buffers, whose lengths are checked one after the other as they are read.
///
/// # Errors
/// EINVAL for a length that no buffer has, EFAULT, ENOMEM.
pub fn read_vectors(addr: u64, count: usize) -> Result<Vec<IoVec>, Errno> {
    let too_long = |v: &IoVec| v.len > isize::MAX as u64;
    match read_vec::<IoVec>(addr, count) {
        Ok(all) if all.iter().any(too_long) => Err(Errno::EINVAL),
        Err(Errno::EFAULT) => {
            for i in 0..count as u64 {
                if too_long(&read(addr.wrapping_add(16 * i))?) {
                    return Err(Errno::EINVAL);
                }
            }
            Err(Errno::EFAULT)
        }
        other => other,
    }
}

/// Copies a slice out.
///
/// # Errors
/// EFAULT when the bytes are not all writable.
pub fn write_slice<T: Plain>(addr: u64, values: &[T]) -> Result<(), Errno> {
    transfer(false, values.as_ptr() as usize, addr, size_of_val(values))
}

/// Copies a path in, with its NUL.
///
/// # Errors
/// EFAULT; ENAMETOOLONG (36) from 4096 bytes on; ENOENT is left to the operation.
pub fn read_path(addr: u64) -> Result<std::ffi::CString, Errno> {
    const PATH_MAX: usize = 4096;
    let mut path = Vec::new();
    let mut at = addr;
    while path.len() < PATH_MAX {
        // Never beyond the page that holds `at`: the next one need not exist.
        let in_page = 4096 - (at as usize & 4095);
        let chunk: Vec<u8> = read_vec(at, in_page)?;
        if let Some(end) = chunk.iter().position(|b| *b == 0) {
            path.extend_from_slice(&chunk[..end]);
            if path.len() >= PATH_MAX {
                break;
            }
            return Ok(std::ffi::CString::new(path).expect("cut at the first NUL"));
        }
        path.extend_from_slice(&chunk);
        at += in_page as u64;
    }
    Err(Errno(36))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_pointers_fail() {
        assert_eq!(read::<u64>(8), Err(Errno::EFAULT));
        assert_eq!(write::<u64>(8, &1), Err(Errno::EFAULT));
        assert_eq!(read::<u64>(u64::MAX - 3), Err(Errno::EFAULT));
        assert_eq!(read_path(16).unwrap_err(), Errno::EFAULT);
    }

    #[test]
    fn only_live_frames_of_the_threads_stack_are_read() {
        let stack = (0x10_0000, 0x20_0000);
        let live = |sp, frames, addr, len| is_live(stack, sp, frames, addr, len);
        // On the thread's own stack, whatever was noted.
        assert!(live(0x18_0000, 0, 0x18_0000, 16) && live(0x18_0000, 0x17_0000, 0x1f_fff0, 16));
        assert!(!live(0x18_0000, 0, 0x17_fff8, 16) && !live(0x18_0000, 0, 0x1f_fff8, 16));
        // On another one, wherever it is: from the program's frames on.
        for sp in [0x0f_f000, 0x20_1000] {
            assert!(live(sp, 0x18_0000, 0x18_0000, 16));
            assert!(!live(sp, 0x18_0000, 0x0f_ff00, 16) && !live(sp, 0x18_0000, 0x17_0000, 16));
            assert!(!live(sp, 0, 0x18_0000, 16), "a coroutine");
            assert!(!live(sp, 0x30_0000, 0x30_0000, 16), "the program is on another stack too");
        }
        assert!(!live(0x18_0000, 0, 0x18_0000, usize::MAX));
        assert!(!is_live((0, 1), 0x18_0000, 0, 0x18_0000, 1), "unknown");
    }

    #[test]
    fn stack_heap_and_pipe_agree() {
        let on_stack = [7u64, 9];
        assert_eq!(read::<[u64; 2]>(on_stack.as_ptr() as u64), Ok([7, 9]));
        let on_heap = [1u64, 2, 3];
        assert_eq!(read_vec::<u64>(on_heap.as_ptr() as u64, 3), Ok(vec![1, 2, 3]));
        let mut back = [0u64; 3];
        let to = back.as_mut_ptr() as usize;
        transfer_by_pipe(true, to, on_heap.as_ptr() as u64, 24).unwrap();
        assert_eq!(back, [1, 2, 3]);
        assert_eq!(transfer_by_pipe(true, to, 8, 8), Err(Errno::EFAULT));
    }

    #[test]
    fn a_forked_child_copies_from_its_own_memory() {
        let mut on_heap = vec![1u64];
        let at = std::hint::black_box(on_heap.as_mut_ptr());
        assert_eq!(read::<u64>(at as u64), Ok(1));
        // SAFETY: the child makes system calls and touches memory of its own only, then leaves.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the vector's only element.
            unsafe { at.write_volatile(2) };
            let seen = read::<u64>(at as u64) == Ok(2) && own_pid() == std::process::id();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!seen)) };
        }
        let mut status = -1;
        // SAFETY: writes one int on our stack.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!((status, read::<u64>(at as u64)), (0, Ok(1)));
    }

    #[test]
    fn path_may_end_at_a_page_end() {
        let path = c"/tmp/some/path".to_owned();
        assert_eq!(read_path(path.as_ptr() as u64).unwrap(), path);
    }
}
