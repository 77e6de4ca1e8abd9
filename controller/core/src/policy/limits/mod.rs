//! Which limit keeps a job back, and what would open it?
//!
//! [`LimitState`] counts what is in use; it is derived from the records and kept true as they change.
//! [`Claim`] is what a job brings along: whose it is, under which limits. [`Check`] says which limit
//! is in its way, in Slurm's order and by Slurm's names: [`Check::before`] what is known without
//! nodes, [`Check::after`] what needs real amounts. A plan adds what it starts to the check's own
//! copy of the state by [`Check::take`]; a start is checked by the same functions, so that no plan
//! can break a limit.
//!
//! Where a limit is set in more than one place, the first one holds: the partition's QOS, the job's
//! QOS (the other way round with `OverPartQOS`), the user's association, the accounts upward. Limits
//! on a group hold at every level of the tree.
//!
//! Where we differ from Slurm: a limit on a resource that a job does not use never keeps the job
//! back, so that a spent budget of GPU minutes leaves jobs without GPUs alone.

mod bounds;
mod check;
mod claim;
mod reason;
mod state;
mod submit;
mod text;

pub use bounds::{Bounds, bounds};
pub use check::{Check, UsageCache};
pub use claim::{Claim, UNLIMITED_SECS};
pub(crate) use reason::budget_reason;
pub use state::{Held, LimitState, Owner, Taken};
pub(crate) use submit::check_submit;
