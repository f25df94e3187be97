//! Handing a request to a worker, and what the worker leaves behind.

use crate::arm::hold_file;
use crate::complete::CHAIN_FLAGS;
use crate::fds;
use crate::ops::OpDef;
use crate::ops::rwcall::{is_write, write_hash};
use crate::req::{File, Req, flag};
use crate::shared::{Shared, TaskWork};
use crate::slab::{ReqId, Where};
use crate::state::State;
use soloring_abi::Errno;
use soloring_iowq::{Class, Interrupt, Work};
use std::sync::Arc;

/// A request on its way through a worker. It only ever enqueues task work when it is done.
struct Job {
    shared: Arc<Shared>,
    id: ReqId,
    def: &'static OpDef,
    req: Box<Req>,
}

impl Job {
    fn finish(self, res: i32) {
        self.shared.push(TaskWork::Done { id: self.id, req: self.req, res });
    }
}

impl Work for Job {
    fn run(mut self: Box<Self>, interrupt: &Interrupt) {
        self.req.flags |= flag::ON_WORKER;
        let res = (self.def.run)(&mut self.req, interrupt);
        self.req.flags &= !flag::ON_WORKER;
        self.finish(res);
    }

    fn cancelled(self: Box<Self>) {
        self.finish(Errno::ECANCELED.neg());
    }

    fn failed(self: Box<Self>, _errno: i32) {
        // No worker and none to be had: the kernel cancels (measured on 6.18), whatever clone(2) said.
        self.finish(Errno::ECANCELED.neg());
    }
}

/// Gives a request that was taken out of `slot` to a worker.
///
/// # Errors
/// EMFILE when its file cannot be held; the request comes back.
#[expect(clippy::result_large_err, reason = "the request comes back, and boxing it would allocate")]
pub fn punt(
    st: &mut State,
    slot: u32,
    mut req: Req,
    def: &'static OpDef,
    class: Class,
) -> Result<(), (Req, Errno)> {
    // Asked of the descriptor that the program knows: what holds the file has another.
    let known = if req.has(flag::STORAGE) { st.facts.slow_writes(req.fd()) } else { None };
    if let File::Fd(fd) = req.file {
        match fds::dup_private(fd) {
            Ok(own) => req.file = File::Own(own),
            Err(e) => return Err((req, e)),
        }
    }
    hold_file(st, &mut req);
    st.disarm(slot, &mut req);
    let hash = match known {
        Some(slow) if is_write(&req) => slow.hash,
        _ if class == Class::Bounded => write_hash(&req),
        _ => None,
    };
    // What cancel and the chain need to know stays behind in the slot.
    let data = req.data.shared_part();
    let stub = Req { next: req.next, head: req.head, flags: req.flags, data, ..Req::new(req.sqe) };
    let id = st.slab.id(slot);
    let job = Job { shared: Arc::clone(&st.shared), id, def, req: Box::new(req) };
    // Workers are called once for a whole submission, when it is published.
    let ticket = st.wq.enqueue(Box::new(job), class, hash);
    st.kick = true;
    st.slab.put(slot, stub, Where::Punted(ticket));
    st.index(slot);
    st.punted += 1;
    Ok(())
}

/// Takes a request back from a worker: `req` with what its stub learned meanwhile. `None` when the
/// ring does not know it any more.
pub fn take_back(st: &mut State, id: ReqId, mut req: Req) -> Option<(u32, Req)> {
    // A wait that was cancelled meanwhile has its slot until its completion is posted.
    let punted = |slot: &u32| matches!(st.slab.at(*slot), Where::Punted(_));
    let Some(slot) = st.slab.resolve(id).filter(punted) else {
        if let File::Own(fd) = req.file {
            fds::close_private(fd);
        }
        return None;
    };
    let stub = st.take(slot);
    req.next = stub.next;
    req.flags = req.flags & !CHAIN_FLAGS | stub.flags & CHAIN_FLAGS;
    Some((slot, req))
}
