//! OPENAT, OPENAT2, CLOSE, STATX, with ordinary and with direct descriptors.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop, op};
use crate::sys;
use libc::{
    AT_FDCWD, E2BIG, EBADF, EEXIST, EFAULT, EINVAL, ELOOP, ENFILE, ENOENT, ENOTDIR, ENXIO, EXDEV,
    O_CREAT, O_RDONLY, O_RDWR,
};
use soloring_abi::Opcode;
use std::ffi::CString;

/// `file_index` that asks for any free slot.
const ALLOC: u32 = u32::MAX;

fn open_creates_reads_and_fails_like_the_call(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let path = sys::c(dir.path().join("file"));
    check_eq!(ring.res(sqe::openat(AT_FDCWD, &path, O_RDONLY, 0)), err(ENOENT));
    let made = ring.res(sqe::openat(AT_FDCWD, &path, O_CREAT | O_RDWR, 0o640));
    check!(made.0 >= 0, "create = {made}");
    check_eq!(sys::write(made.0 as i32, b"abc"), Res(3));
    let exclusive = sqe::openat(AT_FDCWD, &path, O_CREAT | libc::O_EXCL, 0o600);
    check_eq!(ring.res(exclusive), err(EEXIST));
    let again = ring.res(sqe::openat(AT_FDCWD, &path, O_RDONLY, 0));
    check_eq!(sys::read(again.0 as i32, &mut [0; 8]), Res(3));
    let directory = sqe::openat(AT_FDCWD, &path, libc::O_DIRECTORY, 0);
    check_eq!(ring.res(directory), err(ENOTDIR));
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join("file")).unwrap());
    check_eq!(mode & 0o777, 0o640 & !umask(), "permissions");
}

/// The process's umask, read without changing it.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("Umask:")).unwrap();
    u32::from_str_radix(line[6..].trim(), 8).unwrap()
}

fn open_relative_to_a_directory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    std::fs::write(dir.path().join("name"), b"x").unwrap();
    let dirfd = sys::open(dir.path().to_str().unwrap(), libc::O_DIRECTORY);
    let name = sys::c("name");
    check!(ring.res(sqe::openat(dirfd, &name, O_RDONLY, 0)).0 >= 0, "relative");
    check_eq!(ring.res(sqe::openat(sys::unused_fd(), &name, O_RDONLY, 0)), err(EBADF), "bad dirfd");
    check_eq!(ring.res(sqe::openat(-1, &name, O_RDONLY, 0)), err(EBADF), "-1 as dirfd");
    let (r, _) = sys::pipe();
    check_eq!(ring.res(sqe::openat(r, &name, O_RDONLY, 0)), err(ENOTDIR), "a pipe as dirfd");
    let absolute = sys::c(dir.path().join("name"));
    check!(ring.res(sqe::openat(-1, &absolute, O_RDONLY, 0)).0 >= 0, "absolute with bad dirfd");
}

fn open_bad_paths(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for at in [0, 1, sys::forbidden_page()] {
        check_eq!(ring.res(op(Opcode::Openat, AT_FDCWD, at, 0, 0)), err(EFAULT), "bad pointer");
    }
    check_eq!(ring.res(sqe::openat(AT_FDCWD, &sys::c(""), 0, 0)), err(ENOENT), "empty");
    let long = sys::c("x".repeat(5000));
    check_eq!(ring.res(sqe::openat(AT_FDCWD, &long, 0, 0)), err(libc::ENAMETOOLONG), "long");
}

fn the_path_may_be_gone_after_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    std::fs::write(dir.path().join("name"), b"x").unwrap();
    let path = sys::c(dir.path().join("name")).into_bytes_with_nul();
    let page = sys::buffer(4096);
    for _ in 0..20 {
        page[..path.len()].copy_from_slice(&path);
        let sqe = op(Opcode::Openat, AT_FDCWD, page.as_ptr() as u64, 0, 0).forced_async();
        ring.submit_all(&[sqe]);
        page[..path.len()].fill(b'!');
        let fd = ring.wait().res;
        check!(fd.0 >= 0, "open = {fd}");
        sys::close(fd.0 as i32);
    }
}

