//! The numbers that the bias policy runs on; each machine (real or modelled) has its own.

/// The numbers of the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Foreign acquisitions after which the bias is judged.
    pub(crate) foreign_window: u64,
    /// What one elided acquisition saves.
    pub(crate) saved_ns: u64,
    /// Owner acquisitions after which a bias that was given up is judged again; doubles with each loss.
    pub(crate) owner_window: u64,
    /// By how much the saving must exceed the cost for the bias to come back.
    pub(crate) back_factor: u64,
    /// Losses beyond this do not double the window any more.
    pub(crate) losses_max: u64,
}
