//! Which GPUs has this node, what do they do, and which job may use which?
//!
//! NVML's calls have no time limit: a GPU whose firmware is dead blocks each for most of a minute,
//! or for ever. So they are made by a process of its own, the [`probe`], that can hang or die
//! without the agent feeling more than "no reading". The [`monitor`] asks it, starts it again, and
//! tells the rest of the agent what it learnt: the owner (for the controller) and the [`devices`],
//! by which a launch turns the units that the controller gave a job into device files and variables.
//!
//! Invariants: what could not be measured is absent and never 0; a GPU keeps its place in the list
//! while it is not answering, so that the numbers of units stay; an unreadable record of a layout
//! destroys nothing.

mod accelerators;
mod claims;
mod client;
mod devices;
mod files;
mod layout;
mod monitor;
mod naming;
pub mod probe;
mod settings;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use client::ProbeCommand;
pub use devices::{Devices, Grant};
pub(crate) use devices::{GrantError, GrantUnit};
pub(crate) use monitor::{Monitor, News, Orders, Picture, first_look};
pub use settings::{Accelerator, GpuSettings, Numbering};
