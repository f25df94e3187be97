//! Creating a thread that is invisible to the program: every signal blocked from its first instruction, small stack, the kernel's name.

use crate::{signal, sys};
use std::thread::Builder;

/// Bytes. The works are shallow; debug builds and signal frames with wide vector state fit.
const STACK_SIZE: usize = 256 * 1024;

/// The errno when the thread cannot be created, mostly EAGAIN.
pub(crate) fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), i32> {
    // The name as the kernel's workers have it; 15 bytes are kept.
    let name = format!("iou-wrk-{}", sys::getpid());
    // A new thread inherits the mask, so nothing of the program's can be delivered to it before it sets its own.
    let mask = sys::set_sigmask(signal::worker_mask(0));
    let spawned = Builder::new().name(name).stack_size(STACK_SIZE).spawn(body);
    sys::set_sigmask(mask);
    match spawned {
        Ok(_detached) => Ok(()),
        Err(e) => Err(e.raw_os_error().unwrap_or(libc::EAGAIN)),
    }
}
