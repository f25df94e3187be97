//! Refusals: which errno comes first when several would do, and inputs that no program should make.

use crate::backend::Abi;
use crate::families::bufring;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, CURRENT, SqeExt, nop, op};
use crate::sys;
use libc::{
    EAGAIN, EBADF, EBADFD, EBUSY, EFAULT, EINVAL, EISDIR, ENODATA, ENODEV, ENOMEM, ENOTSOCK, ENXIO,
    EOPNOTSUPP, EPERM, ESPIPE,
};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, Sqe, extra, raw, sqe_flags};

const BELOW: u64 = u64::MAX - 1;

/// A mere place in the tree, which no operation takes for an open file.
fn place() -> i32 {
    sys::open("/", libc::O_PATH)
}

fn with_flags(sqe: Sqe, rw_flags: u32) -> Sqe {
    sqe.with(|s| s.op_flags = rw_flags)
}

fn the_mode_comes_before_the_offset(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let dir = sys::open("/", libc::O_DIRECTORY);
    let mut buf = [0; 8];
    check_eq!(ring.res(sqe::read(w, &mut buf, BELOW)), err(EBADF), "read of a write end");
    check_eq!(ring.res(sqe::write(r, &buf, BELOW)), err(EBADF), "write to a read end");
    check_eq!(ring.res(sqe::write(dir, &buf, BELOW)), err(EBADF), "write to a directory");
    check_eq!(ring.res(sqe::read(dir, &mut buf, BELOW)), err(EINVAL), "read of a directory");
    check_eq!(ring.res(sqe::read(r, &mut buf, BELOW)), err(EINVAL), "read of a read end");
    check_eq!(ring.res(sqe::read(sys::unused_fd(), &mut buf, BELOW)), err(EBADF), "not open");
    check_eq!(ring.res(sqe::read(place(), &mut buf, BELOW)), err(EBADF), "a place");
    // The sum counts where the offset does not.
    check_eq!(ring.res(sqe::read(r, &mut buf, i64::MAX as u64 - 3)), err(EINVAL), "beyond the end");
    let (a, _) = sys::socketpair(libc::SOCK_STREAM);
    check_eq!(ring.res(sqe::read(a, &mut buf, 1)), err(ESPIPE), "a socket");
    // Without registered buffers; the file still comes first.
    for (fd, want) in [(place(), EBADF), (sys::unused_fd(), EBADF), (dir, EFAULT), (w, EFAULT)] {
        check_eq!(ring.res(sqe::read_fixed(fd, 0, 8, BELOW, 0)), err(want), "read_fixed");
    }
}

fn empty_transfers_ask_the_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for (initial, name) in [(0, "empty"), (1, "ready")] {
        let fd = sys::eventfd(initial, 0);
        check_eq!(ring.res(sqe::read(fd, &mut [], 0)), err(EINVAL), "{name} eventfd");
        check_eq!(ring.res(sqe::read(fd, &mut [], 1 << 15)), err(EINVAL), "{name}, at an offset");
        check_eq!(ring.res(sqe::readv(fd, &[], 0)), err(EINVAL), "{name}, no vector");
        check_eq!(ring.res(sqe::write(fd, &[], 0)), Res(0), "{name}, written to");
    }
    check_eq!(ring.res(sqe::read(sys::timerfd(), &mut [], 0)), err(EINVAL), "timerfd");
    let (a, b) = sys::socketpair(libc::SOCK_DGRAM);
    check_eq!(ring.res(sqe::read(a, &mut [], CURRENT)), Res(0), "of a socket");
    check_eq!(ring.res(sqe::write(a, &[], CURRENT)), Res(0), "an empty datagram");
    sys::set_nonblocking(b);
    check_eq!(sys::read(b, &mut [0; 8]), Res(0), "it was sent");
    check_eq!(sys::read(b, &mut [0; 8]), err(EAGAIN), "once");
    let (r, w) = sys::pipe();
    check_eq!(ring.res(sqe::read(r, &mut [], 0)), Res(0), "of an empty pipe");
    check_eq!(ring.res(sqe::write(w, &[], 0)), Res(0), "to a pipe");
    check_eq!(ring.res(sqe::read(sys::open("/", 0), &mut [], 0)), Res(0), "of a directory");
}

