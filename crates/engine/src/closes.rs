//! Closes of the program's descriptors, announced before they happen: rings that watch one hold its file.

use crate::ctx::Ctx;
use crate::facts;
use crate::fds::{self, Watchers};
use crate::registry;

/// Before the program's `fd` is closed or replaced. One load when no ring watches it.
///
/// A signal handler that closes a descriptor of the very ring that it interrupted is not heard.
#[inline]
pub fn note_close(fd: i32) {
    facts::forget_answers();
    match fds::watchers(fd) {
        Watchers::None => {}
        watchers => tell(fd, watchers),
    }
}

#[cold]
fn tell(fd: i32, watchers: Watchers) {
    match watchers {
        Watchers::None => {}
        Watchers::One(id) => {
            registry::with_id(id, |ctx| tell_ring(ctx, fd));
        }
        Watchers::Many => {
            for ctx in registry::all() {
                tell_ring(&ctx, fd);
            }
            fds::unmark_watched_by_many(fd);
        }
    }
}

fn tell_ring(ctx: &Ctx, fd: i32) {
    if let Ok(mut st) = ctx.lock.lock() {
        let st = &mut *st;
        st.watches.closing(st.shared.epfd, fd, &mut st.slab);
    }
}

/// As [`note_close`] for all descriptors from `first` to `last`.
pub fn note_close_range(first: u32, last: u32) {
    facts::forget_answers();
    for ctx in registry::all() {
        let Ok(mut st) = ctx.lock.lock() else { continue };
        let st = &mut *st;
        for fd in st.watches.numbers_within(first, last) {
            st.watches.closing(st.shared.epfd, fd, &mut st.slab);
        }
    }
}
