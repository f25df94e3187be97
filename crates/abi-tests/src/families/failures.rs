//! Which results break a chain: the kernel does not count every error as a failure.
//!
//! A request that has not failed lets the next of its chain run, and with CQE_SKIP_SUCCESS posts nothing.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop, op};
use crate::sys;
use libc::{AT_FDCWD, EBADF, ECANCELED, EINVAL, ENOENT, ENOTCONN, ENOTDIR, ENOTSOCK};
use soloring_abi::{Opcode, Sqe};

struct Outcome {
    sqe: Sqe,
    res: Res,
    breaks: bool,
}

fn check_each(abi: &Abi, cases: impl IntoIterator<Item = Outcome>) {
    let mut ring = Ring::new(abi, 8);
    for Outcome { sqe, res, breaks } in cases {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        ring.submit_all(&[sqe.ud(1).link(), nop().ud(2)]);
        let next = if breaks { err(ECANCELED) } else { Res(0) };
        check_eq!(ring.results(2), [(1, res), (2, next)], "{what}");
        ring.submit_all(&[sqe.ud(1).skip(), nop().ud(2)]);
        if breaks {
            check_eq!(ring.results(2), [(1, res), (2, Res(0))], "{what}, skipped on success");
        } else {
            check_eq!(ring.results(1), [(2, Res(0))], "{what}, skipped on success");
            check!(ring.quiet(), "{what}: a skipped completion came");
        }
    }
}

fn refusals_of_the_work_itself(abi: &Abi) {
    let none = sys::c("/nowhere/at/all");
    let mut out = sys::zeroed_statx();
    let (r, w) = sys::pipe();
    let tcp = sys::tcp_socket();
    let mut buf = [0; 8];
    let how = sys::open_how(0, 0, 0);
    let broken = |sqe, errno| Outcome { sqe, res: err(errno), breaks: true };
    let whole = |sqe, errno| Outcome { sqe, res: err(errno), breaks: false };
    check_each(
        abi,
        [
            whole(sqe::fsync(r, 0), EINVAL),
            whole(sqe::statx(AT_FDCWD, &none, 0, 0, &mut out), ENOENT),
            whole(sqe::shutdown(tcp, libc::SHUT_RDWR), ENOTCONN),
            broken(sqe::shutdown(r, libc::SHUT_RDWR), ENOTSOCK),
            broken(sqe::openat(AT_FDCWD, &none, 0, 0), ENOENT),
            broken(sqe::openat2(AT_FDCWD, &none, &how), ENOENT),
            broken(sqe::openat(r, &sys::c("x"), 0, 0), ENOTDIR),
            broken(sqe::close(sys::unused_fd()), EBADF),
            broken(sqe::close_slot(5), libc::ENXIO),
            broken(sqe::read(w, &mut buf, 0), EBADF),
            broken(sqe::write(r, &buf, 0), EBADF),
            broken(sqe::send(tcp, &buf, libc::MSG_NOSIGNAL), libc::EPIPE),
            broken(sqe::recv(sys::tcp_socket(), &mut buf, 0), ENOTCONN),
            broken(sqe::socket(-1, 0, 0), libc::EAFNOSUPPORT),
            broken(sqe::accept(tcp, 0), EINVAL),
            broken(sqe::listen(r, 1), ENOTSOCK),
            broken(sqe::poll_remove(99), ENOENT),
            broken(sqe::timeout_remove(99), ENOENT),
            broken(sqe::cancel(99, -1, 0), ENOENT),
            broken(sqe::nop_result(-5), libc::EIO),
            broken(op(Opcode::Pipe, 0, 1, 0, 0), libc::EFAULT),
        ],
    );
}

/// A bad descriptor is a failure of every request.
fn files_that_are_not_there(abi: &Abi) {
    let fd = sys::unused_fd();
    let mut buf = [0; 8];
    let broken = |sqe| Outcome { sqe, res: err(EBADF), breaks: true };
    check_each(
        abi,
        [
            broken(sqe::fsync(fd, 0)),
            broken(sqe::shutdown(fd, 0)),
            broken(sqe::read(fd, &mut buf, 0)),
            broken(op(Opcode::Ftruncate, fd, 0, 0, 0)),
            broken(op(Opcode::Fgetxattr, fd, c"user.a".as_ptr() as u64, 0, 0)),
        ],
    );
}

/// Less than was asked for breaks a chain for some, and so does more than nothing.
fn short_results(abi: &Abi) {
    let file = sys::file_with(b"0123456789");
    let mut buf = [0; 20];
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    sys::write(b, b"abc");
    let mut ring = Ring::new(abi, 8);
    for (what, sqe, res, breaks) in [
        ("all of a file", sqe::read(file, &mut buf[..10], 0), Res(10), false),
        ("more than a file", sqe::read(file, &mut buf, 0), Res(10), true),
        ("behind its end", sqe::read(file, &mut buf, 10), Res(0), true),
        ("a message", sqe::recv(a, &mut buf, libc::MSG_PEEK), Res(3), false),
        ("a whole buffer", sqe::recv(a, &mut buf, libc::MSG_WAITALL), Res(3), true),
    ] {
        if what == "a whole buffer" {
            sys::close(b);
        }
        ring.submit_all(&[sqe.ud(1).link(), nop().ud(2)]);
        let next = if breaks { err(ECANCELED) } else { Res(0) };
        check_eq!(ring.results(2), [(1, res), (2, next)], "{what}");
    }
}

family!["failures", modes;
    refusals_of_the_work_itself,
    files_that_are_not_there,
    short_results,
];
