//! The schemes of the public discussion, each as small as its rule: the mutex, v1 and v2.

use crate::scheme::{Entry, Inside, Scheme, Setup, Site};
use crate::task::Task;
use std::sync::{Arc, Mutex as StdMutex};

/// Everybody locks.
pub struct Mutex {
    lock: loom::sync::Mutex<()>,
    site: Site,
}

/// On SINGLE_ISSUER the helpers do nothing, for everybody.
pub struct V1 {
    single_issuer: bool,
    ring: Mutex,
}

/// SQPOLL clears the flag; the submitter takes nothing, everybody else the mutex.
pub struct V2 {
    single_issuer: bool,
    submitter: StdMutex<Option<u64>>,
    ring: Mutex,
}

/// Inside, with nothing to record but what the closure does.
struct At<'a, F: FnMut(&Arc<Task>)> {
    site: &'a Site,
    me: &'static str,
    record: F,
}

impl<F: FnMut(&Arc<Task>)> Inside for At<'_, F> {
    fn touch(&mut self) {
        self.site.touch(self.me);
    }
    fn record_submitter(&mut self, task: &Arc<Task>) {
        (self.record)(task);
    }
}

/// Locks two rings in the order of their addresses.
pub(crate) fn in_order<'a, S>(a: &'a S, b: &'a S) -> (&'a S, &'a S) {
    if (a as *const S) < (b as *const S) { (a, b) } else { (b, a) }
}

impl Mutex {
    fn new() -> Self {
        Self { lock: loom::sync::Mutex::new(()), site: Site::default() }
    }

    pub(crate) fn inside<'a>(
        &'a self,
        me: &Task,
        record: impl FnMut(&Arc<Task>) + 'a,
    ) -> impl Inside + 'a {
        At { site: &self.site, me: me.name, record }
    }

    /// A place where another thread may run, for schemes that take no lock.
    pub(crate) fn step(&self) {
        self.site.step();
    }

    fn locked(&self, me: &Task) -> loom::sync::MutexGuard<'_, ()> {
        let guard = self.lock.lock().unwrap();
        me.say("takes the mutex");
        guard
    }
}

impl Scheme for Mutex {
    const NAME: &'static str = "mutex";

    fn create(_: Setup, _: &Arc<Task>) -> Self {
        Mutex::new()
    }

    fn enter(&self, me: &Arc<Task>, _: Entry, body: &mut dyn FnMut(&mut dyn Inside)) {
        let _guard = self.locked(me);
        body(&mut self.inside(me, |_| {}));
    }

    fn enter_two(
        a: &Self,
        b: &Self,
        me: &Arc<Task>,
        body: &mut dyn FnMut(&mut dyn Inside, &mut dyn Inside),
    ) -> bool {
        let (first, second) = in_order(a, b);
        let (_first, _second) = (first.locked(me), second.locked(me));
        body(&mut a.inside(me, |_| {}), &mut b.inside(me, |_| {}));
        true
    }
}

impl V1 {
    fn locked(&self, me: &Task) -> Option<loom::sync::MutexGuard<'_, ()>> {
        if self.single_issuer {
            self.ring.step();
            me.say("takes no lock: the ring is SINGLE_ISSUER");
            return None;
        }
        Some(self.ring.locked(me))
    }
}

impl Scheme for V1 {
    const NAME: &'static str = "v1";

    fn create(setup: Setup, _: &Arc<Task>) -> Self {
        Self { single_issuer: setup.single_issuer, ring: Mutex::new() }
    }

    fn enter(&self, me: &Arc<Task>, _: Entry, body: &mut dyn FnMut(&mut dyn Inside)) {
        let _guard = self.locked(me);
        body(&mut self.ring.inside(me, |_| {}));
    }

    fn enter_two(
        a: &Self,
        b: &Self,
        me: &Arc<Task>,
        body: &mut dyn FnMut(&mut dyn Inside, &mut dyn Inside),
    ) -> bool {
        let (first, second) = in_order(a, b);
        let (_first, _second) = (first.locked(me), second.locked(me));
        body(&mut a.ring.inside(me, |_| {}), &mut b.ring.inside(me, |_| {}));
        true
    }
}

impl V2 {
    fn record(&self, task: &Arc<Task>) {
        *self.submitter.lock().unwrap() = Some(task.id);
    }

    fn locked(&self, me: &Task) -> Option<loom::sync::MutexGuard<'_, ()>> {
        if self.single_issuer && *self.submitter.lock().unwrap() == Some(me.id) {
            self.ring.step();
            me.say("takes no lock: it is the submitter");
            return None;
        }
        Some(self.ring.locked(me))
    }
}

impl Scheme for V2 {
    const NAME: &'static str = "v2";

    fn create(setup: Setup, _: &Arc<Task>) -> Self {
        Self {
            single_issuer: setup.single_issuer && !setup.sqpoll,
            submitter: StdMutex::new(None),
            ring: Mutex::new(),
        }
    }

    fn enter(&self, me: &Arc<Task>, _: Entry, body: &mut dyn FnMut(&mut dyn Inside)) {
        let _guard = self.locked(me);
        body(&mut self.ring.inside(me, |task| self.record(task)));
    }

    fn enter_two(
        a: &Self,
        b: &Self,
        me: &Arc<Task>,
        body: &mut dyn FnMut(&mut dyn Inside, &mut dyn Inside),
    ) -> bool {
        let (first, second) = in_order(a, b);
        let (_first, _second) = (first.locked(me), second.locked(me));
        body(&mut a.ring.inside(me, |_| {}), &mut b.ring.inside(me, |_| {}));
        true
    }
}
