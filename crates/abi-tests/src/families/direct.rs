//! PIPE, FIXED_FD_INSTALL and FILES_UPDATE: descriptors in and out of the file table.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, CURRENT, SqeExt, nop, op};
use crate::sys;
use libc::{
    EBADF, ECANCELED, EFAULT, EINVAL, EMFILE, ENFILE, ENXIO, EOVERFLOW, O_CLOEXEC, O_NONBLOCK,
};
use soloring_abi::{Opcode, Sqe, raw};

const ALLOC: u32 = u32::MAX;

fn pipe(fds: &mut [i32; 2], flags: i32) -> Sqe {
    op(Opcode::Pipe, 0, fds.as_mut_ptr() as u64, 0, 0).with(|s| s.op_flags = flags as u32)
}

fn pipe_into(fds: &mut [i32; 2], flags: i32, file_index: u32) -> Sqe {
    pipe(fds, flags).with(|s| s.file_index = file_index)
}

fn install(slot: i32, flags: u32) -> Sqe {
    op(Opcode::FixedFdInstall, slot, 0, 0, 0).with(|s| s.op_flags = flags).fixed()
}

fn update(fds: &mut [i32], off: u64) -> Sqe {
    op(Opcode::FilesUpdate, -1, fds.as_mut_ptr() as u64, fds.len() as u32, off)
}

fn is_used(ring: &mut Ring<'_>, slot: i32) -> bool {
    ring.res(sqe::write(slot, b"x", CURRENT).fixed()) != err(EBADF)
        || ring.res(op(Opcode::Fsync, slot, 0, 0, 0).fixed()) != err(EBADF)
}

/// Runs `body` with this soft RLIMIT_NOFILE.
fn with_descriptor_limit<T>(limit: u64, body: impl FnOnce() -> T) -> T {
    let mut former = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and writes limits of this process, on our stack.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut former) };
    let tight = libc::rlimit { rlim_cur: limit, ..former };
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &tight) };
    let result = body();
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &former) };
    result
}

fn null() -> i32 {
    sys::open("/dev/null", libc::O_RDWR)
}

fn pipes(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let mut fds = [-1; 2];
    check_eq!(ring.res(pipe(&mut fds, 0)), Res(0));
    check_eq!(sys::write(fds[1], b"abc"), Res(3));
    check_eq!(sys::read(fds[0], &mut [0; 8]), Res(3));
    check_eq!(sys::fcntl(fds[0], libc::F_GETFD, 0), Res(0), "not close-on-exec");
    check_eq!(ring.res(pipe(&mut fds, O_CLOEXEC | O_NONBLOCK)), Res(0));
    for fd in fds {
        check_eq!(sys::fcntl(fd, libc::F_GETFD, 0), Res(1), "O_CLOEXEC");
        let status = sys::fcntl(fd, libc::F_GETFL, 0).0 as i32;
        check!(status & O_NONBLOCK != 0, "O_NONBLOCK");
    }
    check_eq!(ring.res(pipe(&mut fds, libc::O_DIRECT)), Res(0), "packets");
    let status = sys::fcntl(fds[1], libc::F_GETFL, 0).0 as i32;
    check!(status & libc::O_DIRECT != 0, "O_DIRECT");
    check_eq!(ring.res(pipe(&mut fds, 0).forced_async()), Res(0), "on a worker");
    check_eq!(sys::write(fds[1], b"abc"), Res(3));
}

fn pipes_with_bad_arguments(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let mut fds = [-1; 2];
    let sqe = pipe(&mut fds, 0);
    check_eq!(ring.res(sqe.with(|s| s.fd = 1)), err(EINVAL), "fd");
    check_eq!(ring.res(sqe.with(|s| s.fd = -1)), err(EINVAL), "fd");
    check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EINVAL), "off");
    check_eq!(ring.res(sqe.with(|s| s.addr3 = 1)), err(EINVAL), "addr3");
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "unknown flag");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = libc::O_SYNC as u32)), err(EINVAL), "flag");
    let next = sys::dup(0);
    sys::close(next);
    for at in [0, 1, sys::forbidden_page(), sys::read_only_page()] {
        check_eq!(ring.res(sqe.with(|s| s.addr = at)), err(EFAULT), "bad pointer");
        check_eq!(sys::dup(0), next, "a descriptor was left behind");
        sys::close(next);
    }
    check_eq!(ring.res(sqe.with(|s| s.len = 1)), Res(0), "len is not looked at");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), Res(0), "buf_index is not looked at");
    ring.submit_all(&[sqe.with(|s| s.addr = 1).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(EFAULT)), (2, err(ECANCELED))], "a broken chain");
}