fn rw_flags_count_whatever_the_length(abi: &Abi) {
    const ATOMIC: u32 = 0x40;
    const DONTCACHE: u32 = 0x80;
    let mut ring = Ring::new(abi, 4);
    let null = sys::open("/dev/null", libc::O_RDWR);
    for len in [0, 4] {
        let mut buf = vec![0; len];
        for bad in [ATOMIC, DONTCACHE, 1 << 9, 1 << 31] {
            let read = with_flags(sqe::read(null, &mut buf, 0), bad);
            check_eq!(ring.res(read), err(EOPNOTSUPP), "read of {len}, {bad:#x}");
            let write = with_flags(sqe::write(null, &buf, 0), bad);
            check_eq!(ring.res(write), err(EOPNOTSUPP), "write of {len}, {bad:#x}");
        }
        let both = with_flags(sqe::write(null, &buf, 0), 0x30);
        check_eq!(ring.res(both), err(EINVAL), "APPEND and NOAPPEND, {len}");
    }
    let mut buf = [0; 8];
    let dir = sys::open("/", libc::O_DIRECTORY);
    for indifferent in [0, 2, 4, 0x10, 0x20, 0x100] {
        let read = with_flags(sqe::read(dir, &mut buf, 0), indifferent);
        check_eq!(ring.res(read), err(EISDIR), "directory, {indifferent:#x}");
    }
    check_eq!(
        ring.res(with_flags(sqe::read(dir, &mut buf, 0), ATOMIC)),
        err(EOPNOTSUPP),
        "directory"
    );
    let fd = sys::eventfd(0, 0);
    check_eq!(ring.res(with_flags(sqe::read(fd, &mut buf, 0), ATOMIC)), err(EOPNOTSUPP), "eventfd");
    let (_, w) = sys::pipe();
    check_eq!(ring.res(with_flags(sqe::read(w, &mut buf, 0), 1 << 20)), err(EBADF), "mode first");
}

fn files_without_methods_are_waited_for(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let mut buf = [0; 8];
    let epoll = sys::epoll();
    for sqe in [sqe::read(epoll, &mut buf, 0), sqe::write(epoll, &buf, 0)] {
        ring.submit_all(&[sqe.ud(1)]);
        check!(ring.quiet(), "an epoll instance that is not ready");
        ring.push(sqe::cancel(1, -1, 0).ud(2));
        ring.submit();
        check_eq!(ring.results(2), [(1, err(libc::ECANCELED)), (2, Res(0))]);
    }
    sys::set_nonblocking(epoll);
    check_eq!(ring.res(sqe::read(epoll, &mut buf, 0)), err(EINVAL), "O_NONBLOCK");
    check_eq!(ring.res(sqe::write(sys::timerfd(), &buf, 0)), err(EINVAL), "timerfd");
}

