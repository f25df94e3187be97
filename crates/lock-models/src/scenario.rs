//! The situations that broke the earlier schemes, each to be played with every scheme.

use crate::real::{set_gates, set_thread};
use crate::scheme::{Entry, Scheme, Setup};
use crate::task::Task;
use crate::trace::{Depth, Verdict, check, forget_steps, say};
use std::sync::{Arc, Mutex};

/// One column of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    SqpollRegister,
    Worker,
    TwoForeign,
    CloneBuffers,
    EnableRegister,
    CloseDisabled,
    SetupFails,
    LateLocker,
    ExitedTwoForeign,
    ExitWaitsForWorker,
    ComputingSubmitter,
}

impl Scenario {
    pub const ALL: [Scenario; 11] = [
        Scenario::SqpollRegister,
        Scenario::Worker,
        Scenario::TwoForeign,
        Scenario::CloneBuffers,
        Scenario::EnableRegister,
        Scenario::CloseDisabled,
        Scenario::SetupFails,
        Scenario::LateLocker,
        Scenario::ExitedTwoForeign,
        Scenario::ExitWaitsForWorker,
        Scenario::ComputingSubmitter,
    ];

    /// A short name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::SqpollRegister => "sqpoll-register",
            Scenario::Worker => "worker",
            Scenario::TwoForeign => "two-foreign",
            Scenario::CloneBuffers => "clone-buffers",
            Scenario::EnableRegister => "enable-register",
            Scenario::CloseDisabled => "close-disabled",
            Scenario::SetupFails => "setup-fails",
            Scenario::LateLocker => "late-locker",
            Scenario::ExitedTwoForeign => "exited-two-foreign",
            Scenario::ExitWaitsForWorker => "exit-waits-for-worker",
            Scenario::ComputingSubmitter => "computing-submitter",
        }
    }

    /// What happens in it.
    pub fn story(self) -> &'static str {
        match self {
            Scenario::SqpollRegister => {
                "SINGLE_ISSUER|SQPOLL: the SQ thread issues while a thread of the program registers"
            }
            Scenario::Worker => "a worker runs a punted request while the submitter submits",
            Scenario::TwoForeign => {
                "a worker and another thread's GETEVENTS (overflow flush) while the submitter submits"
            }
            Scenario::CloneBuffers => {
                "CLONE_BUFFERS between two rings by the submitter of one while the other's submits"
            }
            Scenario::EnableRegister => {
                "R_DISABLED: one thread registers while another enables the ring and submits"
            }
            Scenario::CloseDisabled => "the ring is closed, and registered to, while R_DISABLED",
            Scenario::SetupFails => {
                "set-up fails before a submitter is recorded; the teardown work locks the ring"
            }
            Scenario::LateLocker => {
                "the submitter has exited, the ring is closed, and work left over locks it once more"
            }
            Scenario::ExitedTwoForeign => "the submitter has exited; two foreign lockers come",
            Scenario::ExitWaitsForWorker => {
                "the exiting submitter waits for its worker, which locks the ring"
            }
            Scenario::ComputingSubmitter => {
                "user space only: the submitter computes and does not call in; a worker locks the ring"
            }
        }
    }

    /// Plays it with one scheme, in every interleaving within the bounds.
    pub fn check<S: Scheme>(self, depth: Depth) -> Verdict {
        let model = match self {
            Scenario::SqpollRegister => sqpoll_register::<S>,
            Scenario::Worker => worker::<S>,
            Scenario::TwoForeign => two_foreign::<S>,
            Scenario::CloneBuffers => clone_buffers::<S>,
            Scenario::EnableRegister => enable_register::<S>,
            Scenario::CloseDisabled => close_disabled::<S>,
            Scenario::SetupFails => setup_fails::<S>,
            Scenario::LateLocker => late_locker::<S>,
            Scenario::ExitedTwoForeign => exited_two_foreign::<S>,
            Scenario::ExitWaitsForWorker => exit_waits_for_worker::<S>,
            Scenario::ComputingSubmitter => computing_submitter::<S>,
        };
        let preemptions = self.preemptions(depth, S::PARKS);
        let plain = check(preemptions, model);
        if !S::REAL {
            return plain;
        }
        let gated = preemptions - 1;
        plain.and_with_gates(gated, || {
            check(gated, move || {
                set_gates(true);
                model();
            })
        })
    }

    /// Three threads that meet in one lock have too many interleavings for the depth of two, and the
    /// schemes that park the submitter have more of them than the others.
    fn preemptions(self, depth: Depth, parks: bool) -> usize {
        depth.of(match self {
            Scenario::TwoForeign if parks => (1, 3),
            Scenario::TwoForeign => (2, 3),
            Scenario::EnableRegister => (2, 5),
            _ => (3, 5),
        })
    }
}

