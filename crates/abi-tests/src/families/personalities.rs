//! Personalities: requests carried out with credentials that were registered. What becomes of these: `keepers.rs`.
//!
//! Most cases need root, who alone can be somebody else; without it they do nothing.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::families::bufring::{BufRing, select};
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, cancel, link_timeout, ms, nop, op, openat};
use crate::sys;
use libc::{
    E2BIG, EACCES, EALREADY, ECANCELED, EINTR, EINVAL, ENOENT, EOPNOTSUPP, EPERM, O_CLOEXEC,
    O_CREAT, O_RDONLY, O_RDWR, SOCK_STREAM,
};
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};
use std::ffi::CString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub const REGISTER: u32 = raw::io_uring_register_op::IORING_REGISTER_PERSONALITY as u32;
pub const UNREGISTER: u32 = raw::io_uring_register_op::IORING_UNREGISTER_PERSONALITY as u32;
pub const NULL: *const u8 = std::ptr::null();
pub const NOBODY: u32 = 65534;
pub const RDONLY: i32 = O_RDONLY | O_CLOEXEC;

pub fn register(ring: &Ring) -> u16 {
    let id = ring.register(REGISTER, NULL, 0);
    assert!(!id.is_err(), "REGISTER_PERSONALITY = {id}");
    id.0 as u16
}

pub fn unregister(ring: &Ring, id: u16) -> Res {
    ring.register(UNREGISTER, NULL, id as u32)
}

pub fn by(sqe: Sqe, id: u16) -> Sqe {
    sqe.with(|s| s.personality = id)
}

pub fn is_root() -> bool {
    // SAFETY: touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// All threads that the C library knows of change their effective user.
pub fn become_user(uid: u32) {
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::seteuid(uid) }, 0);
}

/// For good, all three ids.
pub fn drop_root() {
    // SAFETY: touch no memory.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
        assert_eq!(libc::setuid(0), -1, "the way back is closed");
    }
}

/// A personality that is nobody's, registered by a process that is root again.
fn nobody(ring: &Ring) -> u16 {
    become_user(NOBODY);
    let id = register(ring);
    become_user(0);
    id
}

/// A directory that everybody may use, with a file of root's that nobody else may read.
pub fn secret(dir: &Path) -> (PathBuf, CString) {
    let open_to_all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir, open_to_all).expect("permissions");
    let path = dir.join("secret");
    std::fs::write(&path, b"of root").expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    (path.clone(), sys::c(path))
}

pub fn opened(res: Res) -> Res {
    if !res.is_err() {
        sys::close(res.0 as i32);
        return Res(0);
    }
    res
}

/// Linux 6.18 gives what it would give to itself.
pub fn interrupted(res: Res) -> bool {
    const ERESTARTSYS: i32 = 512;
    [err(EINTR), err(ERESTARTSYS)].contains(&res)
}

fn numbers(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    check_eq!((register(&ring), register(&ring), register(&ring)), (1, 2, 3));
    check_eq!(unregister(&ring, 2), Res(0));
    check_eq!(unregister(&ring, 2), err(EINVAL), "twice");
    check_eq!(unregister(&ring, 0), err(EINVAL), "none");
    check_eq!(ring.register(UNREGISTER, NULL, 1 << 16 | 1), err(EINVAL), "no number");
    check_eq!(ring.register(UNREGISTER, &0u8, 1), err(EINVAL), "an argument");
    check_eq!((register(&ring), register(&ring)), (4, 5), "numbers go on");
    let other = Ring::new(abi, 8);
    check_eq!(register(&other), 1, "another ring");
    for _ in 6..=70 {
        register(&ring);
    }
    for id in [1, 3, 4, 5, 70] {
        check_eq!(unregister(&ring, id), Res(0), "{id}");
    }
    check_eq!(register(&ring), 71);
}

fn what_is_asked_before_the_personality(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let id = register(&ring);
    let none = sqe::op(Opcode::ProvideBuffers, 0, 0, 0, 0);
    check_eq!(ring.res(none), err(E2BIG), "no buffers");
    check_eq!(ring.res(by(none, 9)), err(EINVAL), "unknown, and no buffers");
    check_eq!(ring.res(by(none, id)), err(E2BIG), "known, and no buffers");
    let selecting = by(nop(), 9).flag(sqe_flags::BUFFER_SELECT);
    check_eq!(ring.res(selecting), err(EOPNOTSUPP), "unknown, and no selection");
    check_eq!(ring.res(by(nop(), 9).forced_async()), err(EINVAL), "unknown, to a worker");
    check_eq!(ring.res(by(nop(), id).forced_async()), Res(0), "known, to a worker");
    ring.submit_all(&[by(nop(), 9).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(EINVAL)), (2, err(ECANCELED))], "at the head of a chain");
    let here = sqe::op(Opcode::MsgRing, ring.fd, 0, 0, 0);
    check_eq!(ring.res(by(here, id)), err(EINVAL), "a message");
}

