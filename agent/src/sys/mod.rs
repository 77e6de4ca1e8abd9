//! Which calls to the system have no safe form elsewhere?
//!
//! The only place of the agent with `unsafe`. Everything here is a thin wrapper with a safe
//! signature; what rustix or nix offer safely is called directly where it is needed.

pub(crate) mod bpf;
mod clock;
pub(crate) mod nvml;
pub(crate) mod pmix;
mod process;

pub(crate) use clock::{boottime, local_time_text, wall_clock};
pub(crate) use process::{
    ChildUsage, Forked, SingleThreaded, close_all_but, ended_child, ignore_children, page_bytes,
    reap_child, reset_signals, seal_inherited, set_soft_limit, signal_group, signal_pid,
    signal_pidfd,
};
