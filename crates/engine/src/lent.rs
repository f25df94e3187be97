//! Vectors and headers that stay in the program's memory while their request is tried once.
//!
//! A request that is issued as soon as it is checked, and finished by its first attempt, needs no copy of what it
//! points to: the call reads it from where it is, and says EFAULT. The copy by process_vm_readv(2) takes longer than a
//! cached read. Whatever comes to anything else is copied after the attempt, still within the submission (SUBMIT_STABLE).
#![allow(unsafe_code)]

use crate::req::{Req, flag};
use crate::sys::{self, FileKind, MAX_RW_COUNT, sys};
use crate::{fds, usercopy};
use soloring_abi::{Errno, IoVec};
use std::sync::atomic::{AtomicI32, Ordering};

/// Not looked for yet.
const UNKNOWN: i32 = -2;
const MISSING: i32 = -1;
/// A private descriptor of the null device, open for writing.
static NULL_DEVICE: AtomicI32 = AtomicI32::new(UNKNOWN);

/// `None` where the file is missing, or is something else.
#[inline]
fn null_device() -> Option<i32> {
    match NULL_DEVICE.load(Ordering::Relaxed) {
        UNKNOWN => find_null_device(),
        MISSING => None,
        fd => Some(fd),
    }
}

/// Whoever comes first keeps what he found. Nobody waits: a signal handler may be the second one, on the same thread.
#[cold]
fn find_null_device() -> Option<i32> {
    let found = open_null_device().unwrap_or(MISSING);
    let (was, is) = (UNKNOWN, found);
    match NULL_DEVICE.compare_exchange(was, is, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => (found != MISSING).then_some(found),
        Err(_) => {
            fds::close_private(found);
            null_device()
        }
    }
}

fn open_null_device() -> Option<i32> {
    let path = c"/dev/null".as_ptr();
    // SAFETY: a path with its end.
    let low = unsafe { sys!(openat, libc::AT_FDCWD, path, libc::O_WRONLY | libc::O_CLOEXEC) };
    let fd = fds::make_private(low.ok()? as i32).ok()?;
    if sys::file_kind(fd).is_ok_and(FileKind::is_null_device) {
        return Some(fd);
    }
    fds::close_private(fd);
    None
}

/// Whether a request may lend what it points to.
pub fn is_possible() -> bool {
    null_device().is_some()
}

/// Bytes that `count` vectors at `addr` describe, at most what one call transfers. `None` if they cannot be read or are
/// none that a call would take.
///
/// The null device takes all of a write without looking at its data. That is one cheap call, where the vectors
/// are not on this thread's stack.
pub fn bytes(addr: u64, count: usize) -> Option<u64> {
    if let Some(vectors) = usercopy::on_stack::<IoVec>(addr, count) {
        return Some(vectors.fold(0, |sum: u64, v| sum.saturating_add(v.len)).min(MAX_RW_COUNT));
    }
    // SAFETY: the kernel reads the vectors and checks them; nothing is written anywhere.
    unsafe { sys!(writev, null_device()?, addr, count) }.ok().map(|n| n as u64)
}

/// After an attempt that needs more than the lent memory: `copy` takes what is there.
///
/// # Errors
/// Those of `copy`: the request fails as if its checks had found it.
pub fn take(req: &mut Req, copy: fn(&mut Req) -> Result<(), Errno>) -> Result<(), Errno> {
    req.flags &= !flag::LENT;
    copy(req).inspect_err(|_| req.flags |= flag::UNPREPARED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_counted_wherever_they_are() {
        let vectors = [IoVec { base: 0x1000, len: 5 }, IoVec { base: 0, len: 4096 }];
        let heap = Box::new(vectors);
        let count = |at: &[IoVec; 2], n| bytes(at.as_ptr() as u64, n);
        assert_eq!((count(&vectors, 2), count(&heap, 2)), (Some(4101), Some(4101)));
        assert_eq!((count(&heap, 1), count(&heap, 0)), (Some(5), Some(0)));
    }

    #[test]
    fn who_comes_second_finds_what_the_first_found() {
        let first = null_device();
        assert!(first.is_some_and(fds::is_private));
        // As a handler that interrupted the search would have it.
        assert_eq!((find_null_device(), null_device()), (first, first));
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        assert_eq!(bytes(8, 1), None);
        let kernel = Box::new([IoVec { base: 1 << 63, len: 1 }]);
        assert_eq!(bytes(kernel.as_ptr() as u64, 1), None);
    }

    #[test]
    fn no_call_transfers_more_than_the_most() {
        let most = Box::new([IoVec { base: 0x1000, len: 1 << 40 }; 2]);
        assert_eq!(bytes(most.as_ptr() as u64, 2), Some(MAX_RW_COUNT));
        let most = *most;
        assert_eq!(bytes(most.as_ptr() as u64, 2), Some(MAX_RW_COUNT));
    }
}
