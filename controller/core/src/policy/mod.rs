//! In which order are jobs considered?

mod priority;

pub use priority::{BASE_PRIORITY, priority};
