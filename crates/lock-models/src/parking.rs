//! The schemes of the public discussion that park the submitter: v3 to v6, one rule added at a time.

use crate::history::Mutex;
use crate::scheme::{Entry, Inside, Scheme, Setup};
use crate::task::Task;
use crate::trace::{Kind, violate};
use std::sync::{Arc, Mutex as StdMutex};

/// The rules that v4, v5 and v6 added to v3.
#[derive(Clone, Copy)]
struct Rules {
    /// v4: while the ring is R_DISABLED, take the mutex.
    mutex_while_disabled: bool,
    /// v5: the creator is recorded as the submitter at creation.
    recorded_at_creation: bool,
    /// v6: the mutex when the submitter has exited, and its reference is dropped last.
    mutex_after_exit: bool,
}

#[derive(Default)]
struct Facts {
    r_disabled: bool,
    submitter: Option<Arc<Task>>,
}

/// The common body of the four.
struct Parking {
    rules: Rules,
    single_issuer: bool,
    facts: StdMutex<Facts>,
    ring: Mutex,
}

/// How a task got in, which says how it gets out.
enum Way {
    Mutex,
    Submitter,
    Parked(Arc<Task>),
    NobodyParked,
}

impl Parking {
    fn new(rules: Rules, setup: Setup, creator: &Arc<Task>) -> Self {
        let submitter = rules.recorded_at_creation.then(|| creator.clone());
        Self {
            rules,
            single_issuer: setup.single_issuer && !setup.sqpoll,
            facts: StdMutex::new(Facts { r_disabled: setup.r_disabled, submitter }),
            ring: Mutex::create(setup, creator),
        }
    }

    fn record(&self, task: &Arc<Task>) {
        let mut facts = self.facts.lock().unwrap();
        facts.submitter = Some(task.clone());
        facts.r_disabled = false;
    }

    fn way_in(&self, me: &Arc<Task>, entry: Entry) -> Way {
        let (r_disabled, submitter) = {
            let facts = self.facts.lock().unwrap();
            (facts.r_disabled, facts.submitter.clone())
        };
        if !self.single_issuer
            || entry == Entry::Register
            || (self.rules.mutex_while_disabled && r_disabled)
        {
            return Way::Mutex;
        }
        let Some(submitter) = submitter else {
            violate(
                Kind::NullSubmitter,
                format!("{} has no submitter to park: null pointer", me.name),
            );
        };
        if submitter.id == me.id {
            self.ring.step();
            me.say("takes no lock: it is the submitter");
            return Way::Submitter;
        }
        if self.rules.mutex_after_exit && submitter.has_exited(me) {
            me.say("finds the submitter gone");
            return Way::Mutex;
        }
        if submitter.park(me) { Way::Parked(submitter) } else { Way::NobodyParked }
    }

    fn enter(&self, me: &Arc<Task>, entry: Entry, body: &mut dyn FnMut(&mut dyn Inside)) {
        let way = self.way_in(me, entry);
        if let Way::Mutex = way {
            // The mutex model's own way in and out.
            Scheme::enter(&self.ring, me, entry, &mut |_| {
                body(&mut self.ring.inside(me, |task| self.record(task)));
            });
            return;
        }
        body(&mut self.ring.inside(me, |task| self.record(task)));
        if let Way::Parked(submitter) = way {
            me.say("lets the submitter go on");
            submitter.unpark();
        }
    }

    /// From v2 on CLONE_BUFFERS asks whether the caller may: the submitter of every SINGLE_ISSUER ring.
    fn is_refused(&self, me: &Arc<Task>) -> bool {
        let facts = self.facts.lock().unwrap();
        self.single_issuer && facts.submitter.as_ref().is_some_and(|s| s.id != me.id)
    }

    fn drop_reference(&self) {
        if let Some(submitter) = &self.facts.lock().unwrap().submitter {
            submitter.say("is freed: the ring has dropped the last reference");
            submitter.free();
        }
    }
}

macro_rules! parking_scheme {
    ($(#[$doc:meta])* $name:ident, $label:literal, $rules:expr) => {
        $(#[$doc])*
        pub struct $name(Parking);

        impl Scheme for $name {
            const NAME: &'static str = $label;
            const PARKS: bool = true;

            fn create(setup: Setup, creator: &Arc<Task>) -> Self {
                Self(Parking::new($rules, setup, creator))
            }

            fn enter(&self, me: &Arc<Task>, entry: Entry, body: &mut dyn FnMut(&mut dyn Inside)) {
                self.0.enter(me, entry, body);
            }

            fn enter_two(
                a: &Self,
                b: &Self,
                me: &Arc<Task>,
                body: &mut dyn FnMut(&mut dyn Inside, &mut dyn Inside),
            ) -> bool {
                if a.0.is_refused(me) || b.0.is_refused(me) {
                    return false;
                }
                a.enter(me, Entry::Other, &mut |a| b.enter(me, Entry::Other, &mut |b| body(a, b)));
                true
            }

            fn last_close(&self) {
                if !self.0.rules.mutex_after_exit {
                    self.0.drop_reference();
                }
            }

            fn after_last_locker(&self) {
                if self.0.rules.mutex_after_exit {
                    self.0.drop_reference();
                }
            }
        }
    };
}

const V3_RULES: Rules =
    Rules { mutex_while_disabled: false, recorded_at_creation: false, mutex_after_exit: false };
const V4_RULES: Rules = Rules { mutex_while_disabled: true, ..V3_RULES };
const V5_RULES: Rules = Rules { recorded_at_creation: true, ..V4_RULES };
const V6_RULES: Rules = Rules { mutex_after_exit: true, ..V5_RULES };

parking_scheme!(
    /// A foreign thread queues a task-work item that parks the submitter; register takes the mutex.
    V3, "v3", V3_RULES
);
parking_scheme!(
    /// And the mutex while the ring is R_DISABLED.
    V4, "v4", V4_RULES
);
parking_scheme!(
    /// And the submitter recorded at creation.
    V5, "v5", V5_RULES
);
parking_scheme!(
    /// And the mutex when the submitter has exited; its reference dropped last.
    V6, "v6", V6_RULES
);
