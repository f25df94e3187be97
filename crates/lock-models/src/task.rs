//! A thread of the program in a model: its name, its life, and its queue of task work.

use crate::trace::{Kind, say, violate};
use loom::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

/// Shared by everybody who knows the task.
pub struct Task {
    pub name: &'static str,
    pub id: u64,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    /// Tasks that have asked to park this one.
    queue: VecDeque<u64>,
    /// For whom this task is parked now.
    parked_for: Option<u64>,
    exited: bool,
    freed: bool,
    /// How many of the tasks that `idle` waits for have finished.
    finished: usize,
}

impl Task {
    pub fn new(id: u64, name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, id, work: Mutex::default(), changed: Condvar::new() })
    }

    pub fn say(&self, what: &'static str) {
        say(self.name, what);
    }

    /// Queues a task-work item that parks this task, and waits until it runs. `false`: this task has
    /// exited, there is nobody to park.
    pub fn park(&self, by: &Task) -> bool {
        let mut work = self.work.lock().unwrap();
        if work.freed {
            violate(
                Kind::UseAfterFree,
                format!("{} uses the submitter's task after it was freed", by.name),
            );
        }
        if work.exited {
            by.say("finds the submitter gone: nobody to park, goes on");
            return false;
        }
        by.say("queues task work to park the submitter and waits until it runs");
        work.queue.push_back(by.id);
        self.changed.notify_all();
        while work.parked_for != Some(by.id) {
            work = self.changed.wait(work).unwrap();
        }
        true
    }

    /// Lets this task go on.
    pub fn unpark(&self) {
        let mut work = self.work.lock().unwrap();
        work.parked_for = None;
        self.changed.notify_all();
    }

    /// Runs its task work, if there is any.
    pub fn run_task_work(&self) {
        self.run(self.work.lock().unwrap());
    }

    fn run<'a>(
        &'a self,
        mut work: loom::sync::MutexGuard<'a, Work>,
    ) -> loom::sync::MutexGuard<'a, Work> {
        while let Some(by) = work.queue.pop_front() {
            self.say("runs task work: is parked");
            work.parked_for = Some(by);
            self.changed.notify_all();
            while work.parked_for.is_some() {
                work = self.changed.wait(work).unwrap();
            }
        }
        work
    }

    /// Stays where task work can run until `others` tasks have said [`Task::finished`] to it.
    pub fn idle(&self, others: usize) {
        let mut work = self.work.lock().unwrap();
        loop {
            work = self.run(work);
            if work.finished == others {
                return;
            }
            work = self.changed.wait(work).unwrap();
        }
    }

    /// Another task is done with everything that concerns this one.
    pub fn finished(&self) {
        let mut work = self.work.lock().unwrap();
        work.finished += 1;
        self.changed.notify_all();
    }

    /// Runs what is queued, then accepts no task work any more.
    pub fn exit(&self) {
        let work = self.work.lock().unwrap();
        let mut work = self.run(work);
        work.exited = true;
        self.say("exits");
    }

    pub fn has_exited(&self, asked_by: &Task) -> bool {
        let work = self.work.lock().unwrap();
        if work.freed {
            violate(
                Kind::UseAfterFree,
                format!("{} uses the submitter's task after it was freed", asked_by.name),
            );
        }
        work.exited
    }

    /// The last reference is dropped.
    pub fn free(&self) {
        self.work.lock().unwrap().freed = true;
    }
}
