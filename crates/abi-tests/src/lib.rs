//! soloring: abi-tests.
