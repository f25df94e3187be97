//! Which of the program's descriptors were opened O_DIRECT, asked seldom.
//!
//! RWF_NOWAIT waits for the device in a direct transfer, so those go to a worker. An answer decides about
//! speed alone, never about results; it may be out of date for a few transfers after the program has changed
//! the flag with fcntl(2), or has closed the descriptor where its closes are not announced.

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

#[derive(Clone, Copy)]
struct Answer {
    fd: i32,
    direct: bool,
    uses_left: u8,
}

/// The answers of one ring.
pub struct DirectFlags {
    answers: [Answer; REMEMBERED],
    closes: u32,
}

impl Default for DirectFlags {
    fn default() -> Self {
        let none = Answer { fd: -1, direct: false, uses_left: 0 };
        DirectFlags { answers: [none; REMEMBERED], closes: 0 }
    }
}

impl DirectFlags {
    /// Whether this descriptor is open O_DIRECT. False for one that is not open.
    #[inline]
    pub fn is_direct(&mut self, fd: i32) -> bool {
        let answer = &mut self.answers[fd as usize % REMEMBERED];
        let current = self.closes == CLOSES.load(Ordering::Relaxed);
        if current && answer.fd == fd && answer.uses_left > 0 {
            answer.uses_left -= 1;
            return answer.direct;
        }
        self.ask(fd)
    }

    #[cold]
    fn ask(&mut self, fd: i32) -> bool {
        let closes = CLOSES.load(Ordering::Relaxed);
        if self.closes != closes {
            *self = DirectFlags { closes, ..DirectFlags::default() };
        }
        let flags = sys::fcntl(fd, libc::F_GETFL, 0);
        let direct = flags.is_ok_and(|flags| flags as i32 & libc::O_DIRECT != 0);
        self.answers[fd as usize % REMEMBERED] = Answer { fd, direct, uses_left: USES };
        direct
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn is_asked_again_after_a_close_and_after_a_while() {
        let path = std::env::temp_dir().join(format!("soloring-direct-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let fd = file.as_raw_fd();
        let mut flags = DirectFlags::default();
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
}