fn open_flags(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let null = sys::c("/dev/null");
    let fd = ring.res(sqe::openat(AT_FDCWD, &null, libc::O_CLOEXEC, 0)).0 as i32;
    check_eq!(sys::fcntl(fd, libc::F_GETFD, 0), Res(1), "O_CLOEXEC");
    let fd = ring.res(sqe::openat(AT_FDCWD, &null, 0, 0)).0 as i32;
    check_eq!(sys::fcntl(fd, libc::F_GETFD, 0), Res(0), "without O_CLOEXEC");
    // As openat(2): unknown bits are ignored.
    let res = ring.res(sqe::openat(AT_FDCWD, &null, 1 << 30, 0));
    check!(res.0 >= 0, "unknown flag bit = {res}");
    let path = ring.res(sqe::openat(AT_FDCWD, &null, libc::O_PATH, 0)).0 as i32;
    check_eq!(sys::read(path, &mut [0; 1]), err(EBADF), "O_PATH");
}

/// A named pipe, there as long as its folder.
fn fifo() -> (tempfile::TempDir, CString) {
    let dir = sys::tempdir();
    let path = dir.path().join("fifo");
    sys::mkfifo(&path);
    (dir, sys::c(&path))
}

/// The first attempt is made with O_NONBLOCK, which a FIFO takes as it does from open(2).
fn open_of_a_fifo_does_not_wait(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (_dir, name) = fifo();
    check_eq!(ring.res(sqe::openat(AT_FDCWD, &name, libc::O_WRONLY, 0)), err(ENXIO), "write end");
    let read_end = ring.res(sqe::openat(AT_FDCWD, &name, O_RDONLY, 0)).0 as i32;
    check!(read_end >= 0, "read end = {read_end}");
    let status = sys::fcntl(read_end, libc::F_GETFL, 0).0 as i32;
    check_eq!(status & libc::O_NONBLOCK, 0, "the file is not left non-blocking");
}

fn open_of_a_fifo_on_a_worker_waits(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (_dir, name) = fifo();
    ring.submit_all(&[sqe::openat(AT_FDCWD, &name, O_RDONLY, 0).forced_async().ud(1)]);
    check!(ring.quiet(), "opened without a writer");
    check_eq!(ring.res(nop().ud(3)), Res(0), "the ring goes on meanwhile");
    let write_end = sys::open(name.to_str().unwrap(), libc::O_WRONLY);
    let read_end = ring.wait().res;
    check!(read_end.0 >= 0, "open = {read_end}");
    sys::write(write_end, b"x");
    check_eq!(sys::read(read_end.0 as i32, &mut [0; 4]), Res(1));
}

fn an_open_that_waits_can_be_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (_dir, name) = fifo();
    ring.submit_all(&[sqe::openat(AT_FDCWD, &name, O_RDONLY, 0).forced_async().ud(1)]);
    check!(ring.quiet(), "opened without a writer");
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
    let got = ring.results(2);
    // The kernel lets its internal ERESTARTSYS (512) out here; a ring in user space sees EINTR.
    let wants = [(1, Res(-512)), (1, err(libc::EINTR)), (1, err(libc::ECANCELED))];
    check!(wants.contains(&got[0]), "target: {:?}", got[0]);
    check_in!(got[1], [(2, err(libc::EALREADY)), (2, Res(0))], "cancellation");
}

fn open_bad_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let null = sys::c("/dev/null");
    let open = sqe::openat(AT_FDCWD, &null, 0, 0);
    check_eq!(ring.res(open.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(open.fixed()), err(EBADF), "IOSQE_FIXED_FILE");
}

