//! SPLICE and TEE.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, CURRENT, SqeExt, nop, op};
use crate::sys;
use libc::{EAGAIN, EBADF, ECANCELED, EINVAL, ESPIPE, SPLICE_F_NONBLOCK};
use soloring_abi::{Opcode, Sqe, raw};
use std::time::Duration;

/// `fd_in` is a slot of the registered file table.
const IN_FIXED: u32 = raw::SPLICE_F_FD_IN_FIXED;

fn splice(input: i32, off_in: u64, output: i32, off_out: u64, len: u32, flags: u32) -> Sqe {
    op(Opcode::Splice, output, off_in, len, off_out).with(|s| {
        s.file_index = input as u32;
        s.op_flags = flags;
    })
}

fn tee(input: i32, output: i32, len: u32, flags: u32) -> Sqe {
    splice(input, 0, output, 0, len, flags).with(|s| s.opcode = Opcode::Tee as u8)
}

fn read_all(fd: i32, n: usize) -> Vec<u8> {
    let mut buf = vec![0; n];
    let got = sys::read(fd, &mut buf).0.max(0) as usize;
    buf.truncate(got);
    buf
}

fn files_and_pipes(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let file = sys::file_with(b"0123456789");
    let out = sys::file_with(b"..........");
    let (r, w) = sys::pipe();
    check_eq!(ring.res(splice(file, 2, w, CURRENT, 4, 0)), Res(4));
    check_eq!(read_all(r, 20), b"2345");
    check_eq!(sys::seek(file, 0, libc::SEEK_CUR), Res(0), "the position stays");
    check_eq!(ring.res(splice(file, CURRENT, w, CURRENT, 4, 0)), Res(4));
    check_eq!(sys::seek(file, 0, libc::SEEK_CUR), Res(4), "the position moves");
    check_eq!(ring.res(splice(r, CURRENT, out, 3, 10, 0)), Res(4), "as much as there is");
    let mut all = [0; 10];
    sys::pread(out, &mut all, 0);
    check_eq!(&all, b"...0123...");
    check_eq!(ring.res(splice(file, 100, w, CURRENT, 4, 0)), Res(0), "behind the end");
    check_eq!(ring.res(splice(file, 0, w, CURRENT, 0, 0)), Res(0), "nothing");
}

fn pipe_to_pipe(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let ((r1, w1), (r2, w2)) = (sys::pipe(), sys::pipe());
    sys::write(w1, b"abcdef");
    check_eq!(ring.res(tee(r1, w2, 4, 0)), Res(4));
    check_eq!(read_all(r2, 20), b"abcd");
    check_eq!(ring.res(splice(r1, CURRENT, w2, CURRENT, 3, 0)), Res(3));
    check_eq!(read_all(r2, 20), b"abc");
    check_eq!(read_all(r1, 20), b"def");
    check_eq!(ring.res(tee(r1, w2, 0, 0)), Res(0), "nothing");
    check_eq!(ring.res(tee(r1, w1, 4, 0)), err(EINVAL), "onto itself");
    sys::close(w1);
    check_eq!(ring.res(tee(r1, w2, 4, 0)), Res(0), "no writer is left");
    check_eq!(ring.res(splice(r1, CURRENT, w2, CURRENT, 4, 0)), Res(0), "no writer is left");
}

fn offsets_where_there_are_none(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let file = sys::file_with(b"0123456789");
    let ((r1, w1), (_r2, w2)) = (sys::pipe(), sys::pipe());
    sys::write(w1, b"abc");
    check_eq!(ring.res(splice(r1, 0, w2, CURRENT, 3, 0)), err(ESPIPE), "a pipe as input");
    check_eq!(ring.res(splice(r1, CURRENT, w2, 0, 3, 0)), err(ESPIPE), "a pipe as output");
    check_eq!(ring.res(splice(file, 0, w2, 0, 3, 0)), err(ESPIPE), "file to pipe");
    check_eq!(ring.res(splice(r1, 0, file, 0, 3, 0)), err(ESPIPE), "pipe to file");
    let negative = 1u64 << 63;
    check_eq!(ring.res(splice(file, negative, w2, CURRENT, 3, 0)), err(EINVAL), "negative");
    check_eq!(ring.res(tee(r1, w2, 3, 0).with(|s| s.addr = 1)), err(EINVAL), "tee");
    check_eq!(ring.res(tee(r1, w2, 3, 0).with(|s| s.off = 1)), err(EINVAL), "tee");
    check_eq!(ring.res(tee(r1, w2, 3, 0).with(|s| s.addr = CURRENT)), err(EINVAL), "tee");
}

