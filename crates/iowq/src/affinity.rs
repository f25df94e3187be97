//! Which CPUs workers run on.

use crate::sys;

/// Every CPU: the kernel takes out those that the process's cpuset does not have.
const ALL: [u8; 1024] = [0xff; 1024];

/// Binds the worker `tid` (0: the calling one). Without a mask it may use every CPU of the process's cpuset, even if the
/// thread that created it is bound to one.
pub(crate) fn apply(tid: i32, mask: Option<&[u8]>) {
    // An error leaves the worker where it is: slower, not wrong.
    let _ = sys::sched_setaffinity(tid, mask.unwrap_or(&ALL));
}

/// The CPUs of the calling process's cpuset, whatever the calling thread is bound to.
pub(crate) fn allowed() -> Result<Vec<u8>, i32> {
    let own = sys::sched_getaffinity(0)?;
    // Widening moves the thread nowhere. Where it is refused, what the thread has is what there is.
    if sys::sched_setaffinity(0, &ALL).is_err() {
        return Ok(own);
    }
    let all = sys::sched_getaffinity(0);
    let _ = sys::sched_setaffinity(0, &own);
    all
}

/// Whether each CPU of `mask` is in `allowed`.
pub(crate) fn is_subset(mask: &[u8], allowed: &[u8]) -> bool {
    mask.iter().enumerate().all(|(i, &bits)| bits & !allowed.get(i).copied().unwrap_or(0) == 0)
}
