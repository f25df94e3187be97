//! What is known of the program's descriptors, and asked seldom: which transfers need a worker.
//!
//! RWF_NOWAIT waits for the device in a direct transfer, and some file systems (ext4) have no form of a buffered write that
//! does not wait. What is known decides about speed alone, never about results; it may be out of date for a few transfers
//! after the program has changed a flag with fcntl(2), or has closed the descriptor where its closes are not announced.

use crate::sys;
use std::sync::atomic::{AtomicU32, Ordering};

/// Descriptors remembered; each has one place.
const REMEMBERED: usize = 16;
/// Transfers after which the kernel is asked again.
const USES: u8 = 64;

/// How often descriptors were closed or replaced, as far as it was announced.
static CLOSES: AtomicU32 = AtomicU32::new(0);

/// A descriptor of the program is about to name another file, or none.
#[inline]
pub fn forget_answers() {
    CLOSES.fetch_add(1, Ordering::Relaxed);
}

/// Storage where every write has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlowWrites {
    /// Under which workers do these writes one after the other; `None` if they may overtake each other.
    pub hash: Option<u64>,
}

#[derive(Clone, Copy)]
struct Answer {
    fd: i32,
    direct: bool,
    slow_writes: Option<SlowWrites>,
    uses_left: u8,
}

const UNKNOWN: Answer = Answer { fd: -1, direct: false, slow_writes: None, uses_left: 0 };

/// What one ring knows.
pub struct Facts {
    answers: [Answer; REMEMBERED],
    closes: u32,
}

impl Default for Facts {
    fn default() -> Self {
        Facts { answers: [UNKNOWN; REMEMBERED], closes: 0 }
    }
}

impl Facts {
    /// What is known of `fd` and still holds, as far as can be said.
    #[inline]
    fn current(&mut self, fd: i32) -> Option<&mut Answer> {
        let answer = &mut self.answers[fd as usize % REMEMBERED];
        let current = self.closes == CLOSES.load(Ordering::Relaxed);
        (current && answer.fd == fd && answer.uses_left > 0).then_some(answer)
    }

    /// Whether this descriptor is open O_DIRECT. False for one that is not open.
    #[inline]
    pub fn is_direct(&mut self, fd: i32) -> bool {
        if let Some(answer) = self.current(fd) {
            answer.uses_left -= 1;
            return answer.direct;
        }
        self.ask(fd).direct
    }

    /// Notes that writes to this storage cannot be told not to wait. `key` stands for the regular file that it is.
    #[cold]
    pub fn note_slow_writes(&mut self, fd: i32, key: Option<u64>) {
        let answer = self.ask(fd);
        answer.slow_writes = Some(SlowWrites { hash: key.filter(|_| !answer.direct) });
    }

    /// What was noted, if it is to be relied upon once more.
    #[inline]
    pub fn slow_writes(&mut self, fd: i32) -> Option<SlowWrites> {
        let answer = self.current(fd)?;
        answer.uses_left -= 1;
        answer.slow_writes
    }

    #[cold]
    fn ask(&mut self, fd: i32) -> &mut Answer {
        let closes = CLOSES.load(Ordering::Relaxed);
        if self.closes != closes {
            *self = Facts { closes, ..Facts::default() };
        }
        let flags = sys::fcntl(fd, libc::F_GETFL, 0);
        let direct = flags.is_ok_and(|flags| flags as i32 & libc::O_DIRECT != 0);
        let answer = &mut self.answers[fd as usize % REMEMBERED];
        *answer = Answer { fd, direct, slow_writes: None, uses_left: USES };
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn is_asked_again_after_a_close_and_after_a_while() {
        let path = std::env::temp_dir().join(format!("soloring-facts-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let fd = file.as_raw_fd();
        let mut flags = Facts::default();
        assert!(!flags.is_direct(fd));
        let flip = |on: i32| sys::fcntl(fd, libc::F_SETFL, on as usize);
        if flip(libc::O_DIRECT).is_err() {
            return;
        }
        let uses = (0..1000).take_while(|_| !flags.is_direct(fd)).count();
        assert!(uses <= USES as usize, "{uses}");
        flip(0).unwrap();
        forget_answers();
        assert!(!flags.is_direct(fd));
        assert!(!flags.is_direct(-1));
    }

    #[test]
    fn slow_writes_are_tried_again_after_a_close_and_after_a_while() {
        let mut facts = Facts::default();
        assert_eq!(facts.slow_writes(3), None);
        let slow = SlowWrites { hash: Some(7) };
        let note = |facts: &mut Facts| facts.note_slow_writes(1 << 20, Some(7));
        note(&mut facts);
        assert_eq!((facts.slow_writes(1 << 20), facts.slow_writes(3)), (Some(slow), None));
        let uses = (0..1000).take_while(|_| facts.slow_writes(1 << 20).is_some()).count();
        assert!(uses <= USES as usize, "{uses}");
        note(&mut facts);
        forget_answers();
        assert_eq!(facts.slow_writes(1 << 20), None);
    }
}