const SINGLE: Setup = Setup { single_issuer: true, sqpoll: false, r_disabled: false };

type Thread = loom::thread::JoinHandle<()>;

fn spawn(task: &Arc<Task>, body: impl FnOnce(&Arc<Task>) + 'static) -> Thread {
    let task = task.clone();
    loom::thread::spawn(move || {
        set_thread(task.id, task.name);
        body(&task);
    })
}

/// The task that the model's first thread plays.
fn first(name: &'static str) -> Arc<Task> {
    let task = Task::new(1, name);
    set_thread(task.id, task.name);
    task
}

/// A ring whose set-up has succeeded: `submitter` is recorded.
fn ring<S: Scheme>(setup: Setup, submitter: &Arc<Task>) -> Arc<S> {
    let ring = Arc::new(S::create(setup, submitter));
    ring.enter(submitter, Entry::Register, &mut |inside| inside.record_submitter(submitter));
    forget_steps();
    ring
}

/// Uses the ring state once.
fn touch<S: Scheme>(ring: &S, me: &Arc<Task>, entry: Entry) {
    ring.enter(me, entry, &mut |inside| inside.touch());
}

fn sqpoll_register<S: Scheme>() {
    let setup = Setup { sqpoll: true, ..SINGLE };
    let sq = first("SQ thread");
    let other = Task::new(2, "registering thread");
    let ring = ring::<S>(setup, &sq);
    let theirs = ring.clone();
    let thread = spawn(&other, move |me| touch(&*theirs, me, Entry::Register));
    touch(&*ring, &sq, Entry::Submit);
    thread.join().unwrap();
}

/// The submitter submits, then stays where task work can reach it, while the others lock once each.
fn against_submitter<S: Scheme>(others: &[Arc<Task>]) {
    let submitter = first("submitter");
    let ring = ring::<S>(SINGLE, &submitter);
    let threads: Vec<Thread> = others
        .iter()
        .map(|task| {
            let (ring, submitter) = (ring.clone(), submitter.clone());
            spawn(task, move |me| {
                touch(&*ring, me, Entry::Other);
                submitter.finished();
            })
        })
        .collect();
    touch(&*ring, &submitter, Entry::Submit);
    submitter.idle(others.len());
    for thread in threads {
        thread.join().unwrap();
    }
}

fn worker<S: Scheme>() {
    against_submitter::<S>(&[Task::new(2, "worker")]);
}

fn two_foreign<S: Scheme>() {
    against_submitter::<S>(&[Task::new(2, "worker"), Task::new(3, "GETEVENTS thread")]);
}

fn clone_buffers<S: Scheme>() {
    let (ours, theirs) = (first("submitter of ring 1"), Task::new(2, "submitter of ring 2"));
    // In one allocation: the order of the addresses must be the same in every execution.
    let rings = Arc::new([S::create(SINGLE, &ours), S::create(SINGLE, &theirs)]);
    rings[0].enter(&ours, Entry::Register, &mut |inside| inside.record_submitter(&ours));
    forget_steps();
    let (both, waiting) = (rings.clone(), ours.clone());
    let thread = spawn(&theirs, move |me| {
        both[1].enter(me, Entry::Register, &mut |inside| inside.record_submitter(me));
        let done = S::enter_two(&both[1], &both[0], me, &mut |own, other| {
            other.touch();
            own.touch();
        });
        if !done {
            me.say("CLONE_BUFFERS is refused with -EEXIST");
        }
        waiting.finished();
    });
    touch(&rings[0], &ours, Entry::Submit);
    ours.idle(1);
    thread.join().unwrap();
}

/// What `io_uring_register` and `io_uring_enter` look at under the lock.
#[derive(Default)]
struct Permission {
    submitter: Option<u64>,
}