/// Every operation on a descriptor of another ring.
fn rings_as_operands(abi: &Abi) {
    use Opcode as O;
    let mut ring = Ring::new(abi, 8);
    let other = Ring::new(abi, 4);
    let page = sys::guarded_page().as_ptr() as u64;
    let text = sys::buffer(4096);
    text[..10].copy_from_slice(b"user.name\0");
    let (text, fd) = (text.as_ptr() as u64, other.fd);
    let message = sys::msghdr(&mut []);
    let message = (&raw const message) as u64;
    let set = |o: Opcode, addr: u64, len: u32, off: u64| op(o, fd, addr, len, off);
    let cases = [
        (set(O::Write, page, 8, 0), err(EINVAL)),
        (set(O::ReadFixed, page, 8, 0), err(EFAULT)),
        (set(O::WriteFixed, page, 8, 0), err(EFAULT)),
        (set(O::Read, page, 8, 0).with(|s| s.op_flags = 1 << 20), err(EOPNOTSUPP)),
        (set(O::Fsync, 0, 0, 0), err(EINVAL)),
        (set(O::SyncFileRange, 0, 8, 0), err(ESPIPE)),
        (set(O::Sendmsg, message, 1, 0), err(ENOTSOCK)),
        (set(O::Recvmsg, message, 1, 0), err(ENOTSOCK)),
        (set(O::Accept, 0, 0, 0), err(ENOTSOCK)),
        (set(O::Connect, page, 0, 16), err(ENOTSOCK)),
        (set(O::Fallocate, 8, 0, 0), err(ENODEV)),
        (set(O::Close, 0, 0, 0), err(EBADF)),
        (set(O::Fadvise, 0, 8, 0), Res(0)),
        (set(O::Send, page, 8, 0), err(ENOTSOCK)),
        (set(O::Recv, page, 8, 0), err(ENOTSOCK)),
        (set(O::Shutdown, 0, 0, 0), err(ENOTSOCK)),
        (set(O::Fsetxattr, text, 8, page), err(EPERM)),
        (set(O::Fgetxattr, text, 8, page), err(ENODATA)),
        (set(O::UringCmd, 0, 0, 0), err(EOPNOTSUPP)),
        (set(O::Ftruncate, 0, 0, 8), err(EINVAL)),
        (set(O::Bind, page, 0, 16), err(ENOTSOCK)),
        (set(O::Listen, 0, 0, 0), err(ENOTSOCK)),
        (set(O::EpollWait, page, 1, 0), err(EINVAL)),
        (set(O::EpollCtl, page, 1, fd as u64), err(EINVAL)),
        (set(O::Openat, text, 0, 0), err(libc::ENOTDIR)),
        (set(O::Splice, CURRENT, 8, CURRENT).with(|s| s.file_index = fd as u32), err(EINVAL)),
        (set(O::Tee, 0, 8, 0).with(|s| s.file_index = fd as u32), err(EINVAL)),
    ];
    for (sqe, want) in cases {
        let name = Opcode::from_raw(sqe.opcode).map_or("?", Opcode::name);
        check_eq!(ring.res(sqe), want, "{name}");
    }
    check_eq!(
        ring.register(reg::IORING_REGISTER_FILES as u32, &fd, 1),
        err(EBADF),
        "REGISTER_FILES"
    );
    let eventfd = reg::IORING_REGISTER_EVENTFD as u32;
    check_eq!(ring.register(eventfd, &fd, 1), err(EINVAL), "REGISTER_EVENTFD");
    let mut own = ring.fd;
    check_eq!(ring.res(sqe::close(own)), err(EBADF), "CLOSE of the ring itself");
    own = other.fd;
    check_eq!(abi.enter(own, 0, 0, 0), Res(0), "the other ring is whole");
}

fn places_are_no_open_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let fd = place();
    check_eq!(abi.enter(fd, 0, 0, 0), err(EBADF), "enter");
    let none = std::ptr::null::<u8>();
    let enable = reg::IORING_REGISTER_ENABLE_RINGS as u32;
    check_eq!(abi.register(fd, enable, none, 0), err(EBADF), "register");
    for opcode in [reg::IORING_REGISTER_EVENTFD, reg::IORING_REGISTER_EVENTFD_ASYNC] {
        check_eq!(ring.register(opcode as u32, &fd, 1), err(EBADF), "REGISTER_EVENTFD");
    }
    let update = [u32::MAX as u64, fd as u64];
    check_eq!(
        ring.register(reg::IORING_REGISTER_RING_FDS as u32, &update, 1),
        err(EBADF),
        "RING_FDS"
    );
    let mut p = params(raw::IORING_SETUP_ATTACH_WQ);
    p.wq_fd = fd as u32;
    check_eq!(abi.setup(4, &mut p), err(ENXIO), "ATTACH_WQ");
    let by_fd = raw::IORING_ASYNC_CANCEL_FD;
    check_eq!(ring.res(sqe::cancel(0, fd, by_fd)), err(EBADF), "ASYNC_CANCEL");
    check_eq!(ring.res(op(Opcode::MsgRing, fd, 0, 5, 0)), err(EBADF), "MSG_RING");
    check_eq!(ring.res(op(Opcode::UringCmd, fd, 0, 0, 0)), err(EBADF), "URING_CMD");
    // A failure that is told although success would not be.
    let silent = op(Opcode::Fallocate, fd, 4096, 0, 0).skip();
    check_eq!(ring.res(silent), err(EBADF), "FALLOCATE");
    let file = nop().with(|s| (s.fd, s.op_flags) = (fd, raw::IORING_NOP_FILE));
    check_eq!(ring.res(file), err(EBADF), "NOP");
}

