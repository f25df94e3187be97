//! NOP, READ, WRITE, READV, WRITEV, FSYNC.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, CURRENT, SqeExt, nop, nop_result, op};
use crate::sys;
use libc::{EAGAIN, EBADF, EFAULT, EINVAL, EISDIR, EOPNOTSUPP};
use soloring_abi::{Opcode, raw};
use std::time::Duration;

const TEXT: &[u8] = b"0123456789abcdef";

fn nop_injects_a_result(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for result in [0, 1, 77, i32::MAX, -1, -22, -4095, i32::MIN] {
        check_eq!(ring.res(nop_result(result)), Res(result as i64), "injected {result}");
    }
    check_eq!(ring.res(nop().with(|s| s.len = 55)), Res(0), "len without the flag");
    for bit in 6..32 {
        check_eq!(ring.res(nop().with(|s| s.op_flags = 1 << bit)), err(EINVAL), "flag bit {bit}");
    }
}

fn nop_on_a_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let file = |fd| nop().with(|s| (s.fd, s.op_flags) = (fd, raw::IORING_NOP_FILE));
    check_eq!(ring.res(file(0)), Res(0), "an open file");
    check_eq!(ring.res(file(-1)), err(EBADF), "-1");
    check_eq!(ring.res(file(sys::unused_fd())), err(EBADF), "an unused descriptor");
    let fixed = |fd| file(fd).with(|s| s.op_flags |= raw::IORING_NOP_FIXED_FILE);
    check_eq!(ring.res(fixed(0)), err(EBADF), "no file table");
    let buffer = nop().with(|s| s.op_flags = raw::IORING_NOP_FIXED_BUFFER);
    check_eq!(ring.res(buffer), err(EFAULT), "no buffer table");
    check_eq!(ring.res(nop().with(|s| s.op_flags = raw::IORING_NOP_TW)), Res(0), "task work");
}

fn nop_forced_async(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for i in 0..20 {
        let done = ring.run(nop().forced_async().ud(i));
        check_eq!((done.ud, done.res), (i, Res(0)));
    }
}

fn read_at_an_offset(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 4];
    for off in [0, 3, 12] {
        check_eq!(ring.res(sqe::read(fd, &mut buf, off)), Res(4), "offset {off}");
        check_eq!(&buf[..], &TEXT[off as usize..][..4]);
    }
    check_eq!(sys::seek(fd, 0, libc::SEEK_CUR), Res(0), "the file's own position");
}

fn read_short_and_at_the_end(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 64];
    for (off, want) in [(0, 16), (10, 6), (15, 1), (16, 0), (1000, 0), (1 << 40, 0)] {
        check_eq!(ring.res(sqe::read(fd, &mut buf, off)), Res(want), "offset {off}");
    }
}

fn offset_minus_one_is_the_files_own_position(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 5];
    check_eq!(ring.res(sqe::read(fd, &mut buf, CURRENT)), Res(5));
    check_eq!(&buf, b"01234");
    check_eq!(ring.res(sqe::read(fd, &mut buf, CURRENT)), Res(5));
    check_eq!(&buf, b"56789");
    check_eq!(ring.res(sqe::write(fd, b"XY", CURRENT)), Res(2));
    check_eq!(sys::seek(fd, 0, libc::SEEK_CUR), Res(12));
    check_eq!(ring.res(sqe::read(fd, &mut buf, 8)), Res(5));
    check_eq!(&buf, b"89XYc");
    check_eq!(sys::seek(fd, 0, libc::SEEK_CUR), Res(12), "unmoved by an offset");
}

fn other_negative_offsets(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 5];
    for off in [u64::MAX - 1, 1 << 63, (1 << 63) - 1] {
        check_eq!(ring.res(sqe::read(fd, &mut buf, off)), err(EINVAL), "read at {off:#x}");
    }
    check_eq!(ring.res(sqe::write(fd, &buf, u64::MAX - 1)), err(EINVAL), "write");
}

fn write_extends_and_leaves_holes(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(b"");
    check_eq!(ring.res(sqe::write(fd, b"abc", 0)), Res(3));
    check_eq!(ring.res(sqe::write(fd, b"z", 10)), Res(1));
    let mut buf = [1; 16];
    check_eq!(sys::pread(fd, &mut buf, 0), Res(11));
    check_eq!(&buf[..11], b"abc\0\0\0\0\0\0\0z");
}

