//! What a set-up that fails leaves behind: nothing.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::nop;
use crate::sys;
use libc::{EBUSY, EFAULT, EINVAL, EMFILE, ENOMEM, ENXIO};
use soloring_abi::{Params, raw};
use std::time::{Duration, Instant};

const ATTACH: u32 = raw::IORING_SETUP_ATTACH_WQ;
const CQSIZE: u32 = raw::IORING_SETUP_CQSIZE;
const DEFER: u32 = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
const NO_MMAP: u32 = raw::IORING_SETUP_NO_MMAP;
const SQPOLL: u32 = raw::IORING_SETUP_SQPOLL;
const SQ_AFF: u32 = raw::IORING_SETUP_SQ_AFF;

/// A look at what this process holds, which needs no descriptor that is not open yet.
pub(super) struct Holdings {
    fds: *mut libc::DIR,
    tasks: *mut libc::DIR,
    maps: i32,
    /// Pages for NO_MMAP: what becomes of them is not held by the ring.
    given: std::ops::Range<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    fds: Vec<String>,
    threads: usize,
    ring_mappings: usize,
}

impl Holdings {
    pub(super) fn new() -> Holdings {
        // SAFETY: constant paths; the directories stay open as long as the process.
        let (fds, tasks) = unsafe {
            (libc::opendir(c"/proc/self/fd".as_ptr()), libc::opendir(c"/proc/self/task".as_ptr()))
        };
        assert!(!fds.is_null() && !tasks.is_null());
        Holdings { fds, tasks, maps: sys::open("/proc/self/maps", libc::O_RDONLY), given: 0..0 }
    }

    fn give_pages(&mut self) -> u64 {
        let pages = sys::buffer(1 << 18);
        self.given = pages.as_ptr() as u64..pages.as_ptr() as u64 + pages.len() as u64;
        self.given.start
    }

