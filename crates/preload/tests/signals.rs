//! Signals: the program's own SIGSYS, blocked masks, handlers that use rings, small stacks.

mod common;

use common::{both, compiled};

macro_rules! cases {
    ($($name:ident $case:literal;)*) => {$(
        #[test]
        fn $name() {
            both(&compiled("signals", "signals", &[]), &[$case]);
        }
    )*};
}
cases! {
    own_action "own-action";
    raw_action "raw-action";
    blocked "blocked";
    handlers "handlers";
    interrupted "interrupted";
    jumped "jumped";
    small_stacks "small-stacks";
    thread_churn "thread-churn";
    own_sandbox "own-sandbox";
}