fn append_ignores_the_offset(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let dir = sys::tempdir();
    let path = dir.path().join("log");
    let fd = sys::open(path.to_str().unwrap(), libc::O_CREAT | libc::O_RDWR | libc::O_APPEND);
    check_eq!(ring.res(sqe::write(fd, b"one", 0)), Res(3));
    check_eq!(ring.res(sqe::write(fd, b"two", 0)), Res(3));
    check_eq!(std::fs::read(&path).unwrap(), b"onetwo");
}

fn zero_length(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let (r, w) = sys::pipe();
    check_eq!(ring.res(sqe::read(fd, &mut [], 0)), Res(0), "read of a file");
    check_eq!(ring.res(sqe::write(fd, &[], 0)), Res(0), "write to a file");
    check_eq!(ring.res(sqe::write(w, &[], 0)), Res(0), "write to a pipe");
    check_eq!(ring.res(sqe::readv(fd, &[], 0)), Res(0), "readv of no vectors");
    check_eq!(ring.res(sqe::writev(fd, &[], 0)), Res(0), "writev of no vectors");
    sys::write(w, b"x");
    check_eq!(ring.res(sqe::read(r, &mut [], 0)), Res(0), "read of a pipe with data");
}

fn bad_buffers(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let (r, w) = sys::pipe();
    sys::write(w, b"pipe data");
    for (name, at) in [
        ("null", 0),
        ("1", 1),
        ("forbidden", sys::forbidden_page()),
        ("kernel", 0xffff_8000_0000_0000),
    ] {
        for (opcode, fd) in
            [(Opcode::Read, fd), (Opcode::Write, fd), (Opcode::Read, r), (Opcode::Write, w)]
        {
            let res = ring.res(op(opcode, fd, at, 4, 0));
            check_eq!(res, err(EFAULT), "{opcode:?} at {name}");
        }
        for opcode in [Opcode::Readv, Opcode::Writev] {
            check_eq!(
                ring.res(op(opcode, fd, at, 1, 0)),
                err(EFAULT),
                "{opcode:?} vector at {name}"
            );
            let iov = [libc::iovec { iov_base: at as *mut _, iov_len: 4 }];
            let at = iov.as_ptr() as u64;
            check_eq!(ring.res(op(opcode, fd, at, 1, 0)), err(EFAULT), "{opcode:?} base at {name}");
        }
    }
    check_eq!(
        ring.res(op(Opcode::Read, fd, sys::read_only_page(), 4, 0)),
        err(EFAULT),
        "read-only"
    );
    check_eq!(
        ring.res(op(Opcode::Write, fd, sys::read_only_page(), 4, 0)),
        Res(4),
        "write from it"
    );
}

fn a_buffer_that_ends_early(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let at = sys::map(8192, libc::PROT_READ | libc::PROT_WRITE) as u64;
    sys::unmap(at as usize + 4096, 4096);
    let fd = sys::file_with(TEXT);
    let res = ring.res(op(Opcode::Read, fd, at + 4096 - 4, 16, 0));
    check_eq!(res, Res(4), "what fits is read");
    let (_r, w) = sys::pipe();
    check_eq!(ring.res(op(Opcode::Write, w, at + 4096 - 4, 16, 0)), err(EFAULT), "write to a pipe");
}

fn read_only_and_write_only_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    check_eq!(ring.res(sqe::read(w, &mut buf, 0)), err(EBADF), "read of a write end");
    check_eq!(ring.res(sqe::write(r, &buf, 0)), err(EBADF), "write to a read end");
    let path = sys::open("/", libc::O_PATH);
    check_eq!(ring.res(sqe::read(path, &mut buf, 0)), err(EBADF), "O_PATH");
    let dir = sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY);
    check_eq!(ring.res(sqe::read(dir, &mut buf, 0)), err(EISDIR), "a directory");
}

fn pipes_take_any_offset(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    for off in [0, CURRENT, 77, 1 << 40] {
        check_eq!(ring.res(sqe::write(w, b"data", off)), Res(4), "write at {off:#x}");
        check_eq!(ring.res(sqe::read(r, &mut buf, off)), Res(4), "read at {off:#x}");
    }
    check_eq!(ring.res(sqe::read(r, &mut buf, 0).with(|s| s.off = 1 << 63)).is_err(), true);
}

