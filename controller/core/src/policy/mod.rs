//! In which order are jobs considered, what keeps them back, and what are they charged?

mod billing;
mod cost;
pub mod decay;
mod fairtree;
pub mod idle;
pub mod limits;
mod priority;
mod reset;
mod wide;

pub(crate) use billing::{GpuParts, add_gres, add_licenses, billing_with_parts, weights_in};
pub use billing::{billing, least_tres};
pub use cost::{cost, money};
pub use fairtree::{FairShare, Row};
pub use priority::{BASE_PRIORITY, Factor, Factors, PriorityInputs, Scale, priority};
pub use reset::reset_due;