fn somebody_elses_file(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 8);
    let id = nobody(&ring);
    let dir = sys::tempdir();
    let (_, path) = secret(dir.path());
    let how = sys::open_how(RDONLY as u64, 0, 0);
    let plain = openat(-1, &path, RDONLY, 0);
    let creating = openat(-1, &path, RDONLY | O_CREAT, 0o600);
    for (what, sqe) in [
        ("OPENAT", plain),
        ("OPENAT with O_CREAT", creating),
        ("OPENAT to a worker", plain.forced_async()),
        ("OPENAT2", sqe::openat2(-1, &path, &how)),
    ] {
        check_eq!(opened(ring.res(by(sqe, id))), err(EACCES), "{what}, nobody");
        check_eq!(opened(ring.res(sqe)), Res(0), "{what}, root");
        ring.submit_all(&[nop().ud(1).link(), by(sqe, id).ud(2).link(), nop().ud(3)]);
        let expected = [(1, Res(0)), (2, err(EACCES)), (3, err(ECANCELED))];
        check_eq!(ring.results(3), expected, "{what}, in a chain");
    }
    check_eq!(unregister(&ring, id), Res(0));
    check_eq!(ring.res(by(plain, id)), err(EINVAL), "gone");
}

fn what_was_registered_outlives_the_privilege(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 8);
    let (root, dir) = (register(&ring), sys::tempdir());
    let (_, path) = secret(dir.path());
    let plain = openat(-1, &path, RDONLY, 0);
    check_eq!(opened(ring.res(by(plain.forced_async(), root))), Res(0), "while still root");
    drop_root();
    for _ in 0..3 {
        check_eq!(opened(ring.res(plain)), err(EACCES), "nobody");
        check_eq!(opened(ring.res(by(plain, root))), Res(0), "as root");
        check_eq!(opened(ring.res(by(plain.forced_async(), root))), Res(0), "by a worker");
    }
    let me = register(&ring);
    check_eq!(opened(ring.res(by(plain, me))), err(EACCES), "what is registered now");
    check_eq!(opened(ring.res(by(plain, root))), Res(0), "still");
}

/// Credentials belong to threads; the C library hides it.
fn a_thread_with_credentials_of_its_own(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::build(abi, 8, params(0));
    let fd = ring.fd;
    let id = std::thread::scope(|s| {
        let registered = s.spawn(|| {
            // SAFETY: touches no memory; the call itself changes this thread alone.
            unsafe { libc::syscall(libc::SYS_setresuid, -1, NOBODY, -1) };
            abi.register(fd, REGISTER, NULL, 0)
        });
        registered.join().expect("the thread")
    });
    let id = id.0 as u16;
    let dir = sys::tempdir();
    let (_, path) = secret(dir.path());
    let plain = openat(-1, &path, RDONLY, 0);
    check_eq!(opened(ring.res(by(plain, id))), err(EACCES), "that thread's");
    check_eq!(opened(ring.res(plain)), Res(0), "this one's");
    become_user(NOBODY);
    become_user(0);
    check_eq!(opened(ring.res(by(plain, id))), err(EACCES), "after changes");
}

fn owners_of_what_is_made(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 8);
    let id = nobody(&ring);
    let dir = sys::tempdir();
    secret(dir.path());
    let at = |name: &str| dir.path().join(name);
    let owner = |name: &str| std::fs::symlink_metadata(at(name)).expect(name).uid();
    let [file, made, link, late] = ["file", "made", "link", "late"].map(|n| sys::c(at(n)));
    let creating = openat(-1, &file, O_RDWR | O_CREAT | O_CLOEXEC, 0o600);
    check_eq!(opened(ring.res(by(creating, id))), Res(0));
    check_eq!(owner("file"), NOBODY);
    let mkdir = op(Opcode::Mkdirat, -100, made.as_ptr() as u64, 0o700, 0);
    check_eq!(ring.res(by(mkdir, id)), Res(0));
    check_eq!(owner("made"), NOBODY);
    let symlink = op(Opcode::Symlinkat, -100, file.as_ptr() as u64, 0, link.as_ptr() as u64);
    check_eq!(ring.res(by(symlink, id)), Res(0));
    check_eq!(owner("link"), NOBODY);
    check_eq!(opened(ring.res(openat(-1, &late, O_RDWR | O_CREAT | O_CLOEXEC, 0o600))), Res(0));
    check_eq!(owner("late"), 0, "without it");
    let secret = sys::c(at("secret"));
    let unlink = op(Opcode::Unlinkat, -100, secret.as_ptr() as u64, 0, 0);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    check_eq!(ring.res(by(unlink, id)), err(EACCES));
    check_eq!(ring.res(unlink), Res(0), "without it");
    let mut info = sys::zeroed_statx();
    let inside = sys::c(at("made/nothing"));
    let statx = sqe::statx(-100, &inside, 0, libc::STATX_UID, &mut info);
    check_eq!(ring.res(by(statx, id)), err(ENOENT), "its own directory");
    std::fs::set_permissions(at("made"), std::fs::Permissions::from_mode(0o000)).expect("chmod");
    check_eq!(ring.res(by(statx, id)), err(EACCES), "closed to it");
    check_eq!(ring.res(statx), err(ENOENT), "open to root");
}

