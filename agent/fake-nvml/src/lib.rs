//! How can GPUs be scheduled, cut and watched on a machine that has none?
//!
//! By a `libnvidia-ml.so` that answers as NVIDIA's does. It is loaded through the same wrapper and
//! called through the same symbols as the real one; what it tells comes from a scenario, a TOML
//! file `scenario.toml` in the folder from which it was loaded. What calls change (MIG modes and
//! instances) is kept in `state.toml` beside it, so that every process that loads the library from
//! this folder sees one truth, as with a real driver.
//!
//! The film of a scenario ([`Scenario`]) says how busy each GPU is over time, which faults come
//! when, and which calls fail, hang or crash. A scenario file may be replaced while it is in use.
//!
//! MIG follows the hardware's rules: listed placements only, no two instances over one memory
//! slice, no destruction of what is in use, handles with holes, and the real library's codes.
//!
//! As an rlib this crate offers [`install`], which sets such a folder up, and what a scenario may name.

mod abi;
mod curve;
mod handle;
mod install;
mod jobs;
mod models;
mod scenario;
mod state;
mod world;

pub use abi::SYMBOLS;
pub use install::{InstallError, LIBRARY_NAME, SCENARIO_NAME, install, library_path};
pub use models::{MODELS, Model, Profile};
pub use scenario::{Scenario, ScenarioError};
