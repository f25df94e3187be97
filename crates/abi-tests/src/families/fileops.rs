//! FALLOCATE, FTRUNCATE, SYNC_FILE_RANGE, FADVISE, MADVISE.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, nop, op};
use crate::sys;
use libc::{EBADF, EFBIG, EINVAL, ENODEV, ENOMEM, EOPNOTSUPP, ESPIPE};
use soloring_abi::{Opcode, Sqe};

fn fallocate(fd: i32, mode: i32, off: u64, len: u64) -> Sqe {
    op(Opcode::Fallocate, fd, len, mode as u32, off)
}

fn ftruncate(fd: i32, len: u64) -> Sqe {
    op(Opcode::Ftruncate, fd, 0, 0, len)
}

fn sync_range(fd: i32, off: u64, len: u32, flags: u32) -> Sqe {
    op(Opcode::SyncFileRange, fd, 0, len, off).with(|s| s.op_flags = flags)
}

fn fadvise(fd: i32, off: u64, len: u32, advice: i32) -> Sqe {
    op(Opcode::Fadvise, fd, 0, len, off).with(|s| s.op_flags = advice as u32)
}

fn madvise(addr: u64, len: u32, advice: i32) -> Sqe {
    op(Opcode::Madvise, -1, addr, len, 0).with(|s| s.op_flags = advice as u32)
}

fn size(fd: i32) -> i64 {
    let at = sys::seek(fd, 0, libc::SEEK_CUR).0;
    let end = sys::seek(fd, 0, libc::SEEK_END).0;
    sys::seek(fd, at, libc::SEEK_SET);
    end
}

fn check_each(ring: &mut Ring<'_>, sqe: Sqe, changes: &[fn(&mut Sqe)]) {
    ring.check_refuses(sqe, changes);
    ring.check_refuses(sqe, &[|s| s.ioprio = 1]);
}

fn allocate(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(b"abc");
    check_eq!(ring.res(fallocate(fd, 0, 0, 10000)), Res(0));
    check_eq!(size(fd), 10000);
    check_eq!(ring.res(fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, 10000, 10000)), Res(0));
    check_eq!(size(fd), 10000);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let punched = ring.res(fallocate(fd, punch, 0, 3));
    check_in!(punched, [Res(0), err(EOPNOTSUPP)], "punching a hole");
    if punched == Res(0) {
        let mut head = [1u8; 4];
        sys::pread(fd, &mut head, 0);
        check_eq!(head, [0; 4]);
    }
    check_eq!(ring.res(fallocate(fd, 0, 0, 0)), err(EINVAL), "no length");
    check_eq!(ring.res(fallocate(fd, 0, u64::MAX, 1)), err(EINVAL), "negative offset");
    check_eq!(ring.res(fallocate(fd, 0, i64::MAX as u64, 2)), err(EFBIG), "over the end");
    check_eq!(ring.res(fallocate(fd, 1 << 30, 0, 10)), err(EOPNOTSUPP), "unknown mode");
    let (r, w) = sys::pipe();
    check_eq!(ring.res(fallocate(w, 0, 0, 10)), err(ESPIPE), "a pipe");
    check_eq!(ring.res(fallocate(r, 0, 0, 10)), err(EBADF), "not open for writing");
    check_eq!(ring.res(fallocate(sys::open("/dev/null", libc::O_RDWR), 0, 0, 1)), err(ENODEV));
    check_eq!(ring.res(fallocate(sys::unused_fd(), 0, 0, 10)), err(EBADF));
    check_eq!(ring.res(fallocate(0, 0, 0, 10).fixed()), err(EBADF), "no table");
    let sqe = fallocate(fd, 0, 0, 10);
    check_each(&mut ring, sqe, &[|s| s.buf_index = 1, |s| s.op_flags = 1, |s| s.file_index = 1]);
}

fn truncate(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(b"abcdef");
    check_eq!(ring.res(ftruncate(fd, 3)), Res(0));
    check_eq!(size(fd), 3);
    check_eq!(ring.res(ftruncate(fd, 100).forced_async()), Res(0));
    check_eq!(size(fd), 100);
    check_eq!(ring.res(ftruncate(fd, u64::MAX)), err(EINVAL), "negative");
    let read_only = sys::open("/proc/self/exe", libc::O_RDONLY);
    check_eq!(ring.res(ftruncate(read_only, 0)), err(EINVAL), "read-only");
    let (_, w) = sys::pipe();
    check_eq!(ring.res(ftruncate(w, 0)), err(EINVAL), "a pipe");
    check_eq!(ring.res(ftruncate(-1, 0)), err(EBADF));
    let sqe = ftruncate(fd, 0);
    check_each(
        &mut ring,
        sqe,
        &[
            |s| s.op_flags = 1,
            |s| s.addr = 1,
            |s| s.len = 1,
            |s| s.buf_index = 1,
            |s| s.file_index = 1,
            |s| s.addr3 = 1,
        ],
    );
    check_eq!(size(fd), 100, "none of them changed it");
}

