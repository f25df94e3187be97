//! How a ring is to be made: the set-up flags that [`crate::Ring`] knows how to drive.

use soloring_abi::raw;

/// Set-up of a [`crate::Ring`]; made by `Ring::builder()`, ended by `build`.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    pub(crate) flags: u32,
    pub(crate) cq_entries: u32,
    pub(crate) sq_idle_ms: u32,
    pub(crate) attach: Option<i32>,
}

impl Builder {
    /// One thread submits, the one that makes the ring: it then takes the ring's lock without an atomic
    /// read-modify-write. Another thread's submissions get EEXIST.
    pub fn single_issuer(self) -> Builder {
        self.flag(raw::IORING_SETUP_SINGLE_ISSUER)
    }

    /// Completions are made while the submitter waits, and only then. Needs [`Builder::single_issuer`]; with it,
    /// the fastest way.
    pub fn defer_taskrun(self) -> Builder {
        self.flag(raw::IORING_SETUP_DEFER_TASKRUN)
    }

    /// No interruption of the submitter for completions; here, that is always so.
    pub fn coop_taskrun(self) -> Builder {
        self.flag(raw::IORING_SETUP_COOP_TASKRUN)
    }

    /// The rest of a batch is submitted when one entry of it is refused.
    pub fn submit_all(self) -> Builder {
        self.flag(raw::IORING_SETUP_SUBMIT_ALL)
    }

    /// Sizes that are too large are cut down instead of refused.
    pub fn clamp(self) -> Builder {
        self.flag(raw::IORING_SETUP_CLAMP)
    }

    /// The ring starts disabled: nothing can be submitted before `Ring::enable`.
    pub fn disabled(self) -> Builder {
        self.flag(raw::IORING_SETUP_R_DISABLED)
    }

    /// Room for completions, in entries; twice the submission entries without this.
    pub fn cq_entries(mut self, entries: u32) -> Builder {
        self.cq_entries = entries;
        self.flag(raw::IORING_SETUP_CQSIZE)
    }

    /// A thread submits what is pushed; it sleeps after `idle_ms` milliseconds without work.
    pub fn sqpoll(mut self, idle_ms: u32) -> Builder {
        self.sq_idle_ms = idle_ms;
        self.flag(raw::IORING_SETUP_SQPOLL)
    }

    /// Shares the workers (and the SQPOLL thread) of another ring, named by its descriptor.
    pub fn attach_wq(mut self, ring_fd: i32) -> Builder {
        self.attach = Some(ring_fd);
        self.flag(raw::IORING_SETUP_ATTACH_WQ)
    }

    fn flag(mut self, flag: u32) -> Builder {
        self.flags |= flag;
        self
    }
}