fn pipes_in_slots(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 6);
    let mut fds = [-1; 2];
    let next = sys::dup(0);
    check_eq!(ring.res(pipe_into(&mut fds, 0, 3)), Res(0));
    check_eq!(fds, [2, 3], "slots");
    check_eq!(ring.res(sqe::write(3, b"abc", 0).fixed()), Res(3));
    let mut buf = [0; 8];
    check_eq!(ring.res(sqe::read(2, &mut buf, 0).fixed()), Res(3));
    check_eq!(ring.res(pipe_into(&mut fds, 0, ALLOC)), Res(0));
    check_eq!(fds, [4, 5], "any slots, behind the last that was filled");
    check_eq!(ring.res(pipe_into(&mut fds, 0, ALLOC)), Res(0));
    check_eq!(fds, [0, 1], "any slots");
    check_eq!(ring.res(pipe_into(&mut fds, 0, ALLOC)), err(ENFILE), "full");
    check_eq!(ring.res(sqe::close_slot(1)), Res(0));
    check_eq!(ring.res(pipe_into(&mut fds, 0, ALLOC)), err(ENFILE), "room for one only");
    check!(!is_used(&mut ring, 1), "one end was left");
    check_eq!(ring.res(pipe_into(&mut fds, 0, 6)), err(EINVAL), "the second is beyond the end");
    check!(!is_used(&mut ring, 5), "one end was left");
    check_eq!(ring.res(pipe_into(&mut fds, 0, 7)), err(EINVAL), "beyond the end");
    check_eq!(ring.res(pipe_into(&mut fds, 0, 1)), Res(0), "in place of others");
    check_eq!(fds, [0, 1]);
    check_eq!(ring.res(sqe::write(1, b"abc", 0).fixed()), Res(3));
    check_eq!(sys::dup(0), next + 1, "an ordinary descriptor was used");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(pipe_into(&mut fds, 0, 1)), err(ENXIO), "no table");
    check_eq!(plain.res(pipe_into(&mut fds, 0, ALLOC)), err(ENFILE), "no table");
}

fn pipes_in_slots_with_bad_arguments(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 4);
    let mut fds = [-1; 2];
    for index in [1, 77, ALLOC] {
        let cloexec = ring.res(pipe_into(&mut fds, O_CLOEXEC, index));
        check_eq!(cloexec, err(EINVAL), "O_CLOEXEC into a slot");
    }
    for index in [1, ALLOC] {
        let bad = pipe_into(&mut fds, 0, index).with(|s| s.addr = 1);
        check_eq!(ring.res(bad), err(EFAULT), "bad pointer");
    }
    check!(!is_used(&mut ring, 0) && !is_used(&mut ring, 1), "chosen slots are empty again");
    check!(!is_used(&mut ring, 2) && !is_used(&mut ring, 3), "so are found ones");
}

fn installing(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 2);
    let (r, w) = sys::pipe();
    let mut fds = [r, w];
    check_eq!(ring.res(update(&mut fds, 0)), Res(2));
    let new = ring.res(install(1, 0)).0 as i32;
    check!(new >= 0, "installed = {new}");
    check_eq!(sys::fcntl(new, libc::F_GETFD, 0), Res(1), "close-on-exec is the default");
    check_eq!(sys::write(new, b"abc"), Res(3));
    check_eq!(sys::read(r, &mut [0; 8]), Res(3), "the same file");
    let open = ring.res(install(1, raw::IORING_FIXED_FD_NO_CLOEXEC)).0 as i32;
    check_eq!(open, new + 1, "the lowest free number");
    check_eq!(sys::fcntl(open, libc::F_GETFD, 0), Res(0));
    check_eq!(ring.res(sqe::close_slot(1)), Res(0));
    check_eq!(sys::write(new, b"abc"), Res(3), "it outlives its slot");
    check!(ring.res(install(0, 0).forced_async()).0 >= 0, "on a worker");
}