fn unix_address(path: &Path) -> libc::sockaddr_un {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: plain numbers.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    address
}

fn peer(fd: i32) -> u32 {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as u32;
    let at = (&raw mut cred).cast();
    // SAFETY: room for `len` bytes.
    let got = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, at, &mut len) };
    assert_eq!(got, 0);
    cred.uid
}

fn sockets_tell_who_it_was(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 8);
    let id = nobody(&ring);
    let dir = sys::tempdir();
    secret(dir.path());
    let address = unix_address(&dir.path().join("socket"));
    let (at, len) = (&raw const address as u64, size_of_val(&address) as u32);
    let new = sqe::socket(libc::AF_UNIX, SOCK_STREAM, 0);
    let listener = ring.res(by(new, id)).0 as i32;
    check_eq!(ring.res(by(sqe::bind(listener, at, len), id)), Res(0));
    let made = std::fs::metadata(dir.path().join("socket")).expect("the socket's place");
    check_eq!(made.uid(), NOBODY, "who made the place");
    check_eq!(ring.res(by(sqe::listen(listener, 4), id)), Res(0));
    let client = ring.res(new).0 as i32;
    check_eq!(ring.res(sqe::connect(client, at, len)), Res(0));
    check_eq!(peer(client), NOBODY, "who listens");
    let accepted = ring.res(by(sqe::accept(listener, 0), id)).0 as i32;
    check_eq!(peer(accepted), 0, "who connected");
    let client = ring.res(new).0 as i32;
    check_eq!(ring.res(by(sqe::connect(client, at, len), id)), Res(0));
    let accepted = ring.res(sqe::accept(listener, 0)).0 as i32;
    check_eq!(peer(accepted), NOBODY, "who connected with it");
    let set = op(Opcode::UringCmd, client, 0, 0, 0);
    let force = [1i32 << 20];
    let set = set.with(|s| {
        s.off = raw::io_uring_socket_op::SOCKET_URING_OP_SETSOCKOPT as u64;
        s.addr = libc::SOL_SOCKET as u64 | (libc::SO_RCVBUFFORCE as u64) << 32;
        s.file_index = 4;
        s.addr3 = force.as_ptr() as u64;
    });
    check_eq!(ring.res(by(set, id)), err(EPERM), "an option for root alone");
    check_eq!(ring.res(set), Res(0), "without it");
    let raw_socket = sqe::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    check_eq!(ring.res(by(raw_socket, id)), err(EPERM), "a raw socket");
}

/// The real ids of who sent what the socket gives next.
fn sender(fd: i32) -> u32 {
    let (mut byte, mut control) = ([0u8; 8], [0u64; 16]);
    let mut iov = [sys::iovec(&mut byte)];
    let mut msg = sys::msghdr(&mut iov);
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = size_of_val(&control);
    // SAFETY: the header and what it names live for the call.
    assert!(unsafe { libc::recvmsg(fd, &mut msg, 0) } > 0);
    // Behind the head of 16 bytes: pid, uid, gid.
    assert_eq!((control[1] >> 32) as i32, libc::SCM_CREDENTIALS);
    (control[2] >> 32) as u32
}