fn openat2_like_openat(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    let path = sys::c(dir.path().join("file"));
    let how = sys::open_how((O_CREAT | O_RDWR) as u64, 0o600, 0);
    let fd = ring.res(sqe::openat2(AT_FDCWD, &path, &how));
    check!(fd.0 >= 0, "create = {fd}");
    check_eq!(sys::write(fd.0 as i32, b"abc"), Res(3));
    check_eq!(ring.res(sqe::openat2(-1, &sys::c("x"), &how)), err(EBADF));
}

fn openat2_is_strict(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let null = sys::c("/dev/null");
    let beneath = libc::RESOLVE_BENEATH;
    for (what, how, want) in [
        ("unknown flags", sys::open_how(1 << 40, 0, 0), EINVAL),
        ("unknown low flag", sys::open_how(1 << 30, 0, 0), EINVAL),
        ("mode without O_CREAT", sys::open_how(0, 0o600, 0), EINVAL),
        ("bad mode", sys::open_how(O_CREAT as u64, 0o100_000, 0), EINVAL),
        ("unknown resolve", sys::open_how(0, 0, 1 << 20), EINVAL),
        ("beneath", sys::open_how(0, 0, beneath), EXDEV),
        ("beneath and in root", sys::open_how(0, 0, beneath | libc::RESOLVE_IN_ROOT), EINVAL),
    ] {
        check_eq!(ring.res(sqe::openat2(AT_FDCWD, &null, &how)), err(want), "{what}");
    }
    let dir = sys::tempdir();
    std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
    let link = sys::c(dir.path().join("link"));
    let how = sys::open_how(0, 0, libc::RESOLVE_NO_SYMLINKS);
    check_eq!(ring.res(sqe::openat2(AT_FDCWD, &link, &how)), err(ELOOP), "no symlinks");
}

fn openat2_structure_size(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let null = sys::c("/dev/null");
    let how = sys::open_how(0, 0, 0);
    let mut open = sqe::openat2(AT_FDCWD, &null, &how);
    for (len, want) in [(0, EINVAL), (8, EINVAL), (23, EINVAL), (5000, E2BIG)] {
        open.len = len;
        check_eq!(ring.res(open), err(want), "size {len}");
    }
    let mut bigger = [0u64; 8];
    open.off = bigger.as_ptr() as u64;
    open.len = 64;
    check!(ring.res(open).0 >= 0, "a longer structure with zeroes");
    bigger[5] = 1;
    open.off = bigger.as_ptr() as u64;
    check_eq!(ring.res(open), err(E2BIG), "a longer structure with something else");
    for len in [24, 64, 4096] {
        open.len = len;
        for at in [0, 1, sys::forbidden_page(), u64::MAX, u64::MAX - 23, u64::MAX - 63] {
            open.off = at;
            check_eq!(ring.res(open), err(EFAULT), "bad pointer {at:#x}, size {len}");
        }
    }
    let page = sys::guarded_page();
    (open.off, open.len) = (page.as_ptr() as u64 + 4096 - 64, 128);
    check_eq!(ring.res(open), err(EFAULT), "its end cannot be read");
    page[4096 - 1] = 1;
    check_eq!(ring.res(open), err(E2BIG), "what is not zero comes before what cannot be read");
}

fn open_into_a_slot(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 4);
    let before = sys::dup(0);
    let null = sys::c("/dev/null");
    let slot = |n: u32| sqe::openat(AT_FDCWD, &null, O_RDWR, 0).with(|s| s.file_index = n + 1);
    check_eq!(ring.res(slot(2)), Res(0));
    check_eq!(sys::dup(0), before + 1, "an ordinary descriptor was used");
    check_eq!(ring.res(sqe::write(2, b"abc", 0).fixed()), Res(3), "writing through the slot");
    check_eq!(ring.res(slot(2)), Res(0), "a slot in use is replaced");
    check_eq!(ring.res(slot(4)), err(EINVAL), "beyond the table");
    check_eq!(ring.res(slot(1 << 30)), err(EINVAL), "far beyond the table");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(slot(0)), err(ENXIO), "no table");
    let cloexec = sqe::openat(AT_FDCWD, &null, libc::O_CLOEXEC, 0).with(|s| s.file_index = 1);
    check_eq!(ring.res(cloexec), err(EINVAL), "O_CLOEXEC into a slot");
    let missing = sys::c("/nowhere/at/all");
    let open = sqe::openat(AT_FDCWD, &missing, 0, 0).with(|s| s.file_index = 3);
    check_eq!(ring.res(open), err(ENOENT), "a missing file");
    check_eq!(ring.res(sqe::write(2, b"abc", 0).fixed()), Res(3), "the slot is as it was");
}

