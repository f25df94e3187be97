//! Readiness of rings in `poll`, `select` and `epoll`: told to the engine before the program sleeps.
//!
//! A ring's descriptor is an eventfd. It is signalled when completions appear, but the program empties
//! the completion queue without calling anyone, so its readiness goes stale. Before the program sleeps
//! the engine is told which rings it watches and brings their readiness up to date.
#![allow(unsafe_code)]

use crate::dispatch::rings_made;
use soloring_engine::uapi;

/// Before `poll` or `ppoll`.
///
/// # Safety
/// `fds` points to `len` entries, as the program passes them.
pub unsafe fn before_poll(fds: *const libc::pollfd, len: usize) {
    if !rings_made() {
        return;
    }
    if !fds.is_null() {
        let base = uapi::fd_base();
        for i in 0..len {
            // SAFETY: the entry lies within the program's own array.
            note(unsafe { (*fds.add(i)).fd }, base);
        }
    }
    uapi::refresh_readiness();
}

/// Before `select` or `pselect`: only sets larger than the usual 1024 bits can name a ring.
///
/// # Safety
/// Each set is null or has at least `len` bits.
pub unsafe fn before_select(len: i32, sets: [*const libc::fd_set; 3]) {
    if !rings_made() {
        return;
    }
    let base = uapi::fd_base();
    for fd in base..len.max(base) {
        for set in sets {
            let word = set.cast::<u64>();
            // SAFETY: `fd < len`, so its bit lies within the set.
            if !set.is_null() && unsafe { *word.add(fd as usize / 64) } >> (fd % 64) & 1 != 0 {
                note(fd, base);
            }
        }
    }
    uapi::refresh_readiness();
}

/// Before `epoll_wait` and its relatives: the rings were noted when they were added.
pub fn before_epoll() {
    if rings_made() {
        uapi::refresh_readiness();
    }
}

#[inline]
fn note(fd: i32, base: i32) {
    if fd >= base && uapi::is_ring_fd(fd) {
        uapi::note_polled(fd);
    }
}