fn a_blocking_pipe_read_waits_for_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(5)]);
    check!(ring.quiet(), "completed without data");
    sys::write(w, b"hello");
    let done = ring.wait();
    check_eq!((done.ud, done.res), (5, Res(5)));
    check_eq!(&buf[..5], b"hello");
}

fn a_blocking_pipe_read_sees_the_end(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(r, &mut buf, 0)]);
    check!(ring.quiet(), "completed without data");
    sys::close(w);
    check_eq!(ring.wait().res, Res(0));
}

fn a_blocking_pipe_write_waits_for_room(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    sys::fill(w);
    ring.submit_all(&[sqe::write(w, b"late", 0).ud(6)]);
    check!(ring.quiet(), "completed without room");
    let mut sink = vec![0; 1 << 20];
    check!(sys::read(r, &mut sink) > Res(0), "draining");
    check_eq!(ring.wait().res, Res(4));
}

fn writing_to_a_pipe_nobody_reads(abi: &Abi) {
    // No SIGPIPE ends the process: the request alone fails.
    let mut ring = Ring::new(abi, 4);
    sys::catch(libc::SIGPIPE);
    let (r, w) = sys::pipe();
    sys::close(r);
    check_eq!(ring.res(sqe::write(w, b"x", 0)), err(libc::EPIPE));
}

/// O_NONBLOCK makes no request fail: io_uring waits for readiness all the same.
fn nonblocking_files_are_waited_for_too(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe2(libc::O_NONBLOCK);
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1)]);
    check!(ring.quiet(), "read of an empty pipe completed");
    sys::write(w, b"abc");
    check_eq!(ring.wait().res, Res(3), "pipe read");
    sys::fill(w);
    ring.submit_all(&[sqe::write(w, b"data", 0).ud(2)]);
    check!(ring.quiet(), "write to a full pipe completed");
    sys::read(r, &mut vec![0; 1 << 20]);
    check_eq!(ring.wait().res, Res(4), "pipe write");
    let (a, b) = sys::socketpair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    ring.submit_all(&[sqe::read(a, &mut buf, 0).ud(3)]);
    check!(ring.quiet(), "read of a silent socket completed");
    sys::write(b, b"abcd");
    check_eq!(ring.wait().res, Res(4), "socket read");
    let event = sys::eventfd(0, libc::EFD_NONBLOCK);
    ring.submit_all(&[sqe::read(event, &mut buf, 0).ud(4)]);
    check!(ring.quiet(), "read of an eventfd at zero completed");
    sys::write(event, &1u64.to_ne_bytes());
    check_eq!(ring.wait().res, Res(8), "eventfd read");
}

fn eventfds_and_sockets_are_waited_for(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let event = sys::eventfd(0, 0);
    let mut count = [0; 8];
    ring.submit_all(&[sqe::read(event, &mut count, CURRENT).ud(1)]);
    check!(ring.quiet(), "completed without a count");
    sys::write(event, &7u64.to_ne_bytes());
    check_eq!(ring.wait().res, Res(8));
    check_eq!(u64::from_ne_bytes(count), 7);
    let (a, b) = sys::socketpair(libc::SOCK_STREAM);
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(a, &mut buf, 0).ud(2)]);
    check!(ring.quiet(), "completed without data");
    sys::write(b, b"abc");
    check_eq!(ring.wait().res, Res(3));
}

fn rw_flags_are_checked(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 4];
    for flags in [1 << 9, 1 << 20, 1 << 31, u32::MAX] {
        let read = sqe::read(fd, &mut buf, 0).with(|s| s.op_flags = flags);
        check_eq!(ring.res(read), err(EOPNOTSUPP), "READ with {flags:#x}");
        let write = sqe::write(fd, b"x", 0).with(|s| s.op_flags = flags);
        check_eq!(ring.res(write), err(EOPNOTSUPP), "WRITE with {flags:#x}");
    }
    let dsync = sqe::write(fd, b"sync", 0).with(|s| s.op_flags = libc::RWF_DSYNC as u32);
    check_eq!(ring.res(dsync), Res(4), "RWF_DSYNC");
    let append = sqe::write(fd, b"!", 0).with(|s| s.op_flags = libc::RWF_APPEND as u32);
    check_eq!(ring.res(append), Res(1), "RWF_APPEND");
    check_eq!(sys::seek(fd, 0, libc::SEEK_END), Res(17), "appended");
}

