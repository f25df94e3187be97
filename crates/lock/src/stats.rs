//! What a lock has done so far, readable by anyone without taking it.

/// How a lock works at the moment, and if it is a mutex, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LockMode {
    /// A mutex: no owner has been recorded.
    #[default]
    Unowned,
    /// Biased to its owner.
    Biased,
    /// A mutex for the time being: foreign acquisitions were too many for the bias to pay.
    GivenUp,
    /// A mutex because `SOLORING_LOCK=mutex` or `Policy::ForceMutex` said so.
    Forced,
    /// A mutex because the kernel refuses `membarrier`.
    NoMembarrier,
}

impl LockMode {
    /// One word for tables.
    pub fn name(self) -> &'static str {
        match self {
            LockMode::Unowned => "mutex (no owner)",
            LockMode::Biased => "biased",
            LockMode::GivenUp => "mutex (bias given up)",
            LockMode::Forced => "mutex (forced)",
            LockMode::NoMembarrier => "mutex (no membarrier)",
        }
    }

    /// Not this lock alone: no lock of the process is biased, whatever it is used for.
    pub fn is_everywhere(self) -> bool {
        matches!(self, LockMode::Forced | LockMode::NoMembarrier)
    }
}

/// Counts since the lock was made. Each is exact for its writer; read together they are a snapshot
/// that no single moment need have had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LockStats {
    /// Acquisitions by the owner on the biased path: no locked instruction, no fence.
    pub owner_elided: u64,
    /// Acquisitions by the recorded owner through the mutex (contended, or the bias not in force).
    pub owner_taken: u64,
    /// Acquisitions by any other thread, and by all threads while no owner is recorded.
    pub foreign: u64,
    /// How many of `foreign` had to issue a heavy fence to take the lock from a biased owner.
    pub heavy_fences: u64,
    /// How often the bias was taken away for more than one acquisition (policy, or `unbias`).
    pub revocations: u64,
    /// Time that all lockers together have waited for the lock, in nanoseconds.
    pub waited_ns: u64,
    /// How the lock works now.
    pub mode: LockMode,
}

impl LockStats {
    /// All acquisitions.
    pub fn acquisitions(&self) -> u64 {
        self.owner_elided + self.owner_taken + self.foreign
    }

    /// Adds the counts of another lock; keeps this one's mode, unless it has counted nothing yet.
    pub fn merge(&mut self, other: &LockStats) {
        if self.acquisitions() == 0 {
            self.mode = other.mode;
        }
        self.owner_elided += other.owner_elided;
        self.owner_taken += other.owner_taken;
        self.foreign += other.foreign;
        self.heavy_fences += other.heavy_fences;
        self.revocations += other.revocations;
        self.waited_ns += other.waited_ns;
    }
}