fn wrong_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let file = sys::file_with(b"0123456789");
    let other = sys::file_with(b"x");
    let (r, w) = sys::pipe();
    let at = |input, output, len| splice(input, CURRENT, output, CURRENT, len, 0);
    check_eq!(ring.res(at(file, other, 3)), err(EINVAL), "no pipe");
    check_eq!(ring.res(tee(file, w, 3, 0)), err(EINVAL), "tee of a file");
    check_eq!(ring.res(tee(r, file, 3, 0)), err(EINVAL), "tee to a file");
    check_eq!(ring.res(at(w, file, 3)), err(EBADF), "the write end as input");
    check_eq!(ring.res(splice(w, 0, file, 0, 3, 0)), err(EBADF), "and a position in it");
    check_eq!(ring.res(splice(file, 0, r, 0, 3, 0)), err(EBADF), "a position in the read end");
    check_eq!(ring.res(at(file, r, 3)), err(EBADF), "the read end as output");
    for bad in [-1, sys::unused_fd()] {
        check_eq!(ring.res(at(bad, w, 3)), err(EBADF), "input");
        check_eq!(ring.res(at(file, bad, 3)), err(EBADF), "output");
        check_eq!(ring.res(tee(bad, w, 3, 0)), err(EBADF), "tee's input");
        check_eq!(ring.res(at(bad, w, 0)), err(EBADF), "input, nothing to move");
        check_eq!(ring.res(at(file, bad, 0)), err(EBADF), "output, nothing to move");
    }
    let path = sys::open("/", libc::O_PATH);
    check_eq!(ring.res(at(path, w, 3)), err(EBADF), "O_PATH");
    check_eq!(ring.res(at(ring.fd, w, 3)), err(EINVAL), "a ring");
    let append = sys::open("/proc/self/comm", libc::O_WRONLY | libc::O_APPEND);
    sys::write(w, b"x");
    check_eq!(ring.res(at(r, append, 1)), err(EINVAL), "O_APPEND");
}

fn bad_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let file = sys::file_with(b"0123456789");
    let (r, w) = sys::pipe();
    sys::write(w, b"abc");
    check_eq!(ring.res(splice(file, 0, w, CURRENT, 3, 0x10)), err(EINVAL), "unknown flag");
    check_eq!(ring.res(tee(r, w, 3, 0x10)), err(EINVAL), "unknown flag");
    check_eq!(ring.res(splice(file, 0, w, CURRENT, 3, 0xf)), Res(3), "all of splice(2)'s");
    let sqe = splice(file, 0, w, CURRENT, 3, 0);
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), Res(3), "buf_index is not looked at");
    check_eq!(ring.res(sqe.with(|s| s.addr3 = 1)), Res(3), "addr3 is not looked at");
}