    fn entries(dir: *mut libc::DIR) -> Vec<String> {
        let mut names = Vec::new();
        // SAFETY: an open directory of ours; a name is read before the next entry is asked for.
        unsafe {
            libc::rewinddir(dir);
            while let Some(entry) = libc::readdir(dir).as_ref() {
                let name = std::ffi::CStr::from_ptr(entry.d_name.as_ptr());
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names
    }

    fn now(&self) -> Held {
        sys::seek(self.maps, 0, libc::SEEK_SET);
        let (mut text, mut part) = (Vec::new(), vec![0; 1 << 16]);
        while let Res(n @ 1..) = sys::read(self.maps, &mut part) {
            text.extend_from_slice(&part[..n as usize]);
        }
        let text = String::from_utf8_lossy(&text);
        let of_a_ring = |line: &&str| {
            let at = line.split('-').next().and_then(|at| u64::from_str_radix(at, 16).ok());
            (line.contains("memfd:soloring") || line.contains("[io_uring]"))
                && !at.is_some_and(|at| self.given.contains(&at))
        };
        Held {
            fds: Self::entries(self.fds),
            threads: Self::entries(self.tasks).len(),
            ring_mappings: text.lines().filter(of_a_ring).count(),
        }
    }

    /// As [`Holdings::now`], once what is on its way out is out.
    pub(super) fn settled(&self) -> Held {
        let (mut last, mut same) = (self.now(), 0);
        let end = Instant::now() + Duration::from_secs(3);
        while same < 40 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.now();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Checks that nothing came to what there was; threads may take a moment to go.
    pub(super) fn unchanged(&self, before: &Held, what: &str) {
        let end = Instant::now() + Duration::from_secs(3);
        while self.now() != *before && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        check_eq!(self.now(), *before, "held after {what}");
    }
}

fn refused_arguments(abi: &Abi) {
    // What is made once for a process is made by these two.
    drop(Ring::build(abi, 4, params(0)));
    let plain = Ring::build(abi, 4, params(0));
    let mut holdings = Holdings::new();
    let (pages, half) = (holdings.give_pages(), sys::read_only_page());
    let before = holdings.now();
    let with = |flags, change: &dyn Fn(&mut Params)| {
        let mut p = params(flags);
        change(&mut p);
        p
    };
    let nowhere = |p: &mut Params| p.wq_fd = sys::unused_fd() as u32;
    let at = |rings: u64, sqes: u64| {
        move |p: &mut Params| (p.cq_off.user_addr, p.sq_off.user_addr) = (rings, sqes)
    };
    for (what, mut p, wants) in [
        ("an unknown flag", params(1 << 30), &[EINVAL][..]),
        ("no CQ entries", params(CQSIZE), &[EINVAL]),
        ("attached to nothing", with(ATTACH, &nowhere), &[ENXIO]),
        ("attached to nothing, SQPOLL", with(ATTACH | SQPOLL, &nowhere), &[ENXIO]),
        (
            "attached to a ring without a thread",
            with(ATTACH | SQPOLL, &|p| p.wq_fd = plain.fd as u32),
            &[EINVAL],
        ),
        (
            "a CPU that does not exist",
            with(SQPOLL | SQ_AFF, &|p| p.sq_thread_cpu = 100_000),
            &[EINVAL],
        ),
        ("no memory", with(NO_MMAP, &at(0, 0)), &[EFAULT, EINVAL]),
        ("no memory for the entries", with(NO_MMAP, &at(pages, 0)), &[EFAULT, EINVAL]),
        ("memory that is not aligned", with(NO_MMAP, &at(pages, pages + 8192 + 8)), &[EINVAL]),
        ("memory that cannot be written", with(NO_MMAP, &at(pages, half)), &[EFAULT]),
        ("memory far away", with(NO_MMAP, &at(pages, 1 << 62)), &[EFAULT, EINVAL]),
    ] {
        for _ in 0..3 {
            let res = abi.setup(8, &mut p);
            check!(wants.iter().any(|e| res == err(*e)), "{what} = {res}");
        }
        holdings.unchanged(&before, what);
    }
    for flags in [0, DEFER, SQPOLL, CQSIZE] {
        // Readable and not writable: everything is there when the parameters are to be written back.
        let page = sys::buffer(4096);
        let at = page.as_mut_ptr().cast::<Params>();
        let p = with(flags, &|p| (p.cq_entries, p.sq_thread_idle) = (32, 1));
        // SAFETY: the beginning of a page of ours; read-only from then on.
        unsafe {
            at.write(p);
            assert_eq!(libc::mprotect(at.cast(), 4096, libc::PROT_READ), 0);
        }
        for _ in 0..3 {
            check_eq!(abi.setup_at(8, at), err(EFAULT), "flags {flags:#x}");
        }
        holdings.unchanged(&before, &format!("EFAULT with flags {flags:#x}"));
    }
}

fn no_index_is_left(abi: &Abi) {
    let mut holdings = Holdings::new();
    let pages = holdings.give_pages();
    let flags = NO_MMAP | raw::IORING_SETUP_REGISTERED_FD_ONLY;
    let set_up = |i: u64| {
        let mut p = params(flags);
        (p.cq_off.user_addr, p.sq_off.user_addr) = (pages + 8192 * i, pages + 8192 * i + 4096);
        abi.setup(4, &mut p)
    };
    for i in 0..16 {
        check_eq!(set_up(i), Res(i as i64), "an index");
    }
    let before = holdings.now();
    for _ in 0..3 {
        check_eq!(set_up(16), err(EBUSY));
    }
    holdings.unchanged(&before, "one ring too many");
}

/// Set-ups with room for ever fewer descriptors. Downwards: raising the limit again is not for everybody.
fn fewer_and_fewer_descriptors(abi: &Abi) {
    let mut holdings = Holdings::new();
    let pages = holdings.give_pages();
    let open = sys::dup(0) as u64 + 1;
    let before = holdings.now();
    let mut made = 0;
    for room in (0..12).rev() {
        sys::limit_descriptors(open + room);
        for flags in [0, DEFER, SQPOLL, NO_MMAP] {
            let mut p = params(flags);
            p.sq_thread_idle = 1;
            (p.cq_off.user_addr, p.sq_off.user_addr) = (pages, pages + 8192);
            let res = abi.setup(8, &mut p);
            if res.is_err() {
                check_eq!(res, err(EMFILE), "room for {room}, flags {flags:#x}");
            } else {
                made += 1;
                abi.close(res.0 as i32);
            }
            holdings.unchanged(&before, &format!("flags {flags:#x} with room for {room}"));
        }
    }
    check!(made >= 4, "with room for some, rings are made: {made}");
}

fn too_few_descriptors(abi: &Abi) {
    drop(Ring::build(abi, 4, params(0)));
    fewer_and_fewer_descriptors(abi);
}

fn too_few_descriptors_from_the_beginning(abi: &Abi) {
    fewer_and_fewer_descriptors(abi);
}

fn too_little_memory(abi: &Abi) {
    drop(Ring::build(abi, 4, params(0)));
    let holdings = Holdings::new();
    let before = holdings.now();
    // 2 MiB of completions and 4 MiB of entries, of which the program maps nothing.
    let flags = raw::IORING_SETUP_SQE128 | raw::IORING_SETUP_CQE32;
    for room in [1 << 20, 3 << 20, 5 << 20] {
        sys::limit_memory(Some(room));
        for _ in 0..3 {
            let res = abi.setup(32768, &mut params(flags));
            if res.is_err() {
                check_eq!(res, err(ENOMEM), "room for {room} bytes");
            } else {
                // The kernel's own memory is not the program's.
                abi.close(res.0 as i32);
            }
        }
        sys::limit_memory(None);
        holdings.unchanged(&before, "a ring that is too large");
    }
    check_eq!(Ring::build(abi, 4, params(0)).res(nop()), Res(0), "and then one that fits");
}

family!["leaks", once;
    refused_arguments,
    no_index_is_left,
    too_few_descriptors,
    too_few_descriptors_from_the_beginning,
    too_little_memory,
];