fn nowait_answers_eagain(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut buf = [0; 4];
    let nowait = libc::RWF_NOWAIT as u32;
    let read = sqe::read(r, &mut buf, 0).with(|s| s.op_flags = nowait);
    check_eq!(ring.res(read), err(EAGAIN), "read of an empty pipe");
    sys::fill(w);
    let write = sqe::write(w, b"x", 0).with(|s| s.op_flags = nowait);
    check_eq!(ring.res(write), err(EAGAIN), "write to a full pipe");
}

fn ioprio_is_checked(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 4];
    for (ioprio, want) in [
        (0, Res(4)),
        (2 << 13 | 4, Res(4)),
        (3 << 13, Res(4)),
        (4 << 13, err(EINVAL)),
        (7 << 13, err(EINVAL)),
    ] {
        let read = sqe::read(fd, &mut buf, 0).with(|s| s.ioprio = ioprio);
        check_eq!(ring.res(read), want, "ioprio {ioprio:#x}");
    }
}

fn vectors_scatter_and_gather(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let (mut a, mut b, mut c) = ([0; 3], [0; 0], [0; 20]);
    let iov = [sys::iovec(&mut a), sys::iovec(&mut b), sys::iovec(&mut c)];
    check_eq!(ring.res(sqe::readv(fd, &iov, 2)), Res(14));
    check_eq!(&a, b"234");
    check_eq!(&c[..11], b"56789abcdef");
    let (mut a, mut b) = (*b"AB", *b"CDE");
    let iov = [sys::iovec(&mut a), sys::iovec(&mut b)];
    check_eq!(ring.res(sqe::writev(fd, &iov, CURRENT)), Res(5));
    let mut buf = [0; 6];
    sys::pread(fd, &mut buf, 0);
    check_eq!(&buf, b"ABCDE5");
}

fn vector_counts_are_checked(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    let mut byte = [0; 1];
    let iov = vec![sys::iovec(&mut byte); 1100];
    for opcode in [Opcode::Readv, Opcode::Writev] {
        for (count, want) in [
            (1024, Res(if opcode == Opcode::Readv { 16 } else { 1024 })),
            (1025, err(EINVAL)),
            (u32::MAX, err(EINVAL)),
            (1 << 31, err(EINVAL)),
        ] {
            let sqe = op(opcode, fd, iov.as_ptr() as u64, count, 0);
            check_eq!(ring.res(sqe), want, "{opcode:?} of {count} vectors");
        }
    }
    let iov = [libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: usize::MAX }];
    check_eq!(ring.res(sqe::readv(fd, &iov, 0)), err(EINVAL), "a negative length");
}

fn a_vector_may_be_gone_after_submission(abi: &Abi) {
    // IORING_FEAT_SUBMIT_STABLE: the vector is the program's again when the call returns.
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    let mut iov = [sys::iovec(&mut buf)];
    ring.submit_all(&[sqe::readv(r, &iov, 0)]);
    check!(ring.quiet(), "completed without data");
    iov[0] = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    sys::write(w, b"stable");
    check_eq!(ring.wait().res, Res(6));
    check_eq!(&buf[..6], b"stable");
    check_eq!(iov[0].iov_len, 1);
}

fn forced_async_gives_the_same_results(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(TEXT);
    let mut buf = [0; 8];
    check_eq!(ring.res(sqe::read(fd, &mut buf, 0).forced_async()), Res(8), "read");
    check_eq!(&buf[..], &TEXT[..8]);
    check_eq!(ring.res(sqe::write(fd, b"ZZ", 1).forced_async()), Res(2), "write");
    check_eq!(ring.res(sqe::fsync(fd, 0).forced_async()), Res(0), "fsync");
    check_eq!(ring.res(sqe::read(-1, &mut buf, 0).forced_async()), err(EBADF), "bad descriptor");
    check_eq!(ring.res(op(Opcode::Read, fd, 1, 4, 0).forced_async()), err(EFAULT), "bad buffer");
    let (r, w) = sys::pipe();
    ring.submit_all(&[sqe::read(r, &mut buf, 0).forced_async()]);
    std::thread::sleep(Duration::from_millis(20));
    sys::write(w, b"async");
    check_eq!(ring.wait().res, Res(5), "pipe");
}

