//! Creating a thread that the program does not notice.
//!
//! Signals are blocked from its first instruction, the stack is small, and its name is the one that
//! the kernel gives.
#![allow(unsafe_code)]

use crate::{signal, sys};
use std::sync::OnceLock;
use std::thread::Builder;
use std::time::Duration;

/// Bytes, beside what the thread-local storage of the program takes. The works are shallow; debug
/// builds and signal frames with wide vector state fit.
const STACK_SIZE: usize = 256 * 1024;

/// The errno when the thread cannot be created, mostly EAGAIN.
pub(crate) fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), i32> {
    // 15 bytes are kept.
    let name = format!("iou-wrk-{}", sys::getpid());
    // A new thread inherits the mask, so nothing of the program's reaches it before it sets its
    // own.
    let mask = sys::set_sigmask(signal::worker_mask(0));
    let spawned = Builder::new().name(name).stack_size(STACK_SIZE + tls_size()).spawn(body);
    sys::set_sigmask(mask);
    match spawned {
        Ok(_detached) => Ok(()),
        Err(e) => Err(e.raw_os_error().unwrap_or(libc::EAGAIN)),
    }
}

/// What glibc cuts from every stack for the thread-local storage of the program and its libraries,
/// and the least that it leaves. A program with much of it would otherwise leave a worker next to
/// nothing.
fn tls_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: the name is a C string; dlsym only looks it up.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) };
        if symbol.is_null() {
            return 0;
        }
        type MinStack = unsafe extern "C" fn(*const libc::pthread_attr_t) -> libc::size_t;
        // SAFETY: glibc (where the symbol comes from) declares it so; it reads the attribute not at
        // all.
        unsafe {
            let min_stack = std::mem::transmute::<*mut libc::c_void, MinStack>(symbol);
            let attr = std::mem::zeroed();
            min_stack(&raw const attr)
        }
    })
}

pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
