//! soloring: lock.
