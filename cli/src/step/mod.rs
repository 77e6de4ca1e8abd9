//! How do the bytes of a step travel between a command and the shepherds of its tasks?
//!
//! `srun`, `sattach` and `sbcast` listen on a port of their own; each node's shepherd dials it,
//! both sides prove that they know the step's secret, and from then on output, exits, input and
//! signals are frames. What is to be done about each of them is decided by [`session::Session`], a value
//! without I/O; [`drive`] feeds it and does what it says, on the one thread that also makes the
//! calls.

pub(crate) mod drive;
pub(crate) mod exits;
pub(crate) mod input;
pub(crate) mod listener;
pub(crate) mod merge;
mod relay;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod sinks;
pub(crate) mod terminal;
pub(crate) mod watch;

/// A second descriptor of a stream of this process; `None`: it is closed.
pub(crate) fn own_stream(stream: &impl std::os::fd::AsFd) -> Option<std::fs::File> {
    stream.as_fd().try_clone_to_owned().ok().map(std::fs::File::from)
}
