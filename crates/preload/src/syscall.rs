//! The C library's `syscall()`: ring calls and the calls that the other files interpose, by number.
//!
//! Everything else must be exactly the C library's function: no stack frame, so that `vfork` and `clone`
//! by number work, and the result in `errno` form. Hence a naked function that looks the number up in a
//! table and only leaves its own few instructions for the numbers in it.
#![allow(unsafe_code)]

use crate::{messages, process};
use libc::{c_char, c_int, c_long, c_uint};
use soloring_intercept::dispatch::{self, high_fd};
use soloring_intercept::mask;
use soloring_intercept::raw::{self, Args};
use soloring_intercept::watch;

const TABLE_LEN: usize = 512;

/// Numbers that [`caught`] looks at.
static CAUGHT: [u8; TABLE_LEN] = {
    let numbers = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_close,
        libc::SYS_mmap,
        libc::SYS_dup,
        libc::SYS_dup2,
        libc::SYS_dup3,
        libc::SYS_fcntl,
        libc::SYS_epoll_ctl,
        libc::SYS_close_range,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_select,
        libc::SYS_pselect6,
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_exit_group,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
    ];
    let mut table = [0; TABLE_LEN];
    let mut i = 0;
    while i < numbers.len() {
        table[numbers[i] as usize] = 1;
        i += 1;
    }
    table
};

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall() {
    std::arch::naked_asm!(
        "cmp rdi, {len}",
        "jae 2f",
        "lea rax, [rip + {table}]",
        "cmp byte ptr [rax + rdi], 0",
        "je 2f",
        "jmp {caught}", // same registers, same stack argument
        "2:",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, qword ptr [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        "3:",
        "mov rdi, rax",
        "jmp {fail}",
        len = const TABLE_LEN,
        table = sym CAUGHT,
        caught = sym caught,
        fail = sym fail,
    )
}

unsafe extern "C" fn fail(ret: isize) -> isize {
    // SAFETY: called on a thread of the C library's.
    unsafe { raw::to_errno(ret) }
}

unsafe extern "C" fn caught(
    nr: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let args: Args = [a, b, c, d, e, f];
    if nr == libc::SYS_io_uring_enter {
        // SAFETY: the program's own arguments.
        return unsafe { raw::to_errno(dispatch::ring_call(nr as usize, args)) as c_long };
    }
    // SAFETY: the program's own arguments, passed on in order.
    unsafe { raw::to_errno(perform(nr, args)) as c_long }
}

/// # Safety
/// As the system call `nr` with these registers.
unsafe fn perform(nr: c_long, a: Args) -> isize {
    let fd = |i: usize| high_fd(a[i] as c_int);
    let number = nr as usize;
    // SAFETY: as the caller promises; each arm passes the program's own registers.
    unsafe {
        match nr {
            libc::SYS_io_uring_setup | libc::SYS_io_uring_enter | libc::SYS_io_uring_register => {
                dispatch::ring_call(number, a)
            }
            libc::SYS_close | libc::SYS_dup | libc::SYS_fcntl if fd(0) => {
                dispatch::dispatch(number, &a)
            }
            libc::SYS_dup2 | libc::SYS_dup3 if fd(0) || fd(1) => dispatch::dispatch(number, &a),
            libc::SYS_epoll_ctl if fd(0) || fd(2) => dispatch::dispatch(number, &a),
            libc::SYS_mmap if fd(4) => dispatch::dispatch(number, &a),
            libc::SYS_close_range => dispatch::dispatch(number, &a),
            libc::SYS_poll | libc::SYS_ppoll => {
                watch::before_poll(a[0] as *const _, a[1]);
                raw::any(number, a)
            }
            libc::SYS_select | libc::SYS_pselect6 => {
                watch::before_select(a[0] as c_int, [a[1], a[2], a[3]].map(|s| s as *const _));
                raw::any(number, a)
            }
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
                watch::before_epoll();
                raw::any(number, a)
            }
            libc::SYS_rt_sigaction if a[0] as c_int == libc::SIGSYS => {
                dispatch::dispatch(number, &a)
            }
            libc::SYS_rt_sigprocmask if a[3] == 8 && a[1] != 0 => change_mask(a),
            libc::SYS_execve => from_errno(process::execve(
                a[0] as *const c_char,
                a[1] as *const _,
                a[2] as *const _,
            )),
            libc::SYS_execveat => from_errno(process::execveat(
                a[0] as c_int,
                a[1] as *const c_char,
                a[2] as *const _,
                a[3] as *const _,
                a[4] as c_int,
            )),
            libc::SYS_sendmsg => {
                from_errno(
                    messages::sendmsg(a[0] as c_int, a[1] as *const _, a[2] as c_int) as c_int
                )
            }
            libc::SYS_sendmmsg => from_errno(messages::sendmmsg(
                a[0] as c_int,
                a[1] as *mut _,
                a[2] as c_uint,
                a[3] as c_int,
            )),
            libc::SYS_exit_group => process::_exit(a[0] as c_int),
            _ => raw::any(number, a),
        }
    }
}

fn from_errno(ret: c_int) -> isize {
    // SAFETY: errno's address is valid for the life of the thread.
    if ret < 0 { -(unsafe { *libc::__errno_location() } as isize) } else { ret as isize }
}

/// `rt_sigprocmask` with a set: eight bytes, without SIGSYS.
///
/// # Safety
/// The set and the old set, if any, are eight bytes of the program's.
unsafe fn change_mask(a: Args) -> isize {
    let how = a[0] as c_int;
    // SAFETY: as the caller promises.
    let wanted = unsafe { (a[1] as *const u64).read_unaligned() };
    let before = mask::sigsys_blocked();
    let set = mask::without_sigsys(wanted);
    let mut args = a;
    args[1] = &raw const set as usize;
    // SAFETY: a live eight-byte set in the program's place.
    let ret = unsafe { raw::any(libc::SYS_rt_sigprocmask as usize, args) };
    if ret == 0 {
        if before && a[2] != 0 {
            let old = a[2] as *mut u64;
            // SAFETY: the kernel has just written these eight bytes.
            unsafe { old.write_unaligned(mask::with_sigsys(old.read_unaligned())) };
        }
        mask::note_change(how, mask::names_sigsys(wanted));
    }
    ret
}
