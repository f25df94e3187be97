//! Tries each flag of `io_uring_enter` on a ring that is made for it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::zeroed;

use soloring_abi::{GeteventsArg, Timespec, raw};

use super::register::{self, op};
use super::trial::{Answer, Ring};
use crate::backend::Backend;

/// The size of `struct io_uring_reg_wait`, in bytes.
const REG_WAIT: usize = size_of::<raw::io_uring_reg_wait>();

/// One second after boot: over, whichever clock the limit is measured against.
static PAST: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Enters a ring with one flag, and with the flags without which that one means nothing.
pub fn flag<B: Backend>(backend: B, flag: u32) -> Answer {
    try_flag(backend, flag).unwrap_or_else(Answer::No)
}

fn try_flag<B: Backend>(backend: B, flag: u32) -> Result<Answer, i32> {
    // SAFETY: all-zero bytes are valid: no signal mask, no time limit.
    let mut arg: GeteventsArg = unsafe { zeroed() };
    if flag == raw::IORING_ENTER_ABS_TIMER {
        arg.ts = (&raw const PAST) as u64;
    }
    let pointer: *const c_void = (&raw const arg).cast();
    let size = size_of::<GeteventsArg>();
    let waiting = flag | raw::IORING_ENTER_GETEVENTS;
    Ok(match flag {
        raw::IORING_ENTER_SQ_WAKEUP | raw::IORING_ENTER_SQ_WAIT => {
            let ring = Ring::open(backend, raw::IORING_SETUP_SQPOLL)?;
            call(&ring, ring.fd, flag, std::ptr::null(), 0)
        }
        raw::IORING_ENTER_EXT_ARG => {
            let ring = Ring::open(backend, 0)?;
            call(&ring, ring.fd, waiting, pointer, size)
        }
        raw::IORING_ENTER_ABS_TIMER => {
            let ring = Ring::open(backend, 0)?;
            call(&ring, ring.fd, waiting | raw::IORING_ENTER_EXT_ARG, pointer, size)
        }
        raw::IORING_ENTER_REGISTERED_RING => {
            let ring = Ring::open(backend, 0)?;
            let index = register::add_registered(&ring)?;
            let answer = call(&ring, index, flag, std::ptr::null(), 0);
            register::forget_registered(backend, index);
            answer
        }
        raw::IORING_ENTER_EXT_ARG_REG => {
            let ring = Ring::open(backend, raw::IORING_SETUP_R_DISABLED)?;
            // The region for waits can be registered only before the ring is enabled.
            let res = register::region(&ring, u64::from(register::REGION_REG_WAIT_ARG));
            if res < 0 {
                return Err(-res as i32);
            }
            ring.register_nothing(op::IORING_REGISTER_ENABLE_RINGS as u32, 0);
            let flags = waiting | raw::IORING_ENTER_EXT_ARG;
            call(&ring, ring.fd, flags, std::ptr::null(), REG_WAIT)
        }
        raw::IORING_ENTER_NO_IOWAIT => {
            let ring = Ring::open(backend, 0)?;
            call(&ring, ring.fd, waiting, std::ptr::null(), 0)
        }
        _ => {
            let ring = Ring::open(backend, 0)?;
            call(&ring, ring.fd, flag, std::ptr::null(), 0)
        }
    })
}

/// Enters without entries and without waiting.
fn call<B: Backend>(
    ring: &Ring<B>,
    fd: u32,
    flags: u32,
    arg: *const c_void,
    size: usize,
) -> Answer {
    // SAFETY: nothing is queued; `arg` is null, an offset, or names the caller's local argument.
    Answer::of(unsafe { ring.backend.enter(fd, 0, 0, flags, arg, size) })
}
