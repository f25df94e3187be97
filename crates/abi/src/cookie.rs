//! The marks by which the interception filter knows the library's own system calls.
//!
//! `soloring-intercept` installs one seccomp filter that stops every system call naming a descriptor
//! at or above the reserved base, because it may name a ring. The library itself must close, duplicate
//! and configure exactly those descriptors, and after an `exec` the filter is older than the library,
//! so instruction addresses cannot tell the two apart. Instead our own calls carry a mark in an
//! argument that the kernel ignores:
//!
//! | call | where the mark goes |
//! |---|---|
//! | `close`, `dup`, `dup2`, `dup3`, `fcntl`, `epoll_ctl`, `close_range`, `rt_sigaction` | sixth argument (`r9`) = [`COOKIE`] |
//! | `mmap` (uses all six) | flags argument `\|` [`MMAP_FLAGS_COOKIE`]: `MAP_SHARED` and `MAP_PRIVATE` ignore unknown bits |
//!
//! Calls that name only descriptors below the base need no mark, and `read`, `write`, `epoll_wait` and
//! the like are never stopped. The mark is no secret and protects nothing: it only prevents recursion.

/// Sixth argument of a descriptor call that the filter must let through.
pub const COOKIE: u64 = 0x9d3c_51e7_a86b_f214;

/// To be or-ed into the 64-bit flags argument of a raw `mmap` on a descriptor at or above the base.
pub const MMAP_FLAGS_COOKIE: u64 = COOKIE & 0xffff_ffff_0000_0000;

/// Sixth argument of `close(-1, base)` by which a process asks whether the filter is installed.
pub const PROBE_COOKIE: u64 = 0x9d3c_51e7_a86b_f2a5;
