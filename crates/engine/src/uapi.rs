//! The three system calls and what else a program does with a ring's descriptor.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, unused_variables)]

use soloring_abi::{Errno, Params};
use std::ffi::c_void;

pub unsafe fn io_uring_setup(entries: u32, params: *mut Params) -> isize {
    Errno::ENOSYS.neg() as isize
}
pub unsafe fn io_uring_enter(
    fd: u32,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    arg: *const c_void,
    argsz: usize,
) -> isize {
    Errno::ENOSYS.neg() as isize
}
pub unsafe fn io_uring_register(fd: u32, opcode: u32, arg: *mut c_void, nr_args: u32) -> isize {
    Errno::ENOSYS.neg() as isize
}
pub fn fd_base() -> i32 {
    16384
}
pub fn is_ring_fd(fd: i32) -> bool {
    false
}
pub fn is_private_fd(fd: i32) -> bool {
    false
}
pub unsafe fn ring_mmap(
    addr: usize,
    len: usize,
    prot: i32,
    flags: i32,
    fd: i32,
    off: i64,
) -> Option<isize> {
    None
}
pub fn ring_close(fd: i32) -> Option<isize> {
    None
}
pub fn ring_dup(fd: i32, min_fd: i32, cloexec: bool) -> Option<isize> {
    None
}
pub fn note_polled(fd: i32) {}
pub fn refresh_readiness() {}
pub fn op_count() -> u64 {
    0
}
