//! RENAMEAT, UNLINKAT, MKDIRAT, SYMLINKAT, LINKAT.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, op};
use crate::sys;
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, EBADF, EEXIST, EFAULT, EINVAL,
    EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY,
};
use soloring_abi::{Opcode, Sqe};
use std::ffi::{CStr, CString};
use std::path::Path;

/// Makes one field of an entry bad.
type Change = fn(&mut Sqe);

fn rename(from: i32, old: &CStr, to: i32, new: &CStr, flags: u32) -> Sqe {
    op(Opcode::Renameat, from, old.as_ptr() as u64, to as u32, new.as_ptr() as u64)
        .with(|s| s.op_flags = flags)
}

fn unlink(dir: i32, name: &CStr, flags: i32) -> Sqe {
    op(Opcode::Unlinkat, dir, name.as_ptr() as u64, 0, 0).with(|s| s.op_flags = flags as u32)
}

fn mkdir(dir: i32, name: &CStr, mode: u32) -> Sqe {
    op(Opcode::Mkdirat, dir, name.as_ptr() as u64, mode, 0)
}

fn symlink(target: &CStr, dir: i32, name: &CStr) -> Sqe {
    op(Opcode::Symlinkat, dir, target.as_ptr() as u64, 0, name.as_ptr() as u64)
}

fn link(from: i32, old: &CStr, to: i32, new: &CStr, flags: i32) -> Sqe {
    op(Opcode::Linkat, from, old.as_ptr() as u64, to as u32, new.as_ptr() as u64)
        .with(|s| s.op_flags = flags as u32)
}

/// A directory, its descriptor, and a function that makes names in it.
fn place() -> (tempfile::TempDir, i32) {
    let dir = sys::tempdir();
    let fd = sys::open(dir.path().to_str().unwrap(), libc::O_DIRECTORY);
    (dir, fd)
}

fn under(dir: &Path, name: &str) -> CString {
    sys::c(dir.join(name))
}

fn make_and_remove_directories(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    let full = under(dir.path(), "a");
    check_eq!(ring.res(mkdir(AT_FDCWD, &full, 0o700)), Res(0));
    check!(dir.path().join("a").is_dir(), "made");
    let mode = std::os::unix::fs::MetadataExt::mode(&dir.path().join("a").metadata().unwrap());
    check_eq!(mode & 0o777, 0o700);
    check_eq!(ring.res(mkdir(AT_FDCWD, &full, 0o700)), err(EEXIST));
    check_eq!(ring.res(mkdir(fd, c"a/b", 0o700)), Res(0), "relative");
    check_eq!(ring.res(mkdir(fd, c"none/b", 0o700)), err(ENOENT));
    check_eq!(ring.res(mkdir(-1, c"c", 0o700)), err(EBADF));
    check_eq!(
        ring.res(mkdir(-1, &full, 0o700)),
        err(EEXIST),
        "an absolute name needs no directory"
    );
    check_eq!(ring.res(unlink(fd, c"a", AT_REMOVEDIR)), err(ENOTEMPTY));
    check_eq!(ring.res(unlink(fd, c"a/b", 0)), err(EISDIR));
    check_eq!(ring.res(unlink(fd, c"a/b", AT_REMOVEDIR)), Res(0));
    check_eq!(ring.res(unlink(AT_FDCWD, &full, AT_REMOVEDIR)), Res(0));
    check_eq!(ring.res(unlink(AT_FDCWD, &full, AT_REMOVEDIR)), err(ENOENT));
}

fn unlink_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    std::fs::write(dir.path().join("f"), b"x").unwrap();
    check_eq!(ring.res(unlink(fd, c"f", AT_REMOVEDIR)), err(ENOTDIR));
    check_eq!(ring.res(unlink(fd, c"f/x", 0)), err(ENOTDIR));
    check_eq!(ring.res(unlink(fd, c"f", 0).forced_async()), Res(0));
    check_eq!(ring.res(unlink(fd, c"f", 0)), err(ENOENT));
    check_eq!(ring.res(unlink(fd, c"f", 1)), err(EINVAL), "unknown flag");
}

