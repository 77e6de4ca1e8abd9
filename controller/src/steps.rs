//! Who waits for steps, who watches them, and what is known of them that no record may hold?
//!
//! All of it lives as long as this process. A secret that is lost with it ends the steps that were
//! not launched; a holder that does not come back after a restart loses its job.

mod holders;
mod line;
mod relay;
mod secrets;
mod watches;

pub use holders::{Holders, Holding};
pub use line::{Line, Place, Turn};
pub use relay::{Given, OPEN_TIME, Pace, Reader, Relays};
pub use secrets::{Keeping, Kept, Secrets};
pub use watches::Watches;

/// Everything about steps that is not in the cluster.
#[derive(Debug, Default)]
pub struct StepDesk {
    /// Who is told when something becomes of a job's steps.
    pub watches: Watches,
    /// Who waits for room in a job.
    pub line: Line,
    /// Secrets and addresses.
    pub secrets: Secrets,
    /// Who holds jobs without a script.
    pub holders: Holders,
    /// Connections that go through this process.
    pub relays: Relays,
}
