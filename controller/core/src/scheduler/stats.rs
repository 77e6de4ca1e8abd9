//! How much work was a plan?

/// What a plan looked at, for `sdiag`; counts of work and not of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanStats {
    /// Units that wait.
    pub waiting: u32,
    /// Units that were looked at beyond the answer for their class.
    pub tried: u32,
    /// Classes that were looked at.
    pub classes: u32,
    /// Tests whether a class fits now.
    pub tests: u32,
    /// Searches for the earliest start of a class.
    pub searches: u32,
    /// Instants at which a placement was tried in these searches.
    pub instants: u32,
    /// Places reserved in time.
    pub reservations: u32,
    /// Of these, kept from the plan before although a new search put them later.
    pub kept: u32,
    /// Starts.
    pub started: u32,
    /// Of these, ahead of a unit that waits.
    pub backfilled: u32,
    /// Nodes that were compared with what a class needs.
    pub nodes: u64,
}