fn renames(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    std::fs::write(dir.path().join("a"), b"1").unwrap();
    std::fs::write(dir.path().join("b"), b"22").unwrap();
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map(|m| m.len()).ok();
    check_eq!(ring.res(rename(fd, c"a", fd, c"b", libc::RENAME_NOREPLACE)), err(EEXIST));
    check_eq!(ring.res(rename(fd, c"a", fd, c"b", libc::RENAME_EXCHANGE)), Res(0));
    check_eq!((size("a"), size("b")), (Some(2), Some(1)), "exchanged");
    check_eq!(ring.res(rename(fd, c"a", AT_FDCWD, &under(dir.path(), "b"), 0)), Res(0));
    check_eq!((size("a"), size("b")), (None, Some(2)), "replaced");
    check_eq!(ring.res(rename(fd, c"a", fd, c"b", 0)), err(ENOENT));
    check_eq!(ring.res(rename(fd, c"b", -1, c"c", 0)), err(EBADF));
    check_eq!(ring.res(rename(fd, c"b", fd, c"c", 1 << 20)), err(EINVAL), "unknown flag");
    let both = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    check_eq!(ring.res(rename(fd, c"b", fd, c"c", both)), err(EINVAL), "flags that exclude");
}

fn symbolic_links(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    check_eq!(ring.res(symlink(c"no/where", fd, c"l")), Res(0));
    let target = std::fs::read_link(dir.path().join("l")).unwrap();
    check_eq!(target, Path::new("no/where"));
    check_eq!(ring.res(symlink(c"other", fd, c"l")), err(EEXIST));
    check_eq!(ring.res(symlink(c"other", -1, c"m")), err(EBADF));
    check_eq!(ring.res(symlink(c"", fd, c"m")), err(ENOENT), "an empty target");
}

fn hard_links(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    std::fs::write(dir.path().join("f"), b"x").unwrap();
    let inode = |name: &str| {
        let meta = std::fs::symlink_metadata(dir.path().join(name));
        meta.map(|m| std::os::unix::fs::MetadataExt::ino(&m)).ok()
    };
    check_eq!(ring.res(link(fd, c"f", fd, c"g", 0)), Res(0));
    check_eq!(inode("f"), inode("g"));
    check_eq!(ring.res(link(fd, c"f", fd, c"g", 0)), err(EEXIST));
    check_eq!(ring.res(link(fd, c"none", fd, c"h", 0)), err(ENOENT));
    check_eq!(ring.res(link(fd, c"f", fd, c"h", 1)), err(EINVAL), "unknown flag");
    std::os::unix::fs::symlink("f", dir.path().join("s")).unwrap();
    check_eq!(ring.res(link(fd, c"s", fd, c"s2", 0)), Res(0));
    check_eq!(inode("s"), inode("s2"), "the link itself");
    check_eq!(ring.res(link(fd, c"s", fd, c"f2", AT_SYMLINK_FOLLOW)), Res(0));
    check_eq!(inode("f"), inode("f2"), "what it names");
    let file = sys::open(dir.path().join("f").to_str().unwrap(), libc::O_RDONLY);
    check_eq!(ring.res(link(file, c"", fd, c"e", 0)), err(ENOENT), "an empty name");
    check_eq!(ring.res(link(file, c"", fd, c"e", AT_EMPTY_PATH)), Res(0), "AT_EMPTY_PATH");
    check_eq!(inode("f"), inode("e"));
    check_eq!(ring.res(link(fd, c"f", fd, c"", AT_EMPTY_PATH)), err(ENOENT), "new name empty");
}

fn the_names_may_be_gone_after_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    let page = sys::buffer(4096);
    for i in 0..20 {
        let (old, new) = (format!("d{i}"), format!("e{i}"));
        let names = page.as_mut_ptr() as u64;
        let mut make = mkdir(fd, c"", 0o700).ud(1);
        let mut move_it = rename(fd, c"", fd, c"", 0).ud(2);
        page[..old.len()].copy_from_slice(old.as_bytes());
        page[old.len()] = 0;
        page[100..100 + new.len()].copy_from_slice(new.as_bytes());
        page[100 + new.len()] = 0;
        make.addr = names;
        move_it.addr = names;
        move_it.off = names + 100;
        ring.submit_all(&[make.link(), move_it]);
        page[..200].fill(b'!');
        check_eq!(ring.results(2), [(1, Res(0)), (2, Res(0))]);
        check!(dir.path().join(new).is_dir(), "moved");
    }
}