fn messages_tell_who_sent_them(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::new(abi, 8);
    // SAFETY: touches no memory.
    let all = |uid| assert_eq!(unsafe { libc::setresuid(uid, uid, 0) }, 0);
    all(NOBODY);
    let id = register(&ring);
    all(0);
    let (a, b) = sys::socketpair(SOCK_STREAM);
    sys::setsockopt(b, libc::SOL_SOCKET, libc::SO_PASSCRED, 1);
    let mut text = *b"12345678";
    let mut iov = [sys::iovec(&mut text)];
    let msg = sys::msghdr(&mut iov);
    let write = sqe::write(a, b"12345678", 0);
    for (what, sqe) in [
        ("SEND", sqe::send(a, b"12345678", 0)),
        ("SENDMSG", sqe::sendmsg(a, &msg, 0)),
        ("WRITE", write),
        ("SEND to a worker", sqe::send(a, b"12345678", 0).forced_async()),
        ("WRITE to a worker", write.forced_async()),
    ] {
        check_eq!(ring.res(by(sqe, id)), Res(8), "{what}");
        check_eq!(sender(b), NOBODY, "{what}, with it");
        check_eq!(ring.res(sqe), Res(8), "{what}");
        check_eq!(sender(b), 0, "{what}, without it");
    }
    // One that has to wait, and is sent by whoever finds room.
    let filled = sys::fill(a);
    ring.submit_all(&[by(sqe::send(a, b"12345678", 0), id).ud(3)]);
    check!(ring.quiet(), "no room");
    check_eq!(unregister(&ring, id), Res(0), "while it waits");
    let mut rest = vec![0; filled];
    let mut left = filled;
    while left > 0 {
        left -= sys::read(b, &mut rest[..left]).0 as usize;
    }
    check_eq!(ring.results(1), [(3, Res(8))]);
    check_eq!(sender(b), NOBODY, "sent later");
}

fn waits_do_not_hold_each_other_up(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let id = register(&ring);
    let dir = sys::tempdir();
    let fifos: Vec<_> = (0..3).map(|i| dir.path().join(format!("fifo{i}"))).collect();
    fifos.iter().for_each(|f| sys::mkfifo(f));
    let paths: Vec<_> = fifos.iter().map(sys::c).collect();
    for (i, path) in paths.iter().enumerate() {
        ring.submit_all(&[by(openat(-1, path, RDONLY, 0).forced_async(), id).ud(i as u64)]);
    }
    check!(ring.quiet(), "nobody writes");
    let null = sys::c("/dev/null");
    let other = by(openat(-1, &null, RDONLY, 0).forced_async(), id);
    check_eq!(opened(ring.res(other)), Res(0), "meanwhile");
    check_eq!(unregister(&ring, id), Res(0), "while they wait");
    check_eq!(ring.res(by(nop(), id)), err(EINVAL), "gone");
    for (i, path) in fifos.iter().enumerate().rev() {
        let writer = sys::open(path.to_str().expect("plain"), libc::O_WRONLY);
        let done = ring.wait();
        check_eq!((done.ud, opened(done.res)), (i as u64, Res(0)));
        sys::close(writer);
    }
}

fn a_wait_is_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let id = register(&ring);
    let dir = sys::tempdir();
    let fifo = dir.path().join("fifo");
    sys::mkfifo(&fifo);
    let path = sys::c(&fifo);
    let mut begun = 0;
    // On a busy machine it may take its time to begin.
    for _ in 0..100 {
        ring.submit_all(&[by(openat(-1, &path, RDONLY, 0).forced_async(), id).ud(1)]);
        check!(ring.quiet(), "nobody writes");
        ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
        let ended = ring.results(2);
        if ended == [(1, err(ECANCELED)), (2, Res(0))] {
            continue;
        }
        check!(interrupted(ended[0].1), "{ended:?}");
        check_eq!(ended[1], (2, err(EALREADY)), "by a worker");
        begun += 1;
        if begun == 3 {
            break;
        }
    }
    check_eq!(begun, 3, "as often as it was to");
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let mut buf = [0; 8];
    ring.submit_all(&[by(sqe::recv(a, &mut buf, 0), id).ud(1)]);
    check!(ring.quiet(), "nothing is there");
    ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))], "a poll");
    let limit = ms(20);
    let waiting = by(sqe::recv(a, &mut buf, 0), id).ud(1).link();
    ring.submit_all(&[waiting, link_timeout(&limit, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, err(libc::ETIME))], "a time limit");
    sys::write(b, b"x");
    check_eq!(ring.res(by(sqe::recv(a, &mut buf, 0), id)), Res(1), "after all that");
}