fn open_into_any_slot(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 3);
    let null = sys::c("/dev/null");
    let any = sqe::openat(AT_FDCWD, &null, O_RDWR, 0).with(|s| s.file_index = ALLOC);
    for i in 0..3 {
        check_eq!(ring.res(any), Res(i));
    }
    check_eq!(ring.res(any), err(ENFILE), "a full table");
    check_eq!(ring.res(sqe::close_slot(1)), Res(0));
    check_eq!(ring.res(any), Res(1), "the slot that was freed");
    let how = sys::open_how(O_RDWR as u64, 0, 0);
    check_eq!(ring.res(sqe::close_slot(0)), Res(0));
    let any2 = sqe::openat2(AT_FDCWD, &null, &how).with(|s| s.file_index = ALLOC);
    check_eq!(ring.res(any2), Res(0), "OPENAT2");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(any), err(ENFILE), "no table");
}

fn close_of_a_descriptor(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    check_eq!(ring.res(sqe::close(r)), Res(0));
    check!(!sys::is_open(r), "still open");
    check_eq!(ring.res(sqe::close(r)), err(EBADF), "twice");
    check_eq!(ring.res(sqe::close(-1)), err(EBADF), "-1");
    check_eq!(ring.res(sqe::close(sys::unused_fd())), err(EBADF), "unused");
    check_eq!(ring.res(sqe::close(w).fixed()), err(EBADF), "IOSQE_FIXED_FILE");
    check!(sys::is_open(w), "closed all the same");
    check_eq!(ring.res(sqe::close(w).forced_async()), Res(0), "on a worker");
    check!(!sys::is_open(w), "still open");
}

fn close_of_a_ring_is_refused(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let other = Ring::build(abi, 4, crate::ring::params(0));
    check_eq!(ring.res(sqe::close(ring.fd)), err(EBADF), "its own");
    check_eq!(ring.res(sqe::close(other.fd)), err(EBADF), "another one");
    check_eq!(other.enter(0, 0, 0), Res(0), "still open");
}

fn close_of_a_slot(abi: &Abi) {
    let mut ring = Ring::with_slots(abi, 2);
    check_eq!(ring.res(sqe::close_slot(0)), err(EBADF), "an empty slot");
    check_eq!(ring.res(sqe::close_slot(2)), err(EINVAL), "beyond the table");
    check_eq!(ring.res(sqe::close_slot(u32::MAX - 1)), err(EINVAL), "far beyond the table");
    let null = sys::c("/dev/null");
    let open = sqe::openat(AT_FDCWD, &null, O_RDWR, 0).with(|s| s.file_index = 1);
    check_eq!(ring.res(open), Res(0));
    let both = sqe::close_slot(0).with(|s| s.fd = 5);
    check_eq!(ring.res(both), err(EINVAL), "a slot and a descriptor");
    check_eq!(ring.res(sqe::close_slot(0)), Res(0));
    check_eq!(ring.res(sqe::write(0, b"x", 0).fixed()), err(EBADF), "after the close");
    let mut plain = Ring::new(abi, 8);
    check_eq!(plain.res(sqe::close_slot(0)), err(ENXIO), "no table");
}

