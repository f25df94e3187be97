//! The slab of requests: fixed addresses by index and generation, no allocation in the steady state.

use crate::req::{NIL, Req};
use crate::timers::TimerKey;
use soloring_iowq::Ticket;

/// A request's name outside the lock (worker results): stale ones are recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReqId {
    pub index: u32,
    pub generation: u32,
}

/// Where a request in the slab stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Free,
    /// Taken out: being issued or completed right now.
    Out,
    /// Waits in a chain for the request before it.
    Linked,
    /// Waits in the drain queue.
    Deferred,
    /// Waits to be issued (again) by the next run of task work.
    Ready,
    /// Waits for readiness of its file.
    Armed,
    /// With a worker.
    Punted(Ticket),
    /// Waits for a timer (`None`: only for a completion count).
    Timer(Option<TimerKey>),
}

struct Slot {
    generation: u32,
    at: Where,
    req: Req,
}

/// All requests of one ring.
#[derive(Default)]
pub struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slab {
    /// Number of requests in the slab, those taken out included.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Stores a request and returns its index.
    pub fn insert(&mut self, req: Req, at: Where) -> u32 {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.req = req;
            slot.at = at;
            return index;
        }
        let index = self.slots.len() as u32;
        assert!(index != NIL);
        self.slots.push(Slot { generation: 1, at, req });
        index
    }

    pub fn id(&self, index: u32) -> ReqId {
        ReqId { index, generation: self.slots[index as usize].generation }
    }

    /// The index behind `id`, if that request still exists.
    pub fn resolve(&self, id: ReqId) -> Option<u32> {
        let slot = self.slots.get(id.index as usize)?;
        (slot.generation == id.generation && slot.at != Where::Free).then_some(id.index)
    }

    pub fn at(&self, index: u32) -> Where {
        self.slots[index as usize].at
    }

    pub fn set_at(&mut self, index: u32, at: Where) {
        self.slots[index as usize].at = at;
    }

    pub fn get(&self, index: u32) -> &Req {
        &self.slots[index as usize].req
    }

    pub fn get_mut(&mut self, index: u32) -> &mut Req {
        &mut self.slots[index as usize].req
    }

    /// Takes the request out for issuing; its slot stays reserved.
    pub fn take(&mut self, index: u32) -> Req {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.at != Where::Free && slot.at != Where::Out);
        slot.at = Where::Out;
        std::mem::take(&mut slot.req)
    }

    /// Puts a request back into its slot.
    pub fn put(&mut self, index: u32, req: Req, at: Where) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.at == Where::Out);
        slot.req = req;
        slot.at = at;
    }

    /// Gives a slot back whose request was taken out.
    pub fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.at == Where::Out);
        slot.at = Where::Free;
        slot.generation = slot.generation.wrapping_add(1).max(1);
        self.free.push(index);
    }

    /// Indices of all requests that exist, in slot order.
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.slots.len() as u32).filter(|i| self.slots[*i as usize].at != Where::Free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_names_do_not_resolve() {
        let mut slab = Slab::default();
        let i = slab.insert(Req::default(), Where::Armed);
        let id = slab.id(i);
        assert_eq!(slab.resolve(id), Some(i));
        drop(slab.take(i));
        slab.release(i);
        assert_eq!(slab.resolve(id), None);
        assert_eq!(slab.insert(Req::default(), Where::Ready), i);
        assert_eq!(slab.resolve(id), None);
        assert_eq!(slab.in_flight(), 1);
    }
}
