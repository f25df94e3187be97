//! What the filter decides, by running its instructions as the kernel would.

use super::*;

const BASE: i32 = 16384;
const TRAP: u32 = libc::SECCOMP_RET_TRAP | MAGIC as u32;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Interprets the few classic BPF instructions that the filters use.
fn run(code: &[libc::sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(nr.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    args.iter().for_each(|a| data.extend(a.to_ne_bytes()));
    let (mut pc, mut acc) = (0, 0u32);
    loop {
        let i = code[pc];
        pc += 1;
        let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LD => acc = u32::from_ne_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            RET => return i.k,
            JEQ => pc += jump(acc == i.k),
            JGE => pc += jump(acc >= i.k),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn ours(nr: Sysno, args: [u64; 6]) -> u32 {
    run(&program(BASE), AUDIT_ARCH_X86_64, nr.id() as u32, args)
}

#[test]
fn ring_calls_stop_always_and_others_never() {
    for nr in RING_CALLS {
        assert_eq!(ours(nr, [0; 6]), TRAP);
        assert_eq!(ours(nr, [0, 0, 0, 0, 0, COOKIE]), TRAP);
    }
    for nr in [Sysno::read, Sysno::epoll_wait, Sysno::execve, Sysno::munmap, Sysno::openat] {
        assert_eq!(ours(nr, [BASE as u64; 6]), ALLOW);
    }
}

#[test]
fn foreign_callers_get_enosys_for_the_ring_calls_only() {
    for (arch, bit) in [(0x4000_0003, 0), (AUDIT_ARCH_X86_64, X32_BIT)] {
        for nr in 425..=427 {
            assert_eq!(run(&program(BASE), arch, bit | nr, [0; 6]), ENOSYS);
        }
        for nr in [3, 9, 424, 428] {
            assert_eq!(run(&program(BASE), arch, bit | nr, [BASE as u64; 6]), ALLOW);
        }
    }
}

#[test]
fn descriptor_calls_stop_from_the_base_unless_marked() {
    let cases = [
        (Sysno::close, 0),
        (Sysno::dup, 0),
        (Sysno::fcntl, 0),
        (Sysno::dup2, 0),
        (Sysno::dup2, 1),
        (Sysno::dup3, 0),
        (Sysno::dup3, 1),
        (Sysno::epoll_ctl, 0),
        (Sysno::epoll_ctl, 2),
    ];
    for (nr, arg) in cases {
        let with = |fd: u64, mark: u64| {
            let mut args = [3, 3, 3, 3, 3, mark];
            args[arg] = fd;
            ours(nr, args)
        };
        let base = BASE as u64;
        assert_eq!(with(base - 1, 0), ALLOW, "{nr:?}");
        assert_eq!(with(base, 0), TRAP, "{nr:?}");
        assert_eq!(with(base | 7 << 40, 0), TRAP, "only the low half is the descriptor");
        assert_eq!(with(0x7fff_ffff, 0), TRAP, "{nr:?}");
        assert_eq!(with(0x8000_0000, 0), ALLOW, "negative");
        assert_eq!(with(base, COOKIE), ALLOW, "{nr:?}");
        assert_eq!(with(base, COOKIE ^ 1), TRAP, "{nr:?}");
        assert_eq!(with(base, COOKIE ^ 1 << 40), TRAP, "{nr:?}");
    }
    assert_eq!(ours(Sysno::close_range, [3, u64::from(u32::MAX), 0, 0, 0, 0]), TRAP);
    assert_eq!(ours(Sysno::close_range, [3, u64::from(u32::MAX), 0, 0, 0, COOKIE]), ALLOW);
    assert_eq!(ours(Sysno::close_range, [3, 100, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn mmap_stops_on_high_descriptors_only() {
    let map = |flags: u64, fd: u64| ours(Sysno::mmap, [0, 4096, 3, flags, fd, 0]);
    assert_eq!(map(1, BASE as u64), TRAP);
    assert_eq!(map(1 | MMAP_FLAGS_COOKIE, BASE as u64), ALLOW);
    assert_eq!(map(0x22, u64::from(u32::MAX)), ALLOW);
    assert_eq!(map(0x22, u64::MAX), ALLOW);
    assert_eq!(map(1, 5), ALLOW);
}

#[test]
fn sigsys_action_is_kept() {
    let act = |sig: i32, new: u64, old: u64, mark: u64| {
        ours(Sysno::rt_sigaction, [sig as u64, new, old, 8, 0, mark])
    };
    let ignored = libc::SECCOMP_RET_ERRNO;
    assert_eq!(act(libc::SIGSYS, 0x1000, 0, 0), ignored);
    assert_eq!(act(libc::SIGSYS, 0x1_0000_0000, 0, 0), ignored);
    assert_eq!(act(libc::SIGSYS, 0x1000, 0x1000, 0), TRAP);
    assert_eq!(act(libc::SIGSYS, 0x1000, 0x1_0000_0000, 0), TRAP);
    assert_eq!(act(libc::SIGSYS, 0, 0x1000, 0), ALLOW);
    assert_eq!(act(libc::SIGSYS, 0x1000, 0, COOKIE), ALLOW);
    assert_eq!(act(libc::SIGSYS, 0x1000, 0x1000, COOKIE), ALLOW);
    assert_eq!(act(libc::SIGUSR1, 0x1000, 0x1000, 0), ALLOW);
}

#[test]
fn the_probe_tells_the_base() {
    let probe = |base: u64| ours(Sysno::close, [u64::MAX, base, 0, 0, 0, PROBE_COOKIE]);
    assert_eq!(probe(BASE as u64), libc::SECCOMP_RET_ERRNO | PROBE_SAME);
    assert_eq!(probe(99), libc::SECCOMP_RET_ERRNO | PROBE_OTHER);
    assert_eq!(ours(Sysno::close, [u64::MAX, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(installed(BASE), Installed::No, "the test process runs without the filter");
}

#[test]
fn the_container_filter_denies_the_ring_calls() {
    let deny = |nr| run(&deny_program(), AUDIT_ARCH_X86_64, nr, [0; 6]);
    let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    assert_eq!([424, 425, 426, 427, 428].map(deny), [ALLOW, eperm, eperm, eperm, ALLOW]);
}