/// An entry that fails its checks and asked for no success: the rest of its chain is silent.
fn failed_entries_silence_their_chain(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, raw::IORING_SETUP_SUBMIT_ALL);
    let silent = sqe_flags::CQE_SKIP_SUCCESS | sqe_flags::IO_LINK;
    for (flags, opcode, want) in [
        (silent | 0x80, 0, EINVAL),
        (silent | sqe_flags::BUFFER_SELECT, 0, EOPNOTSUPP),
        (silent, 200, EINVAL),
        (silent, Opcode::Fsync as u8, EINVAL),
    ] {
        let bad = nop().ud(1).flag(flags).with(|s| (s.opcode, s.op_flags) = (opcode, 1 << 9));
        ring.push_all(&[bad, nop().ud(2), nop().ud(3)]);
        check_eq!(ring.submit(), Res(3), "flags {flags:#x}");
        check_eq!(ring.results(2), [(1, err(want)), (3, Res(0))], "flags {flags:#x}");
        check_eq!(ring.cq_ready(), 0, "flags {flags:#x}");
    }
}

fn registered_rings_are_checked_one_by_one(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let (add, remove) =
        (reg::IORING_REGISTER_RING_FDS as u32, reg::IORING_UNREGISTER_RING_FDS as u32);
    for offset in [16, 17, u32::MAX - 1] {
        let update = [offset as u64, sys::unused_fd() as u64];
        check_eq!(
            ring.register(add, &update, 1),
            err(EINVAL),
            "slot {offset} before the descriptor"
        );
    }
    // Two entries, of which the second is not there.
    let page = sys::guarded_page();
    let at = page.as_ptr() as u64 + 4080;
    check_eq!(ring.register(add, at as *const u8, 1), err(libc::EOPNOTSUPP), "descriptor 0");
    check_eq!(ring.register(remove, at as *const u8, 2), Res(1), "unregistered");
}

fn register_arguments_in_their_order(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let forbidden = sys::forbidden_page() as *const u8;
    let eventfd = reg::IORING_REGISTER_EVENTFD as u32;
    check_eq!(ring.register(eventfd, forbidden, 1), err(EFAULT));
    check_eq!(ring.register(eventfd, &sys::eventfd(0, 0), 1), Res(0));
    check_eq!(ring.register(eventfd, forbidden, 1), err(EBUSY), "there is one");
    let negative = [1u64, u64::MAX];
    let buffers = reg::IORING_REGISTER_BUFFERS as u32;
    check_eq!(ring.register(buffers, &negative, 1), err(EINVAL), "a length below 0");
    // No more is read than a set of all CPUs has.
    let page = sys::guarded_page();
    page.fill(0xff);
    let last = page.as_ptr() as u64 + 4096 - 512;
    let affinity = reg::IORING_REGISTER_IOWQ_AFF as u32;
    check_eq!(ring.register(affinity, last as *const u8, 1 << 20), Res(0), "affinity");
    // Room beyond the answer is cleared, or is not there.
    let answer = sys::guarded_page();
    answer.fill(0xff);
    let at = answer.as_ptr() as u64;
    for (size, want) in [(4096u64, Res(0)), (8192, err(EFAULT))] {
        let header = [0, at, size << 32, 0, 0];
        check_eq!(ring.register(extra::IORING_REGISTER_QUERY, &header, 0), want, "QUERY, {size}");
    }
    check!(answer[48..].iter().all(|b| *b == 0), "the rest is cleared");
}

fn setup_looks_at_the_affinity_late(abi: &Abi) {
    let mut p = params(raw::IORING_SETUP_SQ_AFF | raw::IORING_SETUP_ATTACH_WQ);
    p.wq_fd = sys::unused_fd() as u32;
    check_eq!(abi.setup(4, &mut p), err(ENXIO), "behind the ring to attach to");
    let mut p = params(raw::IORING_SETUP_SQ_AFF | raw::IORING_SETUP_NO_MMAP);
    (p.sq_off.user_addr, p.cq_off.user_addr) = (sys::forbidden_page(), sys::forbidden_page());
    check_eq!(abi.setup(4, &mut p), err(EFAULT), "behind the memory");
    check_eq!(abi.setup(4, &mut params(raw::IORING_SETUP_SQ_AFF)), err(EINVAL), "alone");
}

fn iopoll_rings_wait_for_nothing(abi: &Abi) {
    let ring = Ring::with_flags(abi, 4, raw::IORING_SETUP_IOPOLL);
    let get = raw::IORING_ENTER_GETEVENTS;
    check_eq!(ring.enter(0, 2, get), Res(0), "nothing is in flight");
    let bad = sys::forbidden_page() as *const _;
    check_eq!(abi.enter_arg(ring.fd, 0, 1, get, bad, 5), Res(0), "no signal mask is read");
    let ext = get | raw::IORING_ENTER_EXT_ARG;
    let block = [bad as u64, 5, bad as u64];
    let at = block.as_ptr().cast();
    check_eq!(abi.enter_arg(ring.fd, 0, 1, ext, at, 24), Res(0), "nor a time");
    check_eq!(abi.enter_arg(ring.fd, 0, 1, ext, at, 16), err(EINVAL), "its size");
    check_eq!(abi.enter_arg(ring.fd, 0, 1, ext, bad, 24), err(EFAULT), "its place");
}

