//! The three system calls, and what else is done with a ring's descriptor, as functions.
//!
//! Arguments and results are those of the raw system calls: a value, or `-errno`; `errno` is not touched.
//! A ring made here is a ring for [`crate::install`] as well, and the other way round.

pub use soloring_abi::raw as consts;
pub use soloring_abi::{Cqe, Errno, Params, Sqe, Timespec};
pub use soloring_engine::uapi::{
    io_uring_enter as enter, io_uring_register as register, io_uring_setup as setup, is_ring_fd,
    ring_close as close, ring_dup as dup, ring_mmap as mmap,
};