fn statx_of_a_path(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    std::fs::write(dir.path().join("file"), vec![7; 1234]).unwrap();
    let path = sys::c(dir.path().join("file"));
    let mut out = sys::zeroed_statx();
    check_eq!(ring.res(sqe::statx(AT_FDCWD, &path, 0, libc::STATX_ALL, &mut out)), Res(0));
    check_eq!(out.stx_size, 1234);
    check_eq!(out.stx_mode as u32 & libc::S_IFMT, libc::S_IFREG);
    let missing = sys::c("/nowhere/at/all");
    check_eq!(ring.res(sqe::statx(AT_FDCWD, &missing, 0, 0, &mut out)), err(ENOENT));
}

fn statx_of_a_descriptor(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(b"12345");
    let mut out = sys::zeroed_statx();
    let empty = sys::c("");
    let stat = sqe::statx(fd, &empty, libc::AT_EMPTY_PATH, libc::STATX_SIZE, &mut out);
    check_eq!(ring.res(stat), Res(0));
    check_eq!(out.stx_size, 5);
    check_eq!(out.stx_ino, sys::inode(fd));
    check_eq!(ring.res(sqe::statx(fd, &empty, 0, 0, &mut out)), err(ENOENT), "no AT_EMPTY_PATH");
    let bad = sqe::statx(sys::unused_fd(), &empty, libc::AT_EMPTY_PATH, 0, &mut out);
    check_eq!(ring.res(bad), err(EBADF));
}

fn statx_bad_arguments(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let root = sys::c("/");
    let mut out = sys::zeroed_statx();
    let stat = sqe::statx(AT_FDCWD, &root, 0, 0, &mut out);
    check_eq!(ring.res(stat.with(|s| s.op_flags = 1 << 30)), err(EINVAL), "unknown flags");
    check_eq!(ring.res(stat.with(|s| s.len = 1 << 31)), err(EINVAL), "reserved mask bit");
    check_eq!(ring.res(stat.with(|s| s.addr = 1)), err(EFAULT), "bad path");
    check_eq!(ring.res(stat.with(|s| s.off = 1)), err(EFAULT), "bad buffer");
    check_eq!(ring.res(stat.with(|s| s.off = sys::read_only_page())), err(EFAULT), "read-only");
    check_eq!(ring.res(stat.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(stat.with(|s| s.file_index = 1)), err(EINVAL), "file_index");
    check_eq!(ring.res(stat.fixed()), err(EBADF), "IOSQE_FIXED_FILE");
}

fn statx_does_not_follow_when_told_so(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let dir = sys::tempdir();
    std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
    let link = sys::c(dir.path().join("link"));
    let mut out = sys::zeroed_statx();
    let no_follow = libc::AT_SYMLINK_NOFOLLOW;
    let stat = sqe::statx(AT_FDCWD, &link, no_follow, libc::STATX_MODE, &mut out);
    check_eq!(ring.res(stat), Res(0));
    check_eq!(out.stx_mode as u32 & libc::S_IFMT, libc::S_IFLNK);
    let stat = sqe::statx(AT_FDCWD, &link, 0, libc::STATX_MODE, &mut out);
    check_eq!(ring.res(stat), Res(0));
    check_eq!(out.stx_mode as u32 & libc::S_IFMT, libc::S_IFDIR);
}

family!["files", modes;
    open_creates_reads_and_fails_like_the_call,
    open_relative_to_a_directory,
    open_bad_paths,
    the_path_may_be_gone_after_submission,
    open_flags,
    open_of_a_fifo_does_not_wait,
    open_of_a_fifo_on_a_worker_waits,
    an_open_that_waits_can_be_cancelled,
    open_bad_fields,
    openat2_like_openat,
    openat2_is_strict,
    openat2_structure_size,
    open_into_a_slot,
    open_into_any_slot,
    close_of_a_descriptor,
    close_of_a_ring_is_refused,
    close_of_a_slot,
    statx_of_a_path,
    statx_of_a_descriptor,
    statx_bad_arguments,
    statx_does_not_follow_when_told_so,
];
