//! Ring descriptors under close, duplicates, fcntl, mmap, epoll, poll, sweeps and small limits.

mod common;

use common::{both, compiled};

macro_rules! cases {
    ($($name:ident $case:literal;)*) => {$(
        #[test]
        fn $name() {
            both(&compiled("descriptors", "descriptors", &[]), &[$case]);
        }
    )*};
}
cases! {
    duplicates "duplicates";
    replaced "replaced";
    readiness "readiness";
    edges "edges";
    sweeps "sweeps";
    range_cloexec "range-cloexec";
    vfork_sweep "vfork-sweep";
    hidden "hidden";
    small_limit "small-limit";
    sent "sent";
}