fn registered_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let file = sys::file_with(b"0123456789");
    let (r, w) = sys::pipe();
    check_eq!(ring.res(splice(0, 0, w, CURRENT, 3, IN_FIXED)), err(EBADF), "no table");
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [file, w, -1].as_ptr(), 3), Res(0));
    check_eq!(ring.res(splice(0, 1, w, CURRENT, 3, IN_FIXED)), Res(3), "input");
    check_eq!(ring.res(splice(file, 4, 1, CURRENT, 3, 0).fixed()), Res(3), "output");
    check_eq!(ring.res(splice(0, 7, 1, CURRENT, 3, IN_FIXED).fixed()), Res(3), "both");
    check_eq!(read_all(r, 20), b"123456789");
    for slot in [2, 3, -1] {
        let sqe = splice(slot, 0, w, CURRENT, 3, IN_FIXED);
        check_eq!(ring.res(sqe), err(EBADF), "input slot {slot}");
    }
    let (r2, w2) = sys::pipe();
    sys::write(w2, b"xyz");
    let update = raw::io_uring_register_op::IORING_REGISTER_FILES_UPDATE as u32;
    let fds = [r2];
    let up = soloring_abi::FilesUpdate { offset: 2, resv: 0, fds: fds.as_ptr() as u64 };
    check_eq!(ring.register(update, &up, 1), Res(1));
    check_eq!(ring.res(tee(2, 1, 3, IN_FIXED).fixed()), Res(3), "tee");
    check_eq!(read_all(r, 20), b"xyz");
}

fn non_blocking(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let ((r1, _w1), (_r2, w2)) = (sys::pipe(), sys::pipe());
    let sqe = splice(r1, CURRENT, w2, CURRENT, 3, SPLICE_F_NONBLOCK);
    check_eq!(ring.res(sqe), err(EAGAIN), "SPLICE_F_NONBLOCK");
    check_eq!(ring.res(tee(r1, w2, 3, SPLICE_F_NONBLOCK)), err(EAGAIN), "SPLICE_F_NONBLOCK");
    sys::set_nonblocking(r1);
    check_eq!(ring.res(splice(r1, CURRENT, w2, CURRENT, 3, 0)), err(EAGAIN), "O_NONBLOCK");
}

fn it_waits_for_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let ((r1, w1), (r2, w2)) = (sys::pipe(), sys::pipe());
    ring.submit_all(&[splice(r1, CURRENT, w2, CURRENT, 30, 0).ud(1)]);
    check!(ring.quiet(), "there is nothing to move yet");
    check_eq!(ring.res(nop().ud(2)), Res(0), "the ring goes on meanwhile");
    sys::write(w1, b"abc");
    check_eq!(ring.results(1), [(1, Res(3))]);
    check_eq!(read_all(r2, 20), b"abc");
}

fn what_waits_can_be_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let ((r1, _w1), (_r2, w2)) = (sys::pipe(), sys::pipe());
    ring.submit_all(&[splice(r1, CURRENT, w2, CURRENT, 30, 0).ud(1)]);
    std::thread::sleep(Duration::from_millis(30));
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
    let got = ring.results(2);
    // The kernel lets its internal ERESTARTSYS (512) out here; a ring in user space sees EINTR.
    let wants = [(1, Res(-512)), (1, err(libc::EINTR)), (1, err(ECANCELED))];
    check!(wants.contains(&got[0]), "target: {:?}", got[0]);
    check_in!(got[1], [(2, err(libc::EALREADY)), (2, Res(0))], "cancellation");
}

/// A short transfer counts as a failure, as does an error.
fn short_transfers_break_a_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let file = sys::file_with(b"0123456789");
    let (_r, w) = sys::pipe();
    for (len, res, next) in
        [(10, Res(10), Res(0)), (11, Res(10), err(ECANCELED)), (0, Res(0), Res(0))]
    {
        ring.submit_all(&[splice(file, 0, w, CURRENT, len, 0).ud(1).link(), nop().ud(2)]);
        check_eq!(ring.results(2), [(1, res), (2, next)], "{len} bytes of 10");
    }
    ring.submit_all(&[splice(-1, 0, w, CURRENT, 1, 0).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(EBADF)), (2, err(ECANCELED))]);
}

family!["splices", modes;
    files_and_pipes,
    pipe_to_pipe,
    offsets_where_there_are_none,
    wrong_files,
    bad_fields,
    registered_files,
    non_blocking,
    it_waits_for_data,
    what_waits_can_be_cancelled,
    short_transfers_break_a_chain,
];