fn multishot_reads_look_at_the_file_first(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let null = sys::open("/dev/null", libc::O_RDWR);
    let read = |fd| op(Opcode::ReadMultishot, fd, 0, 0, 0).flag(sqe_flags::BUFFER_SELECT);
    check_eq!(ring.res(read(null)), err(EBADFD), "cannot be polled");
    let (r, w) = sys::pipe();
    check_eq!(ring.res(read(r)), err(libc::ENOBUFS), "has no buffers");
    ring.submit_all(&[read(r).forced_async()]);
    check!(ring.quiet(), "a worker waits first");
    sys::write(w, b"x");
    check_eq!(ring.wait().res, err(libc::ENOBUFS), "and has no buffers then");
    sys::read(r, &mut [0; 8]);
    check_eq!(ring.res(read(place())), err(EBADF), "a place");
    check_eq!(ring.res(read(null).with(|s| s.ioprio = 0x4000)), err(EINVAL), "ioprio");
    let memory = sys::buffer(4096).as_ptr() as u64;
    check_eq!(ring.res(bufring::provide(memory, 16, 1, 0, 0)), Res(0));
    check_eq!(ring.res(read(w)), err(EBADF), "a write end");
    check_eq!(ring.res(with_flags(read(r), 0x40)), err(EOPNOTSUPP), "rw_flags");
}

/// IOSQE_ASYNC takes no check away.
fn workers_check_as_much(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let memory = sys::buffer(8192);
    memory.fill(7);
    let at = memory.as_ptr() as u64;
    let fd = sys::file_with(b"a file's contents");
    let read = |addr, len, index| sqe::read_fixed(fd, addr, len, 0, index).forced_async();
    check_eq!(ring.res(read(at, 8, 0)), err(EFAULT), "no table");
    let buffer = libc::iovec { iov_base: at as *mut _, iov_len: 8 };
    check_eq!(ring.register(reg::IORING_REGISTER_BUFFERS as u32, &buffer, 1), Res(0));
    check_eq!(ring.res(read(at, 9, 0)), err(EFAULT), "one over the end");
    check_eq!(ring.res(read(at + 4096, 8, 0)), err(EFAULT), "elsewhere");
    check_eq!(ring.res(read(at, 8, 1)), err(EFAULT), "no such buffer");
    check!(memory.iter().all(|b| *b == 7), "nothing was written");
    check_eq!(ring.res(read(at, 8, 0)), Res(8), "in place");
    let mut buf = [0; 8];
    for len in [0, 8] {
        let flagged = with_flags(sqe::read(fd, &mut buf[..len], 0), 1 << 28).forced_async();
        check_eq!(ring.res(flagged), err(EOPNOTSUPP), "rw_flags, {len} bytes");
    }
}

/// A buffer is not taken by what fails before it is chosen.
/// The kernel looks for memory before it counts, if only for these; it has none for more than this many elements.
fn long_vectors_of_registered_memory(abi: &Abi) {
    let page = sys::buffer(4096);
    let iov = [libc::iovec { iov_base: page.as_mut_ptr().cast(), iov_len: 8 }];
    let file = sys::file_with(b"abc");
    let mut ring = Ring::new(abi, 8);
    for opcode in [Opcode::ReadvFixed, Opcode::WritevFixed, Opcode::Readv, Opcode::Writev] {
        for len in [1025, 1 << 16, (1 << 18) + 1, 1 << 20, 1 << 31, u32::MAX] {
            let fixed = opcode as u8 >= Opcode::ReadvFixed as u8;
            let want = if fixed && len > 1 << 18 { ENOMEM } else { EINVAL };
            let sqe = op(opcode, file, iov.as_ptr() as u64, len, 0);
            check_eq!(ring.res(sqe), err(want), "{} of {len}", opcode.name());
        }
    }
}

