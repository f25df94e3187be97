//! What a call or a completion returns: a number, or an error shown by its name.

use std::fmt;

/// A result register: `>= 0`, or `-errno`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Res(pub i64);

impl Res {
    pub fn is_err(self) -> bool {
        self.0 < 0
    }
}

/// The expected failure: `err(libc::EINVAL)`.
pub const fn err(errno: i32) -> Res {
    Res(-(errno as i64))
}

/// The expected success value.
pub const fn ok(value: i64) -> Res {
    Res(value)
}

impl fmt::Display for Res {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (-4095..0).contains(&self.0) {
            let errno = syscalls::Errno::new(-self.0 as i32);
            if let Some(name) = errno.name() {
                return write!(f, "-{name}");
            }
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Res {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