fn fsync_checks_its_flags(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = sys::file_with(TEXT);
    check_eq!(ring.res(sqe::fsync(fd, 0)), Res(0));
    check_eq!(ring.res(sqe::fsync(fd, raw::IORING_FSYNC_DATASYNC)), Res(0));
    for flags in [2, 4, 1 << 31, 3] {
        check_eq!(ring.res(sqe::fsync(fd, flags)), err(EINVAL), "flags {flags:#x}");
    }
    check_eq!(ring.res(sqe::fsync(sys::pipe().0, 0)), err(EINVAL), "a pipe");
    check_eq!(ring.res(sqe::fsync(0, 0).with(|s| s.fd = -1)), err(EBADF), "-1");
    let range = sqe::fsync(fd, 0).with(|s| (s.off, s.len) = (4, 8));
    check_eq!(ring.res(range), Res(0), "a range");
    let range = sqe::fsync(fd, 0).with(|s| s.off = u64::MAX);
    check_eq!(ring.res(range), err(EINVAL), "a negative offset");
    check_eq!(ring.res(sqe::fsync(sys::open("/", 0), 0)), Res(0), "a directory");
}

fn many_reads_in_flight(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    let pipes: Vec<_> = (0..64).map(|_| sys::pipe()).collect();
    let mut bufs = vec![[0u8; 8]; 64];
    let sqes: Vec<_> = pipes
        .iter()
        .zip(&mut bufs)
        .enumerate()
        .map(|(i, (p, buf))| sqe::read(p.0, buf, 0).ud(i as u64))
        .collect();
    ring.submit_all(&sqes);
    for (i, p) in pipes.iter().enumerate().rev() {
        sys::write(p.1, &(i as u64).to_ne_bytes());
    }
    let results = ring.results(64);
    check_eq!(results, (0..64).map(|i| (i, Res(8))).collect::<Vec<_>>());
    for (i, buf) in bufs.iter().enumerate() {
        check_eq!(u64::from_ne_bytes(*buf), i as u64);
    }
}

fn a_bad_length_comes_before_a_missing_vector(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let page = sys::guarded_page();
    page[4088..].copy_from_slice(&u64::MAX.to_ne_bytes());
    let at = page.as_ptr() as u64 + 4080;
    let zero = sys::open("/dev/zero", libc::O_RDWR);
    for opcode in [Opcode::Readv, Opcode::Writev] {
        check_eq!(ring.res(op(opcode, zero, at, 2, 0)), err(EINVAL), "the first is read first");
    }
    page[4088..].fill(0);
    check_eq!(ring.res(op(Opcode::Readv, zero, at, 2, 0)), err(EFAULT));
}

family!["rw", modes;
    a_bad_length_comes_before_a_missing_vector,
    nop_injects_a_result,
    nop_on_a_file,
    nop_forced_async,
    read_at_an_offset,
    read_short_and_at_the_end,
    offset_minus_one_is_the_files_own_position,
    other_negative_offsets,
    write_extends_and_leaves_holes,
    append_ignores_the_offset,
    zero_length,
    bad_buffers,
    a_buffer_that_ends_early,
    read_only_and_write_only_files,
    pipes_take_any_offset,
    a_blocking_pipe_read_waits_for_data,
    a_blocking_pipe_read_sees_the_end,
    a_blocking_pipe_write_waits_for_room,
    writing_to_a_pipe_nobody_reads,
    nonblocking_files_are_waited_for_too,
    eventfds_and_sockets_are_waited_for,
    rw_flags_are_checked,
    nowait_answers_eagain,
    ioprio_is_checked,
    vectors_scatter_and_gather,
    vector_counts_are_checked,
    a_vector_may_be_gone_after_submission,
    forced_async_gives_the_same_results,
    fsync_checks_its_flags,
    many_reads_in_flight,
];