fn multishot_reads_at_an_offset(abi: &Abi) {
    let memory = sys::buffer(256);
    let provide = bufring::provide(memory.as_ptr() as u64, 16, 4, 1, 0);
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        for (off, want) in [
            (4, (Some(err(ESPIPE)), None)),
            (u64::MAX, (None, Some(Res(3)))),
            (1 << 63, (Some(err(EINVAL)), None)),
            (i64::MAX as u64, (Some(err(EINVAL)), None)),
        ] {
            let mut ring = Ring::new(abi, 4);
            check_eq!(ring.res(provide), Res(0));
            let (a, b) = sys::socketpair(kind);
            let read = op(Opcode::ReadMultishot, a, 0, 0, off);
            ring.submit_all(&[bufring::select(read, 1)]);
            let soon = std::time::Duration::from_millis(40);
            let first = ring.wait_within(soon).map(|d| d.res);
            sys::write(b, b"abc");
            let next = ring.wait_within(soon).map(|d| d.res);
            check_eq!((first, next), want, "kind {kind}, offset {off:#x}");
            let mut buf = [0; 4];
            if off >> 63 == 0 {
                sys::write(b, b"abc");
                check_eq!(Some(ring.res(sqe::read(a, &mut buf, off))), want.0, "once, {off:#x}");
            }
        }
    }
}

/// The pages that a vector would have are counted before its elements are looked at one by one.
fn wide_vectors_of_registered_memory(abi: &Abi) {
    let page = sys::buffer(4096);
    let element = |len: u64| libc::iovec {
        iov_base: page.as_ptr() as *mut _,
        iov_len: usize::try_from(len).unwrap(),
    };
    let file = sys::file_with(b"abc");
    let mut ring = Ring::new(abi, 8);
    let buffers = reg::IORING_REGISTER_BUFFERS as u32;
    for registered in [false, true] {
        if registered {
            check_eq!(ring.register(buffers, [element(4096)].as_ptr(), 1), Res(0));
        }
        for (what, lengths, want) in [
            ("too long", vec![4097], EFAULT),
            ("one is empty", vec![8, 0], EFAULT),
            ("many pages", vec![1 << 31], ENOMEM),
            ("many pages together", vec![1 << 29, 8, 1 << 29, 1 << 29], ENOMEM),
            ("many pages and one is empty", vec![0, 1 << 32], ENOMEM),
            ("more than a number holds", vec![1 << 43], libc::EOVERFLOW),
            ("together", vec![1 << 42, 1 << 42], libc::EOVERFLOW),
            ("no number at all", vec![i64::MAX as u64], libc::EOVERFLOW),
        ] {
            let vector: Vec<_> = lengths.into_iter().map(element).collect();
            let want = err(if registered { want } else { EFAULT });
            for opcode in [Opcode::ReadvFixed, Opcode::WritevFixed] {
                let sqe = op(opcode, file, vector.as_ptr() as u64, vector.len() as u32, 0);
                check_eq!(ring.res(sqe), want, "{what}, registered: {registered}");
                check_eq!(ring.res(sqe.forced_async()), want, "{what}, async");
            }
        }
    }
}

/// Who only listens is told so, and not waited for.
fn listeners_do_not_transfer(abi: &Abi) {
    let (listener, _) = sys::tcp_listener();
    let unconnected = sys::tcp_socket();
    let data = *b"eight by";
    let none = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: 0 };
    let full = libc::iovec { iov_len: 8, ..none };
    let memory = sys::buffer(256);
    for (name, fd) in [("a listener", listener), ("a fresh socket", unconnected)] {
        let mut ring = Ring::new(abi, 8);
        for (what, sqe) in [
            ("nothing", sqe::write(fd, &data[..0], 0)),
            ("something", sqe::write(fd, &data, 0)),
            ("no vector", sqe::writev(fd, &[], 0)),
            ("an empty vector", sqe::writev(fd, &[none], 0)),
            ("a vector", sqe::writev(fd, &[full], 0)),
        ] {
            check_eq!(ring.res(sqe), err(libc::EPIPE), "{what} to {name}");
            check_eq!(ring.res(sqe.forced_async()), err(libc::EPIPE), "{what} to {name}, async");
        }
        let provide = bufring::provide(memory.as_ptr() as u64, 16, 4, 1, 0);
        check_eq!(ring.res(provide), Res(0));
        let read = bufring::select(op(Opcode::ReadMultishot, fd, 0, 0, 0), 1);
        check_eq!(ring.res(read), err(libc::ENOTCONN), "multishot read of {name}");
    }
}

