//! How does a test get a cluster of its own, with processes that are really there?
//!
//! Everything is below one folder in the system's temporary folder, which every user may traverse:
//! files, sockets, logs, state. Whatever a test leaves running ends with its [`Cluster`].

mod cleanup;
mod clock;
mod cluster;
mod command;
mod daemon;
mod grpc;
mod job;
mod options;
mod probe;
mod wait;

pub(crate) use clock::WallClock;
pub(crate) use cluster::Cluster;
pub(crate) use command::{Cmd, Ran, Running};
pub(crate) use daemon::{Daemon, kill_pid};
pub(crate) use grpc::{block_on, held_request, rpc_at, submit, submit_with};
pub(crate) use job::JobView;
pub(crate) use options::{AgentOptions, Options};
pub(crate) use probe::{NOBODY, as_nobody, is_root, limits_memory, root_and_other_user, tmpfs};
pub(crate) use wait::{PATIENCE, wait_for, wait_until};