fn register_if_allowed<S: Scheme>(ring: &S, me: &Arc<Task>, permission: &Mutex<Permission>) {
    ring.enter(me, Entry::Register, &mut |inside| {
        let submitter = permission.lock().unwrap().submitter;
        if submitter.is_none_or(|id| id == me.id) {
            inside.touch();
        } else {
            me.say("is refused with -EEXIST");
        }
    });
}

fn enable_register<S: Scheme>() {
    let setup = Setup { r_disabled: true, ..SINGLE };
    let enabler = first("enabling thread");
    let other = Task::new(2, "registering thread");
    let ring = Arc::new(S::create(setup, &enabler));
    let permission = Arc::new(Mutex::new(Permission::default()));
    let (theirs, shared) = (ring.clone(), permission.clone());
    let thread = spawn(&other, move |me| {
        register_if_allowed(&*theirs, me, &shared);
        register_if_allowed(&*theirs, me, &shared);
    });
    ring.enter(&enabler, Entry::Register, &mut |inside| {
        enabler.say("ENABLE_RINGS: becomes the submitter");
        permission.lock().unwrap().submitter = Some(enabler.id);
        inside.record_submitter(&enabler);
    });
    touch(&*ring, &enabler, Entry::Submit);
    thread.join().unwrap();
}

fn close_disabled<S: Scheme>() {
    let setup = Setup { r_disabled: true, ..SINGLE };
    let closer = first("closing thread");
    let other = Task::new(2, "registering thread");
    let ring = Arc::new(S::create(setup, &other));
    let theirs = ring.clone();
    let thread = spawn(&other, move |me| {
        touch(&*theirs, me, Entry::Register);
        me.exit();
    });
    touch(&*ring, &closer, Entry::Other);
    thread.join().unwrap();
}

fn setup_fails<S: Scheme>() {
    let creator = first("creator");
    let ring = Arc::new(S::create(SINGLE, &creator));
    say(creator.name, "set-up fails: no submitter is recorded; the ring goes to the teardown work");
    let (theirs, waiting) = (ring.clone(), creator.clone());
    let thread = spawn(&Task::new(2, "teardown work"), move |me| {
        touch(&*theirs, me, Entry::Other);
        waiting.finished();
    });
    creator.idle(1);
    thread.join().unwrap();
}

/// A ring whose submitter has submitted once and exited.
fn orphan<S: Scheme>() -> Arc<S> {
    let submitter = Task::new(9, "submitter");
    let ring = Arc::new(S::create(SINGLE, &submitter));
    let theirs = ring.clone();
    spawn(&submitter, move |me| {
        theirs.enter(me, Entry::Register, &mut |inside| inside.record_submitter(me));
        touch(&*theirs, me, Entry::Submit);
        me.exit();
    })
    .join()
    .unwrap();
    ring
}

fn late_locker<S: Scheme>() {
    let closer = first("closing thread");
    let ring = orphan::<S>();
    touch(&*ring, &closer, Entry::Other);
    ring.last_close();
    let theirs = ring.clone();
    spawn(&Task::new(2, "left-over work"), move |me| touch(&*theirs, me, Entry::Other))
        .join()
        .unwrap();
    ring.after_last_locker();
}

fn exited_two_foreign<S: Scheme>() {
    let closer = first("closing thread");
    let ring = orphan::<S>();
    let theirs = ring.clone();
    let thread = spawn(&Task::new(2, "worker"), move |me| touch(&*theirs, me, Entry::Other));
    touch(&*ring, &closer, Entry::Other);
    thread.join().unwrap();
}

/// The submitter locks once and then waits for its worker without running task work.
fn wait_for_worker<S: Scheme>(why: &'static str) {
    let submitter = first("submitter");
    let ring = ring::<S>(SINGLE, &submitter);
    touch(&*ring, &submitter, Entry::Submit);
    let theirs = ring.clone();
    let thread = spawn(&Task::new(2, "worker"), move |me| touch(&*theirs, me, Entry::Other));
    submitter.say(why);
    thread.join().unwrap();
    submitter.exit();
}

fn exit_waits_for_worker<S: Scheme>() {
    wait_for_worker::<S>("is exiting: waits for its worker to end");
}

fn computing_submitter<S: Scheme>() {
    wait_for_worker::<S>("computes for as long as the worker has no answer");
}