fn no_socket_takes_no_buffer(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let memory = sys::buffer(4096).as_ptr() as u64;
    check_eq!(ring.res(bufring::provide(memory, 16, 1, 1, 5)), Res(0));
    let null = sys::open("/dev/null", libc::O_RDWR);
    let send = |fd, group| bufring::select(op(Opcode::Send, fd, 0, 0, 0), group);
    let done = ring.run(send(null, 1));
    check_eq!((done.res, done.flags), (err(ENOTSOCK), 0), "with a buffer");
    check_eq!(ring.res(send(null, 9)), err(ENOTSOCK), "without a group");
    check_eq!(ring.res(send(sys::unused_fd(), 1)), err(EBADF), "no file");
    let recv = bufring::select(op(Opcode::Recv, null, 0, 0, 0), 9);
    check_eq!(ring.res(recv), err(ENOTSOCK), "a receive without a group");
    let (a, _b) = sys::socketpair(libc::SOCK_STREAM);
    let done = ring.run(send(a, 1));
    check_eq!((done.res, bufring::buffer_of(&done)), (Res(16), Some(5)), "it is still there");
}

fn poll_first_on_what_is_no_socket(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let first = |sqe: Sqe| sqe.with(|s| s.ioprio = raw::IORING_RECVSEND_POLL_FIRST as u16);
    let mut buf = [0; 8];
    let (r, w) = sys::pipe();
    let null = sys::open("/dev/null", libc::O_RDWR);
    for fd in [w, r, null] {
        check_eq!(ring.res(first(sqe::send(fd, &buf, 0))), err(ENOTSOCK), "send");
    }
    sys::write(w, b"x");
    check_eq!(ring.res(first(sqe::recv(r, &mut buf, 0))), err(ENOTSOCK), "recv of a ready pipe");
    check_eq!(ring.res(first(sqe::recv(null, &mut buf, 0))), err(EAGAIN), "recv of /dev/null");
    let accept = |fd| sqe::accept(fd, 0).with(|s| s.ioprio = raw::IORING_ACCEPT_POLL_FIRST as u16);
    check_eq!(ring.res(accept(r)), err(ENOTSOCK), "accept from a ready pipe");
    check_eq!(ring.res(accept(null)), err(EAGAIN), "accept from /dev/null");
    check_eq!(ring.res(sqe::accept(null, 0)), err(ENOTSOCK), "accept at once");
}

/// Linux 6.18 spins for ever when an overflow waits behind a head like this: ours only.
fn a_wild_cq_head_can_be_interrupted(abi: &Abi) {
    if abi.is_kernel() {
        return;
    }
    sys::catch(libc::SIGALRM);
    let mut ring = Ring::new(abi, 4);
    for ud in 0..6 {
        ring.submit_all(&[nop().ud(ud), nop().ud(ud)]);
    }
    check!(ring.sq_flags() & raw::IORING_SQ_CQ_OVERFLOW != 0, "overflow");
    let head = ring.word(ring.params.cq_off.head);
    sys::interrupt_every(20);
    for wild in [0xa30f_9af3, u32::MAX, 1 << 31, 100] {
        head.store(wild, std::sync::atomic::Ordering::Relaxed);
        ring.enter(0, 3, raw::IORING_ENTER_GETEVENTS);
    }
    sys::interrupt_every(0);
    head.store(0, std::sync::atomic::Ordering::Relaxed);
    let seen: Vec<u64> = ring.wait_n(12).iter().map(|d| d.ud).collect();
    check_eq!(seen, (0..6).flat_map(|ud| [ud, ud]).collect::<Vec<_>>(), "nothing is lost");
}

family!["refusals", modes;
    the_mode_comes_before_the_offset,
    empty_transfers_ask_the_file,
    rw_flags_count_whatever_the_length,
    files_without_methods_are_waited_for,
    rings_as_operands,
    places_are_no_open_files,
    failed_entries_silence_their_chain,
    registered_rings_are_checked_one_by_one,
    register_arguments_in_their_order,
    setup_looks_at_the_affinity_late,
    iopoll_rings_wait_for_nothing,
    multishot_reads_look_at_the_file_first,
    workers_check_as_much,
    long_vectors_of_registered_memory,
    multishot_reads_at_an_offset,
    wide_vectors_of_registered_memory,
    listeners_do_not_transfer,
    no_socket_takes_no_buffer,
    poll_first_on_what_is_no_socket,
    a_wild_cq_head_can_be_interrupted,
];