fn bad_names(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (_dir, fd) = place();
    let long = sys::c("x".repeat(5000));
    let component = sys::c("x".repeat(300));
    let good = c"name";
    for sqe in [
        mkdir(fd, good, 0o700),
        unlink(fd, good, 0),
        symlink(good, fd, good),
        rename(fd, good, fd, good, 0),
        link(fd, good, fd, good, 0),
    ] {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        for (addr, want) in [
            (0, EFAULT),
            (1, EFAULT),
            (sys::forbidden_page(), EFAULT),
            (long.as_ptr() as u64, ENAMETOOLONG),
            (c"".as_ptr() as u64, ENOENT),
        ] {
            check_eq!(ring.res(sqe.with(|s| s.addr = addr)), err(want), "{what}: first name");
            if sqe.off != 0 {
                check_eq!(ring.res(sqe.with(|s| s.off = addr)), err(want), "{what}: second name");
            }
        }
    }
    check_eq!(ring.res(mkdir(fd, &component, 0o700)), err(ENAMETOOLONG), "a long component");
}

/// A bad name is found at submission: the entries behind it stay in the queue.
fn a_bad_name_stops_the_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (_dir, fd) = place();
    ring.push_all(&[mkdir(fd, c"", 0o700).ud(1), mkdir(fd, c"a", 0o700).ud(2)]);
    check_eq!(ring.enter(2, 0, 0), Res(1), "entries taken");
    check_eq!(ring.results(1), [(1, err(ENOENT))]);
    check_eq!(ring.enter(1, 0, 0), Res(1));
    check_eq!(ring.results(1), [(2, Res(0))]);
}

fn unused_fields_are_zero(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (_dir, fd) = place();
    let name = c"name";
    let bad: &[(Sqe, &[Change])] = &[
        (mkdir(fd, name, 0o700), &[|s| s.off = 1, |s| s.op_flags = 1]),
        (unlink(fd, name, 0), &[|s| s.off = 1, |s| s.len = 1]),
        (symlink(name, fd, name), &[|s| s.len = 1, |s| s.op_flags = 1]),
        (rename(fd, name, fd, name, 0), &[]),
        (link(fd, name, fd, name, 0), &[]),
    ];
    for (sqe, changes) in bad {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        let common: [fn(&mut Sqe); 3] =
            [|s| s.buf_index = 1, |s| s.file_index = 1, |s| s.ioprio = 1];
        ring.check_refuses(*sqe, changes);
        ring.check_refuses(*sqe, &common);
        check_eq!(ring.res(sqe.fixed()), err(EBADF), "{what}: IOSQE_FIXED_FILE");
        let both = sqe.fixed().with(|s| s.buf_index = 1);
        check_eq!(ring.res(both), err(EINVAL), "{what}: fields come before the file");
    }
}

/// The kernel does not count a refused change as a failure of its chain: what follows it runs, and a
/// CQE that is to be skipped on success is skipped.
fn a_refused_change_does_not_break_its_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    ring.submit_all(&[
        mkdir(fd, c"a", 0o700).ud(1).link(),
        mkdir(fd, c"a", 0o700).ud(2).link(),
        rename(fd, c"none", fd, c"z", 0).ud(3).link(),
        unlink(fd, c"none", AT_REMOVEDIR).ud(4).link(),
        symlink(c"x", -1, c"z").ud(5).link(),
        link(fd, c"none", fd, c"z", 0).ud(6).link(),
        mkdir(fd, c"none/at/all", 0o700).ud(7).link().skip(),
        mkdir(fd, c"last", 0o700).ud(8),
    ]);
    let want = [
        (1, Res(0)),
        (2, err(EEXIST)),
        (3, err(ENOENT)),
        (4, err(ENOENT)),
        (5, err(EBADF)),
        (6, err(ENOENT)),
        (8, Res(0)),
    ];
    check_eq!(ring.results(7), want);
    check!(dir.path().join("last").is_dir(), "the last one");
}

/// What is found at submission does break it.
fn a_bad_name_breaks_its_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (dir, fd) = place();
    ring.submit_all(&[
        mkdir(fd, c"a", 0o700).ud(1).link(),
        mkdir(fd, c"", 0o700).ud(2).link(),
        mkdir(fd, c"b", 0o700).ud(3),
    ]);
    let cancelled = err(libc::ECANCELED);
    check_eq!(ring.results(3), [(1, cancelled), (2, err(ENOENT)), (3, cancelled)]);
    check!(!dir.path().join("a").exists() && !dir.path().join("b").exists(), "made");
}

family!["paths", modes;
    make_and_remove_directories,
    unlink_files,
    renames,
    symbolic_links,
    hard_links,
    the_names_may_be_gone_after_submission,
    bad_names,
    a_bad_name_stops_the_submission,
    unused_fields_are_zero,
    a_refused_change_does_not_break_its_chain,
    a_bad_name_breaks_its_chain,
];
