//! Error numbers as a value: what a call or a completion returns, negated.

/// A Linux errno, positive. `-EINVAL` in a result register is `Errno::EINVAL.neg()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// The value as the kernel returns it: `-errno`.
    #[inline]
    pub const fn neg(self) -> i32 {
        -self.0
    }
}

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        impl Errno { $(pub const $name: Errno = Errno(linux_raw_sys::errno::$name as i32);)* }
    };
}

errnos!(
    EPERM,
    ENOENT,
    EINTR,
    EIO,
    ENXIO,
    E2BIG,
    EBADF,
    EAGAIN,
    ENOMEM,
    EACCES,
    EFAULT,
    EBUSY,
    EEXIST,
    EXDEV,
    ENODEV,
    ENOTDIR,
    EISDIR,
    EINVAL,
    ENFILE,
    EMFILE,
    ENOTTY,
    ETXTBSY,
    EFBIG,
    ENOSPC,
    ESPIPE,
    EPIPE,
    ERANGE,
    EDEADLK,
    ENOSYS,
    ELOOP,
    ETIME,
    EBADFD,
    EBADR,
    EOVERFLOW,
    ENOTSOCK,
    EOPNOTSUPP,
    EINPROGRESS,
    EALREADY,
    ECANCELED,
    EOWNERDEAD,
    ENOBUFS,
    ENOTCONN,
    ECONNRESET,
    ETIMEDOUT,
    EMSGSIZE,
    ENODATA,
    ERESTART,
);
