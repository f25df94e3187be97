//! SETXATTR, FSETXATTR, GETXATTR, FGETXATTR.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, nop, op};
use crate::sys;
use libc::{E2BIG, EBADF, EEXIST, EFAULT, EINVAL, ENODATA, ENOENT, EOPNOTSUPP, ERANGE};
use soloring_abi::{Opcode, Sqe};
use std::ffi::CStr;

fn fset(fd: i32, name: &CStr, value: &[u8], flags: i32) -> Sqe {
    let (value, len) = (value.as_ptr() as u64, value.len() as u32);
    op(Opcode::Fsetxattr, fd, name.as_ptr() as u64, len, value).with(|s| s.op_flags = flags as u32)
}

fn set(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Sqe {
    fset(0, name, value, flags).with(|s| {
        s.opcode = Opcode::Setxattr as u8;
        s.addr3 = path.as_ptr() as u64;
    })
}

fn fget(fd: i32, name: &CStr, value: &mut [u8]) -> Sqe {
    let (value, len) = (value.as_mut_ptr() as u64, value.len() as u32);
    op(Opcode::Fgetxattr, fd, name.as_ptr() as u64, len, value)
}

fn get(path: &CStr, name: &CStr, value: &mut [u8]) -> Sqe {
    fget(0, name, value).with(|s| {
        s.opcode = Opcode::Getxattr as u8;
        s.addr3 = path.as_ptr() as u64;
    })
}

/// A file's path and descriptor; whether its file system has attributes of users.
fn file(ring: &mut Ring<'_>, dir: &std::path::Path) -> (std::ffi::CString, i32, bool) {
    let path = dir.join("f");
    std::fs::write(&path, b"x").unwrap();
    let fd = sys::open(path.to_str().unwrap(), libc::O_RDWR);
    let probe = ring.res(fset(fd, c"user.probe", b"1", 0));
    (sys::c(path), fd, probe != err(EOPNOTSUPP))
}

fn values_by_descriptor_and_by_path(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let (path, fd, have) = file(&mut ring, dir.path());
    if !have {
        return;
    }
    let mut out = [0u8; 16];
    check_eq!(ring.res(fget(fd, c"user.a", &mut out)), err(ENODATA));
    check_eq!(ring.res(fset(fd, c"user.a", b"one", 0)), Res(0));
    check_eq!(ring.res(get(&path, c"user.a", &mut out)), Res(3));
    check_eq!(&out[..3], b"one");
    check_eq!(ring.res(set(&path, c"user.a", b"other", 0)), Res(0));
    check_eq!(ring.res(fget(fd, c"user.a", &mut out)), Res(5));
    check_eq!(&out[..5], b"other");
    check_eq!(ring.res(fget(fd, c"user.a", &mut out[..0])), Res(5), "the size alone");
    check_eq!(ring.res(fget(fd, c"user.a", &mut out[..2])), err(ERANGE), "too small");
    check_eq!(ring.res(set(&path, c"user.e", b"", 0)), Res(0), "an empty value");
    check_eq!(ring.res(get(&path, c"user.e", &mut out)), Res(0));
}

fn create_and_replace(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let (path, fd, have) = file(&mut ring, dir.path());
    if !have {
        return;
    }
    let (create, replace) = (libc::XATTR_CREATE, libc::XATTR_REPLACE);
    check_eq!(ring.res(fset(fd, c"user.a", b"1", replace)), err(ENODATA));
    check_eq!(ring.res(set(&path, c"user.a", b"1", create)), Res(0));
    check_eq!(ring.res(fset(fd, c"user.a", b"1", create)), err(EEXIST));
    check_eq!(ring.res(set(&path, c"user.a", b"1", replace)), Res(0));
}

fn bad_arguments(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let (path, fd, have) = file(&mut ring, dir.path());
    let mut out = [0u8; 16];
    let sets = [fset(fd, c"user.a", b"1", 0), set(&path, c"user.a", b"1", 0)];
    let gets = [fget(fd, c"user.a", &mut out), get(&path, c"user.a", &mut out)];
    let long = sys::c(format!("user.{}", "x".repeat(251)));
    let endless = sys::c("x".repeat(5000));
    for sqe in sets.into_iter().chain(gets) {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        for (at, want) in [
            (0, EFAULT),
            (1, EFAULT),
            (sys::forbidden_page(), EFAULT),
            (c"".as_ptr() as u64, ERANGE),
            (long.as_ptr() as u64, ERANGE),
            (endless.as_ptr() as u64, ERANGE),
        ] {
            check_eq!(ring.res(sqe.with(|s| s.addr = at)), err(want), "{what}: name");
        }
        check_eq!(ring.res(sqe.with(|s| s.op_flags = 4)), err(EINVAL), "{what}: flags");
        check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "{what}: ioprio");
    }
    for sqe in sets {
        check_eq!(ring.res(sqe.with(|s| s.len = 65537)), err(E2BIG), "a long value");
        check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EFAULT), "bad value");
    }
    for sqe in gets {
        check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "flags of a get");
    }
    if have {
        ring.res(sets[0]);
        for sqe in gets {
            check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EFAULT), "bad buffer");
            check_eq!(ring.res(sqe.with(|s| s.off = sys::read_only_page())), err(EFAULT));
        }
    }
}

