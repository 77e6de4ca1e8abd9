//! How do messages of the wire and records of the store become values of the core, and back?
//!
//! The generated types stay in here and in the edges; the core never sees them. What comes from
//! outside is checked in full: a code that this version does not know is an error that names it,
//! and never a default.

pub mod account_change;
pub mod accounts;
pub mod answer;
pub mod array;
pub mod codes;
pub mod cron;
pub mod error;
pub mod gpu;
pub mod hooks;
pub mod host;
pub mod job;
pub mod limits;
pub mod node;
pub mod record;
pub mod reservation;
pub mod reservation_change;
pub mod run;
pub mod spec;
pub mod step;
pub mod update;
pub mod wire;

mod bounds;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod generate_accounts;
#[cfg(test)]
mod tests;

pub use error::{ConvertError, RecordError};
