//! How our own calls on our own descriptors tell themselves apart from the program's.

/// Sixth system-call argument of `close`, `dup3`, `fcntl`, `epoll_ctl` and `close_range` when the
/// engine makes them. None of these calls reads it; the interception's filter lets it through.
pub const COOKIE: u64 = 0x736f_6c6f_7269_6e67;