fn bad_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let (path, fd, _) = file(&mut ring, dir.path());
    let mut out = [0u8; 16];
    for bad in [-1, sys::unused_fd()] {
        check_eq!(ring.res(fset(bad, c"user.a", b"1", 0)), err(EBADF));
        check_eq!(ring.res(fget(bad, c"user.a", &mut out)), err(EBADF));
    }
    for sqe in [set(&path, c"user.a", b"1", 0), get(&path, c"user.a", &mut out)] {
        check_eq!(ring.res(sqe.fixed()), err(EBADF), "IOSQE_FIXED_FILE");
        check_eq!(ring.res(sqe.with(|s| s.addr3 = 1)), err(EFAULT), "bad path");
        check_eq!(ring.res(sqe.with(|s| s.addr3 = c"".as_ptr() as u64)), err(ENOENT), "empty path");
        let none = sys::c(dir.path().join("none"));
        check_eq!(ring.res(sqe.with(|s| s.addr3 = none.as_ptr() as u64)), err(ENOENT));
    }
    let (r, _w) = sys::pipe();
    let of_pipe = ring.res(fget(r, c"user.a", &mut out));
    check_in!(of_pipe, [err(EOPNOTSUPP), err(ENODATA)], "a pipe");
    check_eq!(sys::close(fd), Res(0));
}

fn through_a_registered_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let (_, fd, have) = file(&mut ring, dir.path());
    let files = soloring_abi::raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [fd].as_ptr(), 1), Res(0));
    if !have {
        return;
    }
    let mut out = [0u8; 16];
    check_eq!(ring.res(fset(0, c"user.a", b"one", 0).fixed()), Res(0));
    check_eq!(ring.res(fget(0, c"user.a", &mut out).fixed()), Res(3));
    check_eq!(ring.res(fget(1, c"user.a", &mut out).fixed()), err(EBADF));
}

fn names_and_values_may_be_gone_after_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let (_, fd, have) = file(&mut ring, dir.path());
    if !have {
        return;
    }
    let page = sys::buffer(4096);
    let mut out = [0u8; 16];
    for _ in 0..20 {
        page[..7].copy_from_slice(b"user.a\0");
        page[100..103].copy_from_slice(b"abc");
        let at = page.as_ptr() as u64;
        let sqe = fset(fd, c"", b"", 0).with(|s| (s.addr, s.off, s.len) = (at, at + 100, 3));
        ring.submit_all(&[sqe]);
        page[..200].fill(b'!');
        check_eq!(ring.wait().res, Res(0));
        check_eq!(ring.res(fget(fd, c"user.a", &mut out)), Res(3));
        check_eq!(&out[..3], b"abc");
    }
}

fn a_refusal_does_not_break_its_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let path = c"/nowhere/at/all";
    let fd = sys::file_with(b"");
    let mut out = [0u8; 16];
    for sqe in [
        set(path, c"user.a", b"1", 0),
        get(path, c"user.a", &mut out),
        fset(fd, c"nonamespace", b"1", 0),
        fget(fd, c"nonamespace", &mut out),
    ] {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        ring.submit_all(&[sqe.ud(1).link(), nop().ud(2)]);
        let got = ring.results(2);
        check!(got[0].1.is_err(), "{what}: {}", got[0].1);
        check_eq!(got[1], (2, Res(0)), "{what}");
    }
}

family!["xattrs", modes;
    values_by_descriptor_and_by_path,
    create_and_replace,
    bad_arguments,
    bad_files,
    through_a_registered_file,
    names_and_values_may_be_gone_after_submission,
    a_refusal_does_not_break_its_chain,
];
