//! The real lock as one more scheme, beside those that it is compared with.

use crate::real::{CtxLock, Guard, ThreadToken, current_thread};
use crate::scheme::{Entry, Inside, Scheme, Setup, Site};
use crate::task::Task;
use std::sync::Arc;

/// A ring whose state is inside the real lock.
pub struct Biased {
    lock: CtxLock<Site>,
    /// With SQPOLL too: the lock may then be biased to the SQ thread.
    single_issuer: bool,
}

struct Held<'a> {
    guard: Guard<'a, Site>,
    me: &'static str,
    bias: bool,
}

impl Inside for Held<'_> {
    fn touch(&mut self) {
        self.guard.touch(self.me);
    }
    fn record_submitter(&mut self, task: &Arc<Task>) {
        if self.bias {
            self.guard.bias_to(token_of(task));
        }
    }
}

fn token_of(task: &Task) -> ThreadToken {
    // The scenario's threads have their task's number as their token.
    ThreadToken::from_number(task.id).expect("task numbers start at 1")
}

impl Biased {
    fn held<'a>(&self, guard: Guard<'a, Site>, me: &Task) -> Held<'a> {
        me.say(match guard.mode() {
            crate::real::Mode::BiasedOwner => "takes the lock as its owner",
            crate::real::Mode::OwnerMutex => "takes the mutex, being the owner",
            crate::real::Mode::BiasedForeign => "takes the lock away from its owner",
            crate::real::Mode::Mutex => "takes the mutex",
        });
        Held { guard, me: me.name, bias: self.single_issuer }
    }
}

impl Scheme for Biased {
    const NAME: &'static str = "biased";
    const REAL: bool = true;

    fn create(setup: Setup, _: &Arc<Task>) -> Self {
        Self { lock: CtxLock::new(Site::default()), single_issuer: setup.single_issuer }
    }

    fn enter(&self, me: &Arc<Task>, _: Entry, body: &mut dyn FnMut(&mut dyn Inside)) {
        assert_eq!(current_thread(), token_of(me));
        let guard = self.lock.lock().expect("not entered twice");
        body(&mut self.held(guard, me));
    }

    fn enter_two(
        a: &Self,
        b: &Self,
        me: &Arc<Task>,
        body: &mut dyn FnMut(&mut dyn Inside, &mut dyn Inside),
    ) -> bool {
        let (ga, gb) = CtxLock::lock_two(&a.lock, &b.lock).expect("not entered twice");
        body(&mut a.held(ga, me), &mut b.held(gb, me));
        true
    }
}
