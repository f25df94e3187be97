//! The memory region of a ring: where a program leaves the arguments of its waits.

use crate::fds;
use crate::usercopy::{self, Plain};
use soloring_abi::Errno;
use soloring_ringmem::Mapping;

/// Where the program maps a region of the ring's own memory (`IORING_MAP_OFF_PARAM_REGION`).
pub const OFF_REGION: u64 = 0x2000_0000;

pub struct Region {
    /// First byte, in the program's memory or in ours.
    at: u64,
    /// Bytes.
    size: u64,
    /// Our memory, which the program maps.
    own: Option<Mapping>,
    /// Holds the arguments of waits.
    for_waits: bool,
}

impl Region {
    /// `size` bytes of the program's memory, whole pages that can be written to.
    pub fn of_program(at: u64, size: u64, for_waits: bool) -> Region {
        Region { at, size, own: None, for_waits }
    }

    /// Memory of ours, zeroed; `size` is a whole number of pages.
    ///
    /// # Errors
    /// ENOMEM, EMFILE, ENFILE.
    pub fn create(size: u64, for_waits: bool) -> Result<Region, Errno> {
        let mapping = Mapping::create(size as usize, fds::make_private)?;
        Ok(Region { at: mapping.addr() as u64, size, own: Some(mapping), for_waits })
    }

    /// The memory to map, if it is ours.
    pub fn mapping(&self) -> Option<&Mapping> {
        self.own.as_ref()
    }

    /// The arguments of a wait (`T`) at this byte of the region.
    ///
    /// # Errors
    /// EFAULT unless they lie inside, aligned, in a region that is for waits.
    pub fn wait_arg<T: Plain>(&self, offset: u64) -> Result<T, Errno> {
        let end = offset.checked_add(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
        if !self.for_waits || !offset.is_multiple_of(8) || end > self.size {
            return Err(Errno::EFAULT);
        }
        usercopy::read(self.at + offset)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(mapping) = &self.own {
            fds::close_private(mapping.memfd());
        }
    }
}
