//! Why does a job wait, when will it start, and what would change that?
//!
//! [`explain`] lists the gates that a unit must pass, in order, with numbers; [`forecast`] says when
//! everybody starts; [`suggest`] looks for the smallest change of a job that starts it sooner;
//! [`what_if`] compares what is expected before and after a change of the cluster; [`drain_plan`] says
//! when a node is empty if it is drained, and what is in the way.
//!
//! All are pure functions of a snapshot: changes are made to a copy, by the commands that would make
//! them for real, and planned by the scheduler that plans for real. Invariant: nothing is said here
//! that the engine would not do if everything that runs takes its whole limit and nobody else comes.

mod drain;
mod explanation;
mod forecast;
mod gates;
mod suggest;
mod what_if;
mod within_limits;
mod words;

pub use drain::{DrainPlan, DrainTarget, InTheWay, drain_plan};
pub use explanation::{Ahead, Explanation, MAX_AHEAD, explain};
pub use forecast::{Forecast, Place, forecast};
pub use gates::{Gate, GateKind, gate_of};
pub use suggest::{MAX_TRIES, Suggestion, suggest};
pub use what_if::{Change, Row, WhatIf, what_if};
