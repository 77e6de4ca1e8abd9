//! In which order are jobs considered, and what are they charged?

mod billing;
pub mod decay;
mod fairtree;
mod priority;
mod reset;
mod wide;

pub(crate) use billing::{add_gres, add_licenses};
pub use billing::{billing, least_tres};
pub use fairtree::{FairShare, Row};
pub use priority::{BASE_PRIORITY, Factor, Factors, PriorityInputs, Scale, priority};
pub use reset::reset_due;
