//! Which CPUs workers run on. A mask is bytes: bit n of byte n/8 is CPU n.

use crate::sys;
use std::sync::OnceLock;

/// Every CPU: the kernel takes out those that the process's cpuset does not have.
const ALL: [u8; 1024] = [0xff; 1024];

/// Binds the worker `tid` (0: the calling one).
pub(crate) fn bind(tid: i32, mask: &[u8]) {
    // Refused when no CPU is left; the worker stays where it is, as the kernel's does.
    let _ = sys::sched_setaffinity(tid, mask);
}

/// The CPUs of the process's cpuset, whatever the calling thread is bound to.
pub(crate) fn allowed() -> Result<Vec<u8>, i32> {
    let own = sys::sched_getaffinity(0)?;
    // Widening moves the thread nowhere. Where it is refused, what the thread has is what there is.
    if sys::sched_setaffinity(0, &ALL).is_err() {
        return Ok(own);
    }
    let all = sys::sched_getaffinity(0);
    let _ = sys::sched_setaffinity(0, &own);
    all
}

/// The CPUs that this machine may ever have; empty when it does not tell.
pub(crate) fn possible() -> &'static [u8] {
    static POSSIBLE: OnceLock<Vec<u8>> = OnceLock::new();
    POSSIBLE.get_or_init(|| {
        let list = std::fs::read_to_string("/sys/devices/system/cpu/possible");
        list.ok().and_then(|list| parse(&list)).unwrap_or_default()
    })
}

/// A CPU list as the kernel prints it: "0-3,8".
fn parse(list: &str) -> Option<Vec<u8>> {
    let mut mask = vec![0; ALL.len()];
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for cpu in first.parse::<usize>().ok()?..=last.parse().ok()? {
            *mask.get_mut(cpu / 8)? |= 1 << (cpu % 8);
        }
    }
    Some(mask)
}

/// Whether each CPU of `mask` that the machine has is allowed.
pub(crate) fn acceptable(mask: &[u8], possible: &[u8], allowed: &[u8]) -> bool {
    let byte = |of: &[u8], i: usize| of.get(i).copied().unwrap_or(0);
    mask.iter().enumerate().all(|(i, &bits)| bits & byte(possible, i) & !byte(allowed, i) == 0)
}

#[cfg(test)]
mod tests {
    use super::{acceptable, parse, possible};

    #[test]
    fn lists_become_masks() {
        let mask = parse("0-2,9\n").unwrap();
        assert_eq!(mask[..3], [0b111, 0b10, 0]);
        assert_eq!(parse("0\n").unwrap()[0], 1);
        assert!(parse("0-x").is_none());
        assert!(parse("0-99999999").is_none());
    }

    #[test]
    fn this_machine_has_a_cpu() {
        assert!(possible().iter().any(|&byte| byte != 0));
    }

    #[test]
    fn a_cpu_outside_the_cpuset_is_refused_one_outside_the_machine_is_not() {
        assert!(acceptable(&[0b0001], &[0b0111], &[0b0011]));
        assert!(!acceptable(&[0b0101], &[0b0111], &[0b0011]));
        assert!(acceptable(&[0b1001, 1], &[0b0111], &[0b0011]));
        assert!(acceptable(&[0], &[0b0111], &[0b0011]));
        assert!(acceptable(&[], &[0b0111], &[0b0011]));
    }
}
