//! What WAITID tells the program about a child: six fields of a `siginfo_t`.

use crate::usercopy;
use soloring_abi::Errno;

/// `si_signo`, `si_errno`, `si_code`, `si_pid`, `si_uid`, `si_status`; all zero when there is nothing to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildInfo(pub [u32; 6]);

impl ChildInfo {
    /// Takes the fields out of a whole `siginfo_t`, given as 32-bit words.
    pub fn of(words: &[u32; 32]) -> Self {
        ChildInfo([words[0], words[1], words[2], words[4], words[5], words[6]])
    }

    /// Whether it tells of a child.
    pub fn is_some(&self) -> bool {
        self.0[3] != 0
    }

    /// Writes the fields, and nothing between and behind them, to the program's `siginfo_t` at `addr`, unless that is 0.
    ///
    /// # Errors
    /// EFAULT.
    pub fn tell(&self, addr: u64) -> Result<(), Errno> {
        if addr == 0 {
            return Ok(());
        }
        usercopy::write_slice(addr, &self.0[..3])?;
        usercopy::write_slice(addr.wrapping_add(16), &self.0[3..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_fields_are_written() {
        let mut words = [9u32; 32];
        ChildInfo([1, 2, 3, 4, 5, 6]).tell(words.as_mut_ptr() as u64).unwrap();
        assert_eq!(words[..8], [1, 2, 3, 9, 4, 5, 6, 9]);
        assert_eq!(ChildInfo::of(&words), ChildInfo([1, 2, 3, 4, 5, 6]));
        assert_eq!(ChildInfo::default().tell(0), Ok(()));
        assert_eq!(ChildInfo::default().tell(8), Err(Errno::EFAULT));
    }
}