fn many_completions_of_one_request(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let id = register(&ring);
    let memory = sys::buffer(4096);
    let mut bufs = BufRing::register(&ring, 16, 2, 0);
    for i in 0..8 {
        bufs.add(&memory[i * 16..][..16], i as u16);
    }
    let (a, b) = sys::socketpair(SOCK_STREAM);
    let recv = select(op(Opcode::Recv, a, 0, 0, 0), 2)
        .with(|s| s.ioprio = raw::IORING_RECV_MULTISHOT as u16);
    ring.submit_all(&[by(recv, id).ud(1)]);
    for i in 0..4 {
        sys::write(b, b"1234");
        let done = ring.wait();
        check_eq!((done.res, done.more()), (Res(4), true), "{i}");
        check_eq!(&memory[i * 16..][..4], b"1234");
    }
    sys::close(b);
    let done = ring.wait();
    check_eq!((done.res, done.more()), (Res(0), false), "the end");
    let (listener, address) = sys::tcp_listener();
    let accept = sqe::accept(listener, 0).with(|s| s.ioprio = raw::IORING_ACCEPT_MULTISHOT as u16);
    ring.submit_all(&[by(accept, id).ud(2)]);
    for i in 0..3 {
        sys::tcp_connect(address);
        let done = ring.wait();
        check_eq!((done.ud, opened(done.res), done.more()), (2, Res(0), true), "{i}");
    }
    ring.submit_all(&[cancel(2, -1, 0).ud(3)]);
    check_eq!(ring.results(2), [(2, err(ECANCELED)), (3, Res(0))]);
}

fn an_sq_thread_issues_with_it(abi: &Abi) {
    if !is_root() {
        return;
    }
    let mut ring = Ring::build(abi, 8, params(raw::IORING_SETUP_SQPOLL));
    let id = nobody(&ring);
    let dir = sys::tempdir();
    let (_, path) = secret(dir.path());
    let mut run = |sqe: Sqe| {
        ring.push(sqe);
        ring.enter(1, 0, raw::IORING_ENTER_SQ_WAKEUP);
        opened(ring.wait().res)
    };
    let plain = openat(-1, &path, RDONLY, 0);
    check_eq!(run(by(plain, id)), err(EACCES));
    check_eq!(run(plain), Res(0), "the creator's");
    check_eq!(run(by(plain, 7)), err(EINVAL), "unknown");
}

fn calls_of_all_kinds_go_on_with_it(abi: &Abi) {
    let mut ring = Ring::new(abi, 32);
    let id = register(&ring);
    let file = sys::file_with(b"0123456789");
    let (r, w) = sys::pipe();
    let mut buf = [0; 10];
    check_eq!(ring.res(by(sqe::read(file, &mut buf, 2), id)), Res(8));
    check_eq!(&buf[..8], b"23456789");
    check_eq!(ring.res(by(sqe::write(file, b"ab", 0).forced_async(), id)), Res(2));
    check_eq!(ring.res(by(sqe::fsync(file, 0), id)), Res(0));
    let mut iov = [sys::iovec(&mut buf)];
    check_eq!(ring.res(by(sqe::readv(file, &iov, 0), id)), Res(10));
    check_eq!(&buf, b"ab23456789");
    iov[0].iov_len = 3;
    ring.submit_all(&[by(sqe::read(r, &mut [0; 4], 0), id).ud(1)]);
    ring.submit_all(&[by(sqe::writev(w, &iov, 0), id).ud(2)]);
    check_eq!(ring.results(2), [(1, Res(3)), (2, Res(3))]);
    let splice = op(Opcode::Splice, w, u64::MAX, 4, u64::MAX).with(|s| s.file_index = file as u32);
    sys::seek(file, 0, libc::SEEK_SET);
    check_eq!(ring.res(by(splice, id)), Res(4));
    let limit = ms(1);
    check_eq!(ring.res(by(sqe::timeout(&limit, 0, 0), id)), err(libc::ETIME));
    check_eq!(ring.res(by(sqe::poll_add(r, libc::POLLIN as u32), id)), Res(libc::POLLIN as i64));
    let mut many = Vec::new();
    for i in 0..16 {
        many.push(by(sqe::read(file, &mut [0; 1], 0).forced_async(), id).ud(i).link());
    }
    ring.submit_all(&many);
    check_eq!(ring.results(16), (0..16).map(|i| (i, Res(1))).collect::<Vec<_>>());
    check_eq!(ring.res(by(sqe::close(r), id)), Res(0));
    check_eq!(sys::is_open(r), false);
}

family!["personalities", modes;
    numbers,
    what_is_asked_before_the_personality,
    somebody_elses_file,
    what_was_registered_outlives_the_privilege,
    a_thread_with_credentials_of_its_own,
    owners_of_what_is_made,
    sockets_tell_who_it_was,
    messages_tell_who_sent_them,
    waits_do_not_hold_each_other_up,
    a_wait_is_cancelled,
    many_completions_of_one_request,
    an_sq_thread_issues_with_it,
    calls_of_all_kinds_go_on_with_it,
];