fn installing_what_cannot_be(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 2);
    let mut fds = [null()];
    check_eq!(ring.res(update(&mut fds, 0)), Res(1));
    check_eq!(ring.res(install(1, 0)), err(EBADF), "an empty slot");
    check_eq!(ring.res(install(2, 0)), err(EBADF), "beyond the table");
    let sqe = install(0, 0);
    let ordinary = sqe.with(|s| (s.flags, s.fd) = (0, fds[0]));
    check_eq!(ring.res(ordinary), err(EBADF), "an ordinary descriptor");
    check_eq!(ring.res(install(0, 2)), err(EINVAL), "unknown flag");
    let changes: [fn(&mut Sqe); 7] = [
        |s| s.off = 1,
        |s| s.addr = 1,
        |s| s.len = 1,
        |s| s.buf_index = 1,
        |s| s.file_index = 1,
        |s| s.addr3 = 1,
        |s| s.ioprio = 1,
    ];
    ring.check_refuses(sqe, &changes);
    let next = sys::dup(0);
    sys::close(next);
    let got = with_descriptor_limit(next as u64, || ring.res(sqe));
    check_eq!(got, err(EMFILE), "no descriptor is left");
    let personality = sqe.with(|s| s.personality = 77);
    check_eq!(ring.res(personality), err(EINVAL), "unknown personality");
}

fn updates_into_any_slot(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 3);
    let (a, b) = (null(), null());
    let mut fds = [a, b];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), Res(2));
    check_eq!(fds, [0, 1], "the slots are written back");
    check!(is_used(&mut ring, 0) && is_used(&mut ring, 1), "both are in use");
    let mut fds = [a, b];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), Res(1), "room for one only");
    check_eq!(fds, [2, b]);
    let mut fds = [a];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), err(ENFILE), "full");
    check_eq!(fds, [a]);
    check_eq!(ring.res(sqe::close_slot(1)), Res(0));
    let unused = sys::unused_fd();
    let mut fds = [unused];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), err(EBADF), "a bad descriptor");
    let mut fds = [-1];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), err(EBADF), "-1");
    let mut fds = [ring.fd];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), err(EBADF), "a ring");
    let mut fds = [a, unused];
    check_eq!(ring.res(update(&mut fds, ALLOC as u64)), Res(1), "a good one first");
    check_eq!(fds, [1, unused]);
    check_eq!(ring.res(sqe::close_slot(1)), Res(0));
    let sqe = update(&mut fds, ALLOC as u64);
    check_eq!(ring.res(sqe.with(|s| s.addr = 1)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(sqe.with(|s| s.len = 0)), err(EINVAL), "none");
    let page = sys::read_only_page();
    check_eq!(ring.res(sqe.with(|s| s.addr = page)), err(EFAULT), "cannot be written back");
    check!(!is_used(&mut ring, 1), "a slot was kept");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(update(&mut fds, ALLOC as u64)), err(ENXIO), "no table");
    let mut fds = [a];
    let high_bits = update(&mut fds, 1 << 32 | ALLOC as u64);
    check_eq!(ring.res(high_bits), Res(1), "the offset is 32 bits");
}

fn updates_with_bad_arguments(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 2);
    let mut fds = [null(), null()];
    let sqe = update(&mut fds, 0);
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "op_flags");
    check_eq!(ring.res(sqe.with(|s| s.file_index = 1)), err(EINVAL), "file_index");
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ring.res(sqe.fixed()), err(EINVAL), "IOSQE_FIXED_FILE");
    check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EINVAL), "over the end");
    check_eq!(ring.res(sqe.with(|s| s.off = 0xffff_fffe)), err(EOVERFLOW), "wraps around");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(sqe.with(|s| s.off = 0xffff_fffe)), err(EOVERFLOW), "before the table");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), Res(2), "buf_index is not looked at");
    check_eq!(ring.res(sqe.with(|s| s.fd = 5)), Res(2), "fd is not looked at");
    ring.submit_all(&[sqe.with(|s| s.off = 1).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(EINVAL)), (2, err(ECANCELED))], "a broken chain");
    let mut skip = [raw::IORING_REGISTER_FILES_SKIP, -1];
    check_eq!(ring.res(update(&mut skip, 0)), Res(2));
    check!(is_used(&mut ring, 0) && !is_used(&mut ring, 1), "one skipped, one emptied");
    check_eq!(ring.res(update(&mut fds, 0).forced_async()), Res(2), "on a worker");
}

family!["direct", modes;
    pipes,
    pipes_with_bad_arguments,
    pipes_in_slots,
    pipes_in_slots_with_bad_arguments,
    installing,
    installing_what_cannot_be,
    updates_into_any_slot,
    updates_with_bad_arguments,
];