fn sync_a_range(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(&[7; 8192]);
    let write = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    check_eq!(ring.res(sync_range(fd, 0, 4096, write)), Res(0));
    check_eq!(ring.res(sync_range(fd, 0, 0, 0)), Res(0), "to the end, nothing");
    check_eq!(ring.res(sync_range(fd, 0, 0, 8)), err(EINVAL), "unknown flag");
    check_eq!(ring.res(sync_range(fd, u64::MAX, 1, write)), err(EINVAL), "negative offset");
    let (r, _w) = sys::pipe();
    check_eq!(ring.res(sync_range(r, 0, 0, write)), err(ESPIPE), "a pipe");
    check_eq!(ring.res(sync_range(sys::unused_fd(), 0, 0, write)), err(EBADF));
    let sqe = sync_range(fd, 0, 0, 0);
    check_each(&mut ring, sqe, &[|s| s.addr = 1, |s| s.buf_index = 1, |s| s.file_index = 1]);
}

fn advise_on_a_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(&[7; 8192]);
    for advice in 0..=5 {
        check_eq!(ring.res(fadvise(fd, 0, 4096, advice)), Res(0), "advice {advice}");
        let long = fadvise(fd, 0, 0, advice).with(|s| s.addr = 4096);
        check_eq!(ring.res(long), Res(0), "64-bit length, advice {advice}");
        check_eq!(ring.res(fadvise(fd, 0, 4096, advice).forced_async()), Res(0));
    }
    check_eq!(ring.res(fadvise(fd, 0, 4096, 77)), err(EINVAL), "unknown advice");
    let negative = fadvise(fd, 0, 0, 0).with(|s| s.addr = u64::MAX);
    check_eq!(ring.res(negative), err(EINVAL), "negative length");
    let (r, _w) = sys::pipe();
    check_eq!(ring.res(fadvise(r, 0, 0, 0)), err(ESPIPE), "a pipe");
    check_eq!(ring.res(fadvise(r, 0, 0, 4)), err(ESPIPE), "a pipe");
    check_eq!(ring.res(fadvise(-1, 0, 0, 0)), err(EBADF));
    let sqe = fadvise(fd, 0, 0, 0);
    check_each(&mut ring, sqe, &[|s| s.buf_index = 1, |s| s.file_index = 1]);
}

fn advise_on_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let pages = sys::buffer(3 * 4096);
    let at = pages.as_ptr() as u64;
    pages.fill(7);
    check_eq!(ring.res(madvise(at + 4096, 4096, libc::MADV_DONTNEED)), Res(0));
    check_eq!((pages[0], pages[4096], pages[8192]), (7, 0, 7), "one page is dropped");
    let long = madvise(at, 0, libc::MADV_DONTNEED).with(|s| s.off = 3 * 4096);
    check_eq!(ring.res(long), Res(0), "64-bit length");
    check_eq!((pages[0], pages[8192]), (0, 0));
    check_eq!(ring.res(madvise(at + 1, 4096, libc::MADV_DONTNEED)), err(EINVAL), "not a page");
    check_eq!(ring.res(madvise(at, 4096, 777)), err(EINVAL), "unknown advice");
    check_eq!(ring.res(madvise(at, 0, libc::MADV_DONTNEED)), Res(0), "nothing");
    let hole = sys::forbidden_page();
    sys::unmap(hole as usize, 4096);
    check_eq!(ring.res(madvise(hole, 4096, libc::MADV_NORMAL)), err(ENOMEM), "not mapped");
    let sqe = madvise(at, 4096, libc::MADV_NORMAL);
    check_each(&mut ring, sqe, &[|s| s.buf_index = 1, |s| s.file_index = 1]);
    check_eq!(ring.res(sqe.fixed()), Res(0), "there is no file");
}

fn through_registered_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(b"abc");
    let files = soloring_abi::raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [fd].as_ptr(), 1), Res(0));
    check_eq!(ring.res(fallocate(0, 0, 0, 10).fixed()), Res(0));
    check_eq!(size(fd), 10);
    check_eq!(ring.res(ftruncate(0, 5).fixed()), Res(0));
    check_eq!(size(fd), 5);
    check_eq!(ring.res(fadvise(0, 0, 0, libc::POSIX_FADV_DONTNEED).fixed()), Res(0));
    check_eq!(ring.res(sync_range(0, 0, 0, 0).fixed()), Res(0));
    check_eq!(ring.res(ftruncate(1, 5).fixed()), err(EBADF));
}

/// As the kernel has it: only FADVISE counts a refusal as a failure of its chain.
fn which_refusals_break_a_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    for (sqe, errno, breaks) in [
        (fallocate(w, 0, 0, 10), ESPIPE, false),
        (ftruncate(w, 0), EINVAL, false),
        (sync_range(r, 0, 0, 2), ESPIPE, false),
        (fadvise(r, 0, 0, 0), ESPIPE, true),
        (fadvise(r, 0, 0, 4), ESPIPE, true),
        (madvise(1, 4096, libc::MADV_DONTNEED), EINVAL, false),
        (ftruncate(-1, 0), EBADF, true),
    ] {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        ring.submit_all(&[sqe.ud(1).link(), nop().ud(2)]);
        let next = if breaks { err(libc::ECANCELED) } else { Res(0) };
        check_eq!(ring.results(2), [(1, err(errno)), (2, next)], "{what}");
    }
}

family!["fileops", modes;
    allocate,
    truncate,
    sync_a_range,
    advise_on_a_file,
    advise_on_memory,
    through_registered_files,
    which_refusals_break_a_chain,
];
