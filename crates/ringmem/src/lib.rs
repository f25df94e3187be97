//! soloring: ringmem.
